//! Many seeds, each in a process of its own, and what to do about one that fails.
//!
//! ```text
//!   batch --> cargo sim bank --seed 1 --json    one child for each seed, as many at once as there are jobs
//!         --> cargo sim bank --seed 2 --json      its last line is a report: time, faults, marks
//!                 |
//!                 failed: print how to replay it, the events around, and leave out one fault after the other
//! ```
//!
//! One process for each seed because some state of the libraries outlives a run (see the crate's caveats), and so
//! that a broken invariant, which ends the process, ends one run only.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Read as _, Write as _},
    process::{Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::ScopedJoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// How long a run may take in real time before it counts as one that hangs. The longest take about two minutes on one core.
const RUN_MAX: Duration = Duration::from_secs(900);

/// What a child says of its run, in one line.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RunReport {
    /// Of which seed.
    pub seed: u64,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// Hash of the trace.
    pub trace: String,
    /// How long it took, in simulated seconds.
    pub simulated: f64,
    /// The numbers of the faults of its schedule, with their descriptions.
    pub faults: Vec<(usize, String)>,
    /// A line for each workload.
    pub checked: Vec<String>,
    /// How often each mark was reached.
    pub marks: BTreeMap<String, u64>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Name or path.
    pub scenario: String,
    /// The seeds.
    pub seeds: std::ops::Range<u64>,
    /// How many at once.
    pub jobs: usize,
    /// A planted bug, by name.
    pub plant: Option<String>,
    /// Instead of the scenario's time.
    pub seconds: Option<u64>,
    /// Whether to end with the first failure.
    pub stop_at_failure: bool,
    /// Whether to say how far it is.
    pub progress: bool,
}

/// What came of a batch.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs without a failure.
    pub clean: u64,
    /// Runs that failed, by seed.
    pub failed: Vec<RunReport>,
    /// Simulated time of all runs together, in seconds.
    pub simulated: f64,
    /// Real time, in seconds.
    pub took: f64,
    /// How often each mark was reached, in all runs together.
    pub marks: BTreeMap<String, u64>,
    /// Runs in which a mark was reached.
    pub marked_runs: BTreeMap<String, u64>,
}

impl Summary {
    /// Adds another batch's.
    pub fn add(&mut self, other: Summary) {
        self.clean += other.clean;
        self.failed.extend(other.failed);
        self.simulated += other.simulated;
        self.took += other.took;
        for (mark, count) in other.marks {
            *self.marks.entry(mark).or_default() += count;
        }
        for (mark, count) in other.marked_runs {
            *self.marked_runs.entry(mark).or_default() += count;
        }
    }
}

impl Batch {
    /// Runs all seeds.
    ///
    /// # Errors
    ///
    /// If a child cannot be started.
    #[expect(
        clippy::disallowed_methods,
        reason = "outside of any simulation: children and a clock on the wall"
    )]
    pub fn run(&self) -> Result<Summary> {
        let began = Instant::now();
        let next = AtomicU64::new(self.seeds.start);
        let over = AtomicBool::new(false);
        let summary = Mutex::new(Summary::default());
        let work = || -> Result<()> {
            while !over.load(Ordering::SeqCst) {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= self.seeds.end {
                    break;
                }
                let report = self.run_seed(seed, &[])?;
                let mut summary = summary.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                summary.simulated += report.simulated;
                for (mark, count) in &report.marks {
                    *summary.marks.entry(mark.clone()).or_default() += count;
                    *summary.marked_runs.entry(mark.clone()).or_default() += u64::from(*count > 0);
                }
                if report.failure.is_some() {
                    summary.failed.push(report);
                    over.fetch_or(self.stop_at_failure, Ordering::SeqCst);
                } else {
                    summary.clean += 1;
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| -> Result<()> {
            let workers: Vec<_> = (0..self.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            if self.progress {
                let mut said = Instant::now();
                while workers.iter().any(|worker| !worker.is_finished()) {
                    std::thread::sleep(Duration::from_millis(200));
                    let pause = if std::io::stderr().is_terminal() { 1 } else { 30 };
                    if said.elapsed() >= Duration::from_secs(pause) {
                        said = Instant::now();
                        let summary =
                            summary.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                        self.say_progress(&summary, began.elapsed());
                    }
                }
            }
            for worker in workers {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(())
        })?;
        let mut summary = summary.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        summary.took = began.elapsed().as_secs_f64();
        summary.failed.sort_by_key(|report| report.seed);
        if self.progress {
            self.say_progress(&summary, began.elapsed());
            eprintln!();
        }
        Ok(summary)
    }

    fn say_progress(&self, summary: &Summary, took: Duration) {
        let done = summary.clean + summary.failed.len() as u64;
        let seconds = took.as_secs_f64().max(0.001);
        let line = format!(
            "{}: {done} of {} seeds, {} failed, {:.1} seeds/s, {:.0} simulated s/s",
            self.scenario,
            self.seeds.end - self.seeds.start,
            summary.failed.len(),
            done as f64 / seconds,
            summary.simulated / seconds
        );
        let mut stderr = std::io::stderr().lock();
        // Nobody reads it any more: no reason to stop.
        let _ = if stderr.is_terminal() {
            write!(stderr, "\r{line}  ").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{line}")
        };
    }

    /// Runs one seed in a process of its own, without some of its faults.
    ///
    /// # Errors
    ///
    /// If the child cannot be started.
    pub fn run_seed(&self, seed: u64, without: &[usize]) -> Result<RunReport> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([&self.scenario, "--json", "--seed"]).arg(seed.to_string());
        if let Some(plant) = &self.plant {
            command.args(["--plant", plant]);
        }
        if let Some(seconds) = self.seconds {
            command.arg("--seconds").arg(seconds.to_string());
        }
        if !without.is_empty() {
            command.arg("--without").arg(join(without));
        }
        let (output, late) = outcome_within(&mut command, RUN_MAX)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let report =
            text.lines().last().and_then(|line| serde_json::from_str::<RunReport>(line).ok());
        Ok(report.unwrap_or_else(|| {
            let said = tail(&String::from_utf8_lossy(&output.stderr), 30);
            let failure = Some(if late {
                format!("it did not end within {} s of real time\n{said}", RUN_MAX.as_secs())
            } else {
                // It broke off: an invariant, told by a panic.
                format!("{}\n{said}", output.status)
            });
            RunReport { seed, failure, ..RunReport::default() }
        }))
    }

    /// Leaves out as many faults of a failing seed as possible, such that it still fails. Delta debugging, by Zeller
    /// and Hildebrandt: "Simplifying and isolating failure-inducing input", 2002.
    ///
    /// # Errors
    ///
    /// If a child cannot be started.
    pub fn shrink(&self, report: &RunReport, runs_max: u32) -> Result<Shrunk> {
        let all: Vec<usize> = report.faults.iter().map(|(number, _)| *number).collect();
        let mut needed = all.clone();
        let (mut runs, mut pieces) = (0, 2);
        while !needed.is_empty() && runs < runs_max {
            let size = needed.len().div_ceil(pieces);
            let mut smaller = None;
            for chunk in needed.chunks(size) {
                if runs >= runs_max {
                    break;
                }
                let kept: Vec<usize> =
                    needed.iter().copied().filter(|number| !chunk.contains(number)).collect();
                let without: Vec<usize> =
                    all.iter().copied().filter(|number| !kept.contains(number)).collect();
                runs += 1;
                if self.run_seed(report.seed, &without)?.failure.is_some() {
                    smaller = Some(kept);
                    break;
                }
            }
            match smaller {
                Some(kept) => {
                    needed = kept;
                    pieces = 2.max(pieces - 1);
                }
                None if size == 1 => break,
                None => pieces = (2 * pieces).min(needed.len()),
            }
        }
        let without = all.iter().copied().filter(|number| !needed.contains(number)).collect();
        let kept = report.faults.iter().filter(|(number, _)| needed.contains(number));
        Ok(Shrunk { without, needed: kept.map(|(_, what)| what.clone()).collect(), runs })
    }

    /// The command that runs one seed again.
    pub fn replay(&self, seed: u64, without: &[usize]) -> String {
        let mut command = format!("cargo sim {} --seed {seed}", self.scenario);
        if let Some(plant) = &self.plant {
            command += &format!(" --plant {plant}");
        }
        if let Some(seconds) = self.seconds {
            command += &format!(" --seconds {seconds}");
        }
        if !without.is_empty() {
            command += &format!(" --without {}", join(without));
        }
        command
    }
}

/// A failing schedule, made small.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What can be left out.
    pub without: Vec<usize>,
    /// What cannot.
    pub needed: Vec<String>,
    /// How many runs that took.
    pub runs: u32,
}

/// What a program says until it ends, and whether it had to be killed because that took too long.
fn outcome_within(command: &mut Command, limit: Duration) -> Result<(Output, bool)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the simulation's own program")?;
    let mut stdout = child.stdout.take().context("its output")?;
    let mut stderr = child.stderr.take().context("its messages")?;
    let (ended, end) = mpsc::channel::<()>();
    std::thread::scope(|scope| -> Result<(Output, bool)> {
        let said = scope.spawn(move || {
            let mut said = Vec::new();
            let read = stdout.read_to_end(&mut said).map(|_| said);
            drop(ended);
            read
        });
        let messages = scope.spawn(move || {
            let mut messages = Vec::new();
            stderr.read_to_end(&mut messages).map(|_| messages)
        });
        let late = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        if late {
            child.kill()?;
        }
        let status = child.wait()?;
        let text = |reader: ScopedJoinHandle<'_, std::io::Result<Vec<u8>>>| {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        Ok((Output { status, stdout: text(said)?, stderr: text(messages)? }, late))
    })
}

fn join(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// The last lines of a text.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_does_not_end_is_ended() {
        let shell = |script: &str, limit| {
            let (output, late) =
                outcome_within(Command::new("sh").args(["-c", script]), limit).unwrap();
            (output.status.success(), String::from_utf8(output.stdout).unwrap(), late)
        };
        let long = Duration::from_secs(60);
        assert_eq!(shell("echo said", long), (true, "said\n".to_owned(), false));
        assert_eq!(shell("exec false", long), (false, String::new(), false));
        let short = Duration::from_millis(200);
        assert_eq!(shell("echo said; exec sleep 60", short), (false, "said\n".to_owned(), true));
    }
}
