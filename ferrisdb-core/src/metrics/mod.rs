//! Where the time goes: counters, gauges and histograms of every role, read while it works.
//!
//! ```text
//!   a role                       its process                      whoever asks
//!   ProxyMetrics, an Arc  -----> Registry (of the Router) ------> Metrics service, instance 0
//!     committed  += 1              proxy     generation 7           ferrisdb-cli metrics
//!     push.record(1_200_000)       storage   tag 3                  Prometheus, through its text format
//!         |                        process
//!         +-- a few atomic additions; nothing is formatted, sent or kept over time here
//! ```
//!
//! A role declares its metrics with [`role_metrics!`](crate::role_metrics): a struct of them, in which the doc comment
//! of a field is also what is said of it wherever it is printed. It adds to them where the work is done, and
//! registers them at its process' [`Registry`] for as long as it lives. What the role knows anyway (the size of its
//! window, say) is not counted twice: a function that is run before each reading copies it into a gauge.
//!
//! Everything counts from the start of the role. Rates and what happened lately are the difference of two readings, see
//! [`RoleMetrics::since`]: nothing here decays or rotates, so two who ask do not disturb each other.
//!
//! # Why our own
//!
//! A histogram of `hdrhistogram` is recorded into through `&mut`, so each would need a lock, and three digits of
//! precision take tens of kilobytes each. `prometheus-client` keeps its sums as floats and walks a list of boundaries for
//! each value. What is needed is less than both: integers, a shift and two atomic additions, 2 KiB a histogram.
//!
//! # Caveats
//!
//! The numbers of one reading are not of one instant: each is read by itself, while the role works on. Threads that
//! record into one histogram at once share its cache lines; there are few enough of them not to shard it.
//!
//! Start with [`Histogram`], then [`Registry::register`].

mod histogram;
mod registry;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

pub use histogram::{Histogram, HistogramReading, Timing};
pub use registry::{Registration, Registry};

/// How often something happened, or how much of it there was. Goes up only.
///
/// ```
/// use ferrisdb_core::metrics::Counter;
/// let rows = Counter::default();
/// rows.add(3);
/// rows.increment();
/// assert_eq!(rows.get(), 4);
/// ```
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more. Wraps around after 2^64.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// So many more, of a collection.
    pub fn add_len(&self, length: usize) {
        self.add(length as u64);
    }

    /// Follows a count that is kept elsewhere. Never goes back.
    pub fn follow(&self, count: u64) {
        self.0.fetch_max(count, Relaxed);
    }

    /// How many until now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// For a reading.
    pub fn read(&self) -> MetricValue {
        MetricValue::Counter(self.get())
    }
}

/// How much of something there is now. Goes up and down.
///
/// ```
/// use ferrisdb_core::metrics::Gauge;
/// let window_bytes = Gauge::default();
/// window_bytes.set(70);
/// window_bytes.set(50);
/// assert_eq!(window_bytes.get(), 50);
/// ```
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// So much there is.
    pub fn set(&self, amount: u64) {
        self.0.store(amount, Relaxed);
    }

    /// How much there was when it was last set; zero before.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// For a reading.
    pub fn read(&self) -> MetricValue {
        MetricValue::Gauge(self.get())
    }
}

/// What the numbers of a metric count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Things: transactions, batches, rows.
    Count,
    /// Bytes.
    Bytes,
    /// Nanoseconds. Shown as seconds, or in the unit that fits.
    Time,
    /// Versions: about a million a second, so one is about a microsecond.
    Versions,
}

/// A metric, as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricSample {
    /// Its name, unique in its role: `batch_size`.
    pub name: String,
    /// One sentence that says what it counts.
    pub help: String,
    /// Of what its numbers are.
    pub unit: Unit,
    /// What was read.
    pub value: MetricValue,
}

/// What a metric said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetricValue {
    /// See [`Counter`].
    Counter(u64),
    /// See [`Gauge`].
    Gauge(u64),
    /// See [`Histogram`].
    Histogram(HistogramReading),
}

impl MetricValue {
    /// What came since an earlier reading; gauges stay as they are.
    pub fn since(&self, earlier: &MetricValue) -> MetricValue {
        match (self, earlier) {
            (MetricValue::Counter(now), MetricValue::Counter(then)) => {
                MetricValue::Counter(now.saturating_sub(*then))
            }
            (MetricValue::Histogram(now), MetricValue::Histogram(then)) => {
                MetricValue::Histogram(now.since(then))
            }
            _ => self.clone(),
        }
    }
}

/// The metrics of one role in a process, as they were read.
///
/// ```
/// use std::sync::Arc;
/// use ferrisdb_core::metrics::Registry;
/// ferrisdb_core::role_metrics! {
///     /// What a kettle counts.
///     pub struct KettleMetrics of "kettle" {
///         /// Cups that were filled.
///         cups: Counter(Count),
///     }
/// }
/// let (registry, kettle) = (Registry::default(), Arc::new(KettleMetrics::default()));
/// let _registered = registry.register(&[("place", "kitchen".into())], kettle.clone());
/// kettle.cups.add(2);
/// let earlier = registry.read();
/// kettle.cups.add(3);
/// let roles = registry.read();
/// assert_eq!(roles[0].name(), "kettle place=kitchen");
/// assert_eq!(roles[0].counter("cups"), Some(5));
/// assert_eq!(roles[0].since(&earlier[0]).counter("cups"), Some(3));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleMetrics {
    /// Which role: `proxy`.
    pub role: String,
    /// What tells it from others of its role: `("generation", "7")`.
    pub labels: Vec<(String, String)>,
    /// Distinguishes roles of one process that were registered one after the other, with the same labels or not.
    pub registration: u64,
    /// For how long it has counted, in microseconds.
    pub age_us: u64,
    /// Its metrics, in the order of their declaration.
    pub samples: Vec<MetricSample>,
}

impl RoleMetrics {
    /// Role and labels, for people.
    pub fn name(&self) -> String {
        let labels = self.labels.iter().map(|(label, value)| format!(" {label}={value}"));
        labels.fold(self.role.clone(), |name, label| name + &label)
    }

    /// What happened since an earlier reading of the same registration, whose samples are the same.
    #[must_use]
    pub fn since(&self, earlier: &RoleMetrics) -> RoleMetrics {
        let mut recent = self.clone();
        recent.age_us = self.age_us.saturating_sub(earlier.age_us);
        for sample in &mut recent.samples {
            if let Some(then) = earlier.sample(&sample.name) {
                sample.value = sample.value.since(&then.value);
            }
        }
        recent
    }

    /// A metric by its name.
    pub fn sample(&self, name: &str) -> Option<&MetricSample> {
        self.samples.iter().find(|sample| sample.name == name)
    }

    /// A counter by its name.
    pub fn counter(&self, name: &str) -> Option<u64> {
        match self.sample(name)?.value {
            MetricValue::Counter(count) => Some(count),
            _ => None,
        }
    }

    /// A gauge by its name.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        match self.sample(name)?.value {
            MetricValue::Gauge(amount) => Some(amount),
            _ => None,
        }
    }

    /// A histogram by its name.
    pub fn histogram(&self, name: &str) -> Option<&HistogramReading> {
        match &self.sample(name)?.value {
            MetricValue::Histogram(reading) => Some(reading),
            _ => None,
        }
    }
}

/// The metrics that a role declares; made by [`role_metrics!`](crate::role_metrics).
pub trait MetricSet: std::fmt::Debug + Send + Sync + 'static {
    /// The role.
    fn role(&self) -> &'static str;
    /// Reads all of them.
    fn samples(&self) -> Vec<MetricSample>;
}

/// Declares the metrics of a role: a struct of public fields, each a [`Counter`], [`Gauge`] or [`Histogram`] with a
/// [`Unit`] in parentheses, and a doc comment of one sentence, which is its help text as well.
///
/// ```
/// ferrisdb_core::role_metrics! {
///     /// What a ferry counts.
///     pub struct FerryMetrics of "ferry" {
///         /// Crossings to the other side.
///         crossings: Counter(Count),
///         /// Time from leaving one side to reaching the other.
///         crossing: Histogram(Time),
///         /// Cars on deck.
///         cars: Gauge(Count),
///     }
/// }
/// use ferrisdb_core::metrics::MetricSet as _;
/// let ferry = FerryMetrics::default();
/// ferry.cars.set(7);
/// assert_eq!(ferry.samples()[0].help, "Crossings to the other side.");
/// ```
#[macro_export]
macro_rules! role_metrics {
    (
        $(#[doc = $doc:literal])*
        $visibility:vis struct $name:ident of $role:literal {
            $($(#[doc = $help:literal])+ $field:ident: $kind:ident($unit:ident)),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Default)]
        $visibility struct $name {
            $($(#[doc = $help])+ pub $field: $crate::metrics::$kind,)*
        }

        impl $crate::metrics::MetricSet for $name {
            fn role(&self) -> &'static str {
                $role
            }

            fn samples(&self) -> ::std::vec::Vec<$crate::metrics::MetricSample> {
                ::std::vec![$($crate::metrics::MetricSample {
                    name: ::std::string::String::from(stringify!($field)),
                    help: ::std::string::String::from(concat!($($help),+).trim()),
                    unit: $crate::metrics::Unit::$unit,
                    value: self.$field.read(),
                },)*]
            }
        }
    };
}
