//! The reads of a storage server, and its calls about watches.
//!
//! ```text
//!   reads      'a' at 40    'b' at 95    'c' at 30          applied 90, oldest 20
//!   window     a40          .            unknown            one lock for the whole batch
//!   engine     .            .            c10                no lock; then a second look: is 30 still kept?
//!   later      .            b91          .                  95 was applied while the read waited
//! ```
//!
//! A batch that needs no waiting is answered in one go, without a task or a timer of its own. Why the second
//! look makes an answer of the engine right stands in [`super::read`]. A range read is a scan in steps, with a budget: what
//! is left of it, its client asks for (I-16). Whether the server owns a key is asked when
//! it has reached the read's version, and for that version. Keeps I-2 and I-3.

use std::{sync::Arc, time::Duration};

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Result, Stage, Version, limits, runtime,
    service::{
        controller::Progress,
        storage::{
            Measure, Measured, PointRead, RangeRead, RangeReply, Storage, VersionedValue,
            WatchChanges, WatchNews, WatchSessionId,
        },
    },
};
use tarpc::context::Context;

use super::{
    budget::Budget,
    measure,
    read::{self, Scan, Sink},
    server::Shared,
    serving::Serving,
    window::Lookup,
};

/// Range reads of at most so many rows are begun where they arrive, longer ones where they may block.
const ROWS_INLINE_MAX: u32 = 256;

/// How long they are done where they arrive: rows that are not in memory are waited for where that keeps nobody.
const INLINE_TIME_MAX: Duration = Duration::from_millis(1);
/// So many rows of them are looked at between two looks at the clock.
const INLINE_ROWS_PER_LOOK: usize = 8;

/// How far ahead a version can be that is read: a recovery or two may have happened since this server has heard of one.
const REACHABLE_VERSIONS: u64 = 4 * limits::RECOVERY_VERSION_JUMP;

/// The service.
#[derive(Clone)]
pub(super) struct Reads(pub(super) Arc<Shared>);

impl Storage for Reads {
    async fn get(self, _: Context, reads: Vec<PointRead>) -> Vec<Result<Option<VersionedValue>>> {
        if reads.len() > limits::READS_PER_REQUEST_MAX {
            let detail =
                format!("{} reads, at most {}", reads.len(), limits::READS_PER_REQUEST_MAX);
            let error = Error::new(ErrorCode::Protocol, Stage::Read, detail);
            return vec![Err(error); reads.len()];
        }
        let _timing = self.0.metrics.on_reads(reads.len());
        let mut answers = self.0.get_now(reads.iter());
        // A version that nobody can have read is not waited for: the others of its batch would have to wait with it.
        let reachable = self.0.applied_version().saturating_add(REACHABLE_VERSIONS);
        let is_late = |&i: &usize| is_future(&answers[i]) && reads[i].read_version <= reachable;
        let late: Vec<usize> = (0..reads.len()).filter(is_late).collect();
        let Some(newest) = late.iter().map(|&i| reads[i].read_version).max() else {
            return answers;
        };
        let waited = self.0.wait_for(newest).await;
        let again = self.0.get_now(late.iter().map(|&i| &reads[i]));
        for (i, answer) in late.into_iter().zip(again) {
            answers[i] = match &waited {
                Err(error) if is_future(&answer) => Err(error.clone()),
                _ => answer,
            };
        }
        answers
    }

    async fn get_range(self, _: Context, request: RangeRead) -> Result<RangeReply> {
        if request.range.begin > request.range.end {
            let detail = format!("{:?}", request.range);
            return Err(Error::new(ErrorCode::InvertedRange, Stage::Read, detail));
        }
        self.0.check_serving()?;
        // Whether it is for this server, only its stream up to the version can tell (I-3).
        if request.read_version > self.0.applied_version() {
            self.0.wait_for(request.read_version).await?;
        }
        let _timing = self.0.metrics.range_read.start();
        let scan =
            self.0.scan(Scan::of_rows(&request), request.rows_max <= ROWS_INLINE_MAX).await?;
        self.0.metrics.rows.add_len(scan.sink().count());
        Ok(scan.into_reply())
    }

    async fn measure(self, _: Context, request: Measure) -> Result<Measured> {
        if request.range.is_empty() {
            let detail = format!("{:?}", request.range);
            return Err(Error::new(ErrorCode::InvertedRange, Stage::Read, detail));
        }
        self.0.check_serving()?;
        if request.read_version > self.0.applied_version() {
            self.0.wait_for(request.read_version).await?;
        }
        {
            // Nothing is said of what is not held.
            let serving = self.0.serving.read();
            serving.window.check_version(request.read_version)?;
            serving.shards.check_range(&request.range, request.read_version)?;
        }
        let (shared, asked) = (Arc::clone(&self.0), request.clone());
        let sampled = runtime::blocking(move || measure::by_sample(&*shared.engine, &asked));
        if let Some(measured) = sampled.await {
            return Ok(measured);
        }
        Ok(measure::measured(self.0.scan(measure::scan(&request), false).await?))
    }

    async fn progress(self, _: Context) -> Result<Progress> {
        let failure = self.0.serving.read().failure.clone();
        failure.map_or_else(|| Ok(self.0.progress()), Err)
    }

    async fn change_watches(self, _: Context, changes: WatchChanges) -> Result<()> {
        self.0.check_serving()?;
        self.0.change_watches(changes)
    }

    async fn watch_news(
        self,
        _: Context,
        session: WatchSessionId,
        wait_ms: u32,
    ) -> Result<WatchNews> {
        self.0.watch_news(session, Duration::from_millis(wait_ms.into())).await
    }
}

fn is_future<T>(answer: &Result<T>) -> bool {
    answer.as_ref().is_err_and(|error| error.code() == ErrorCode::FutureVersion)
}

fn check_life(serving: &Serving, life: u64) -> Result<()> {
    if serving.life == life {
        return Ok(());
    }
    Err(Error::new(ErrorCode::WrongShard, Stage::Read, "the server has begun anew"))
}

impl Shared {
    /// Answers what can be answered now.
    fn get_now<'a>(
        &self,
        reads: impl Iterator<Item = &'a PointRead> + Clone,
    ) -> Vec<Result<Option<VersionedValue>>> {
        let (life, found) = self.look_up(reads.clone());
        let mut answers = Vec::with_capacity(found.len());
        let mut from_engine = Vec::new();
        for (read, found) in reads.zip(found) {
            answers.push(match found {
                Ok(Lookup::Value(value)) => Ok(Some(value)),
                Ok(Lookup::Cleared) => Ok(None),
                Ok(Lookup::Unknown) => {
                    from_engine.push((answers.len(), read.read_version));
                    self.engine.get(&read.key).inspect_err(|error| self.fail(error.clone()))
                }
                Err(error) => Err(error),
            });
        }
        if !from_engine.is_empty() {
            let serving = self.serving.read();
            for (index, version) in from_engine {
                if answers[index].is_err() {
                    continue;
                }
                let checked =
                    check_life(&serving, life).and_then(|()| serving.window.check_version(version));
                if let Err(error) = checked {
                    answers[index] = Err(error);
                }
            }
        }
        answers
    }

    /// What the window says to each read, and in which life of the server.
    fn look_up<'a>(
        &self,
        reads: impl Iterator<Item = &'a PointRead>,
    ) -> (u64, Vec<Result<Lookup>>) {
        let serving = self.serving.read();
        let look_up = |read: &PointRead| {
            if let Some(failure) = &serving.failure {
                return Err(failure.clone());
            }
            serving.shards.check_tag()?;
            let found = read::get_in_window(&serving.window, &read.key, read.read_version)?;
            serving.shards.check_key(&read.key, read.read_version)?;
            Ok(found)
        };
        (serving.life, reads.map(look_up).collect())
    }

    fn check_serving(&self) -> Result<()> {
        let serving = self.serving.read();
        serving.failure.clone().map_or(Ok(()), Err)?;
        serving.shards.check_tag()
    }

    /// Takes the steps of a scan as far as one request may (I-16). What is not done with a short look here goes on where it
    /// may block.
    async fn scan<S: Sink + Send + 'static>(
        self: &Arc<Self>,
        mut scan: Scan<S>,
        begins_here: bool,
    ) -> Result<Scan<S>> {
        let limits = self.settings.read_limits;
        let ends_here = begins_here && limits.looked_at_max <= limits.looked_at_inline_max;
        if begins_here {
            let rows = limits.looked_at_inline_max.min(limits.looked_at_max);
            let time = if ends_here { limits.time_max } else { INLINE_TIME_MAX };
            let mut budget = match planted(Plant::ScanInPlace) {
                true => Budget::of_rows(usize::MAX),
                false => Budget::of_rows(rows).within(time).looking_every(INLINE_ROWS_PER_LOOK),
            };
            self.advance(&mut scan, &mut budget)?;
        }
        if scan.is_done() || ends_here {
            return Ok(scan);
        }
        let shared = Arc::clone(self);
        runtime::blocking(move || {
            let mut budget = Budget::of_rows(limits.looked_at_max).within(limits.time_max);
            shared.advance(&mut scan, &mut budget)?;
            Ok(scan)
        })
        .await
    }

    /// Takes steps of a scan until it is done or the budget is spent, if this server has the range at the version (I-2, I-3).
    /// No lock is held while the engine is read; why that is right stands in [`super::read`].
    fn advance<S: Sink>(&self, scan: &mut Scan<S>, budget: &mut Budget) -> Result<()> {
        let version = scan.read_version();
        while !scan.is_done() && !budget.is_spent() {
            let serving = self.serving.read();
            serving.failure.clone().map_or(Ok(()), Err)?;
            serving.shards.check_tag()?;
            serving.window.check_version(version)?;
            serving.shards.check_range(scan.rest(), version)?;
            let (life, excerpt) = (serving.life, scan.excerpt(&serving.window, budget));
            let held = planted(Plant::ScanUnderLock).then_some(serving);
            let read = scan.read(excerpt, &*self.engine, budget);
            drop(held);
            if let Err(error) = &read
                && matches!(error.code(), ErrorCode::Disk | ErrorCode::Corrupt)
            {
                self.fail(error.clone());
            }
            read?;
            let serving = self.serving.read();
            check_life(&serving, life)?;
            serving.window.check_version(version)?;
        }
        Ok(())
    }

    /// Waits until a version was applied, but not longer than reads may.
    async fn wait_for(&self, version: Version) -> Result<()> {
        let Some(waiter) = self.waiters.wait_for(version)? else { return Ok(()) };
        mark(Mark::ReadWaited);
        let waited =
            runtime::timeout(self.settings.future_version_wait, Stage::Read, waiter.reached());
        self.metrics.version_wait.time(waited).await.map_err(|_| {
            let detail = format!("read version {version}, applied {}", self.applied_version());
            Error::new(ErrorCode::FutureVersion, Stage::Read, detail)
        })
    }
}
