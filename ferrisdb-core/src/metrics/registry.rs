//! Which metrics there are in a process.
//!
//! ```text
//!   register(proxy, generation 7) --> Registration ... the role lives ... dropped --> gone from the next reading
//! ```
//!
//! A registry belongs to a process and not to the program: a simulation has many processes in one program.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::{MetricSet, RoleMetrics};
use crate::runtime::{Instant, now};

/// The metrics of the roles of one process. Clones are the same registry.
///
/// ```
/// # use std::sync::Arc;
/// # use ferrisdb_core::metrics::Registry;
/// # ferrisdb_core::role_metrics! {
/// #     /// What a kettle counts.
/// #     pub struct KettleMetrics of "kettle" {
/// #         /// Cups that were filled.
/// #         cups: Counter(Count),
/// #     }
/// # }
/// let registry = Registry::default();
/// let registration = registry.register(&[], Arc::new(KettleMetrics::default()));
/// assert_eq!(registry.read().len(), 1);
/// drop(registration);
/// assert_eq!(registry.read().len(), 0);
/// ```
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    next: u64,
    /// By the number of their registration, so that readings are in that order.
    registered: BTreeMap<u64, Arc<Registered>>,
}

struct Registered {
    labels: Vec<(String, String)>,
    since: Instant,
    metrics: Arc<dyn MetricSet>,
    refresh: Box<dyn Fn() + Send + Sync>,
}

impl Registry {
    /// Shows a role's metrics in every reading, until the registration is dropped.
    pub fn register(&self, labels: &[(&str, String)], metrics: Arc<dyn MetricSet>) -> Registration {
        self.register_with(labels, metrics, || {})
    }

    /// The same, and runs `refresh` before each reading, to set gauges. It must not wait, and had better hold the role
    /// by a [`Weak`], so that the registry does not keep it alive.
    pub fn register_with(
        &self,
        labels: &[(&str, String)],
        metrics: Arc<dyn MetricSet>,
        refresh: impl Fn() + Send + Sync + 'static,
    ) -> Registration {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), value.clone()));
        let registered = Registered {
            labels: labels.collect(),
            since: now(),
            metrics,
            refresh: Box::new(refresh),
        };
        let mut inner = self.0.lock();
        let number = inner.next;
        inner.next += 1;
        inner.registered.insert(number, Arc::new(registered));
        Registration { registry: Arc::downgrade(&self.0), number }
    }

    /// Reads everything, in the order of registration.
    pub fn read(&self) -> Vec<RoleMetrics> {
        let registered: Vec<_> = {
            let inner = self.0.lock();
            inner.registered.iter().map(|(number, role)| (*number, Arc::clone(role))).collect()
        };
        // Not under the lock: refreshing takes locks of the roles.
        let read = |(number, role): (u64, Arc<Registered>)| {
            (role.refresh)();
            let age = now().saturating_duration_since(role.since);
            RoleMetrics {
                role: role.metrics.role().to_owned(),
                labels: role.labels.clone(),
                registration: number,
                age_us: u64::try_from(age.as_micros()).unwrap_or(u64::MAX),
                samples: role.metrics.samples(),
            }
        };
        registered.into_iter().map(read).collect()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.0.lock();
        f.debug_list().entries(inner.registered.values().map(|role| role.metrics.role())).finish()
    }
}

/// A role is in a registry. Dropping it takes the role out.
#[derive(Debug)]
#[must_use = "dropping it takes the role out of the registry"]
pub struct Registration {
    registry: Weak<Mutex<Inner>>,
    number: u64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.registered.keys()).finish()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(registry) = self.registry.upgrade() else { return };
        let removed = registry.lock().registered.remove(&self.number);
        // Not under the lock: what is dropped may be the last of a role.
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MetricValue;

    crate::role_metrics! {
        /// What a test counts.
        struct TestMetrics of "test" {
            /// Steps that were taken,
            /// all of them.
            steps: Counter(Count),
            /// Steps that are left.
            left: Gauge(Count),
            /// Time of a step.
            step: Histogram(Time),
        }
    }

    #[test]
    fn a_reading_has_what_is_registered_and_nothing_else() {
        let registry = Registry::default();
        let metrics = Arc::new(TestMetrics::default());
        let (weak, label) = (Arc::downgrade(&metrics), [("part", String::from("first"))]);
        let first = registry.register_with(&label, metrics.clone(), move || {
            weak.upgrade().iter().for_each(|metrics| metrics.left.set(7));
        });
        let second = registry.register(&[], Arc::new(TestMetrics::default()));
        metrics.steps.increment();
        metrics.step.record(70);
        let read = registry.read();
        assert_eq!(
            read.iter().map(RoleMetrics::name).collect::<Vec<_>>(),
            ["test part=first", "test"]
        );
        assert_eq!((read[0].counter("steps"), read[0].gauge("left")), (Some(1), Some(7)));
        assert_eq!(read[0].histogram("step").map(|step| step.max), Some(70));
        assert_eq!(read[0].samples[0].help, "Steps that were taken, all of them.");
        assert_eq!(read[1].samples[0].value, MetricValue::Counter(0));

        drop(first);
        assert_eq!(registry.read().len(), 1);
        assert_eq!(registry.read()[0].registration, read[1].registration);
        // A registry may go before its roles.
        drop(registry);
        drop(second);
    }
}
