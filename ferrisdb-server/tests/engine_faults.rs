//! RocksDB on a disk that fails: the engine's process ends, or its disk refuses, at every operation on its files.
//!
//! ```text
//!   this test ──starts──► itself, with file_system.c between it and libc
//!                           opens the engine, takes one step after the other, says which are done
//!                           ... and meets one fault, at the operation with a given number
//!             ──then──►   opens what is left, without faults, and compares
//! ```
//!
//! Whatever the fault, the engine has to be at the last step that was acknowledged or at the one that had begun, exactly
//! (I-9, I-11); and what it says while its disk refuses has to be true. The simulation has an engine in memory in its
//! place, so what RocksDB does with our settings can only be seen here.
//!
//! Every day so many points are drawn of each fault; with `FERRISDB_ENGINE_FAULTS=all` all of them are tried.

#![cfg(all(target_os = "linux", not(madsim)))]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use bytes::Bytes;
use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Result, Value, Version, service::storage::Row,
};
use ferrisdb_server::storage::engine::{
    Engine, EngineBatch, EngineChange, Step as Next,
    rocksdb::{RocksEngine, RocksSettings},
};
use ferrisdb_sim::dice::Dice;

/// So many steps take RocksDB through some tables and merges of them.
const STEPS: u64 = 240;
/// So many points of each kind of fault are tried every day.
const POINTS_EVERY_DAY: u64 = 15;
/// What the process of the engine ends with when a fault ends it.
const ENDED_BY_FAULT: i32 = 77;

/// The test that is the process of the engine if it finds a task in its environment.
const ENGINE: &str = "what_was_acknowledged_survives_a_fault_at_every_operation";

// What the process of the engine finds in its environment.
const PATH: &str = "FERRISDB_ENGINE_PATH";
const TASK: &str = "FERRISDB_ENGINE_TASK";

/// One thing that is done to an engine.
enum Step {
    Write(EngineBatch),
    Ingest(Vec<EngineChange>),
    Reset(Version, Bytes),
}

/// The step with a number: the same whenever it is asked for.
fn step(number: u64) -> Step {
    let dice = &mut Dice::new(number, "engine");
    if number.is_multiple_of(90) {
        return Step::Reset(Version(number), Bytes::from(format!("reset {number}")));
    }
    let count = dice.magnitude(1, 24);
    let changes = (0..count).map(|_| change(number, dice)).collect();
    if number.is_multiple_of(7) {
        return Step::Ingest(changes);
    }
    let attachment = dice.one_in(5).then(|| Bytes::from(format!("attachment {number}")));
    Step::Write(EngineBatch { version: Version(number), changes, attachment })
}

fn change(number: u64, dice: &mut Dice) -> EngineChange {
    let key = |dice: &mut Dice| Key::from(format!("key/{:03}", dice.below(400)));
    match dice.below(12) {
        0 => EngineChange::Clear(key(dice)),
        1 => {
            let (one, other) = (key(dice), key(dice));
            EngineChange::ClearRange(KeyRange::new(one.clone().min(other.clone()), one.max(other)))
        }
        _ => {
            let length = dice.magnitude(1, 800) as usize;
            let value = (0..length).map(|_| dice.bits() as u8).collect::<Vec<u8>>();
            let value = Value(Bytes::from(value));
            EngineChange::Set(Row { key: key(dice), value, commit_version: Version(number) })
        }
    }
}

/// What an engine has to hold after some steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    version: Version,
    attachment: Option<Bytes>,
    rows: BTreeMap<Key, Row>,
}

impl State {
    fn after(steps: u64) -> State {
        let mut state = State::default();
        (1..=steps).for_each(|number| state.take(step(number)));
        state
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write(EngineBatch { version, changes, attachment }) => {
                self.version = version;
                self.attachment = attachment.or(self.attachment.take());
                self.change(changes);
            }
            Step::Ingest(changes) => self.change(changes),
            Step::Reset(version, attachment) => {
                *self = State { version, attachment: Some(attachment), rows: BTreeMap::new() };
            }
        }
    }

    fn change(&mut self, changes: Vec<EngineChange>) {
        for change in changes {
            match change {
                EngineChange::Clear(key) => drop(self.rows.remove(&key)),
                EngineChange::ClearRange(range) => self.rows.retain(|key, _| !range.contains(key)),
                EngineChange::Set(row) => drop(self.rows.insert(row.key.clone(), row)),
            }
        }
    }

    /// What an engine holds.
    fn of(engine: &RocksEngine) -> Result<State> {
        let mut rows = BTreeMap::new();
        let mut cursor = engine.cursor(&KeyRange::all_user_keys(), false);
        loop {
            match cursor.next()? {
                Next::Row { row, .. } => drop(rows.insert(row.key.clone(), row)),
                Next::Passed { .. } => {}
                Next::End => break,
            }
        }
        Ok(State { version: engine.version(), attachment: engine.attachment()?, rows })
    }
}

fn open(path: &Path) -> Result<RocksEngine> {
    // As little memory as RocksDB takes, so that there are many small files.
    let settings = RocksSettings {
        cache_bytes: 64 << 10,
        memtable_bytes: 64 << 10,
        open_files_max: 16,
        background_jobs: 2,
        ..RocksSettings::default()
    };
    RocksEngine::open(path, settings)
}

/// The process of the engine: does what it is told, and prints each step that is done.
fn be_the_engine(task: &str) {
    let path = PathBuf::from(std::env::var(PATH).unwrap());
    let engine = match open(&path) {
        Ok(engine) => engine,
        Err(error) => return println!("\nrefused: {error}"),
    };
    if task == "open" {
        return;
    }
    for number in 1..=STEPS {
        if task == "acknowledge-early" {
            println!("\ndone {number}");
        }
        let done = match step(number) {
            Step::Write(batch) => engine.write(&batch),
            Step::Ingest(changes) => engine.ingest(&changes),
            Step::Reset(version, attachment) => engine.reset(version, Some(&attachment)),
        };
        if let Err(error) = done {
            println!("\nrefused: {error}");
            // What can still be read is the truth.
            match State::of(&engine) {
                Ok(state) => assert_one_of_two(&state, number - 1, "after an error"),
                Err(error) => assert_honest(error.code()),
            }
            return;
        }
        println!("\ndone {number}");
    }
    match State::of(&engine) {
        Ok(state) => assert_eq!(state, State::after(STEPS), "at the end"),
        Err(error) => assert_honest(error.code()),
    }
}

/// The step that was acknowledged last, or the one after it, and nothing else.
fn assert_one_of_two(state: &State, acknowledged: u64, when: &str) {
    let mut expected = State::after(acknowledged);
    if *state == expected {
        return;
    }
    expected.take(step(acknowledged + 1));
    // A whole state fills pages; where it begins to differ says enough.
    let rows = state.rows.iter().chain(&expected.rows);
    let different =
        rows.map(|(key, _)| key).find(|key| state.rows.get(*key) != expected.rows.get(*key));
    assert!(
        *state == expected,
        "{when}: step {acknowledged} was acknowledged, the engine is at version {} and differs at {different:?} (I-9, I-11)",
        state.version
    );
}

fn assert_honest(code: ErrorCode) {
    assert!(matches!(code, ErrorCode::Disk | ErrorCode::Corrupt), "{code:?} for a disk that fails");
}

/// The folder of a run, and what is put between the engine and libc.
struct Scene {
    library: PathBuf,
    folder: tempfile::TempDir,
}

/// One fault, at one operation.
#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: &'static str,
    at: u64,
    lies: bool,
}

impl Scene {
    fn new() -> Scene {
        // In memory if possible: what a disk keeps is decided here, not by how long it takes.
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let folder = folder.unwrap();
        let library = folder.path().join("file_system.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine_faults/file_system.c");
        let built = Command::new("cc")
            .args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-o"])
            .args([library.as_os_str(), source.as_ref(), "-ldl".as_ref()])
            .status();
        assert!(built.unwrap().success(), "{source} does not compile");
        Scene { library, folder }
    }

    fn engine(&self) -> PathBuf {
        self.folder.path().join("engine")
    }

    /// Begins with an empty disk.
    fn clean(&self) {
        for name in ["engine", "undo"] {
            let path = self.folder.path().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
        }
    }

    /// Starts the process of the engine.
    fn run(&self, task: &str, fault: Option<Fault>) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([ENGINE, "--exact", "--nocapture"])
            .env(PATH, self.engine())
            .env(TASK, task)
            .env("LD_PRELOAD", &self.library)
            .env("FAULT_FOLDER", self.engine())
            .env("FAULT_UNDO", self.folder.path().join("undo"))
            .env("FAULT_COUNT", self.folder.path().join("count"));
        if let Some(Fault { kind, at, lies }) = fault {
            command.env("FAULT_KIND", kind).env("FAULT_AT", at.to_string());
            command.env("FAULT_SEED", at.to_string());
            if lies {
                command.env("FAULT_LIES", "yes");
            }
        }
        let output = command.output().unwrap();
        let ended = output.status.success() || output.status.code() == Some(ENDED_BY_FAULT);
        assert!(
            ended,
            "{task} with {fault:?}: {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// How many operations and reads a run has that nothing happens to.
    fn count(&self) -> (u64, u64) {
        self.clean();
        assert_eq!(acknowledged(&self.run("write", None)), STEPS, "without a fault");
        let count = fs::read_to_string(self.folder.path().join("count")).unwrap();
        let (operations, reads) = count.trim().split_once(' ').unwrap();
        (operations.parse().unwrap(), reads.parse().unwrap())
    }

    /// Runs into a fault, perhaps into another one while the engine is opened again, and compares what is left.
    fn check(&self, task: &str, fault: Fault) {
        self.clean();
        let acknowledged = acknowledged(&self.run(task, Some(fault)));
        let dice = &mut Dice::new(fault.at, "again");
        if fault.kind != "flip" && dice.one_in(2) {
            let kind = dice.pick(&["kill", "tear", "power", "refuse", "full"]);
            self.run("open", Some(Fault { kind, at: dice.magnitude(1, 32), lies: false }));
        }
        // What cannot be read after a crash is lost as well: which of the two a lost sync leads to is up to what RocksDB did in
        // the background.
        let lost = |error: Error| -> ! {
            panic!("{fault:?}: step {acknowledged} was acknowledged, now: {error} (I-9, I-11)")
        };
        let engine = open(&self.engine()).unwrap_or_else(|error| lost(error));
        let state = State::of(&engine).unwrap_or_else(|error| lost(error));
        assert_one_of_two(&state, acknowledged, &format!("{fault:?}"));
    }
}

/// The last step that the process has said is done.
fn acknowledged(output: &Output) -> u64 {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines()
        .filter_map(|line| line.strip_prefix("done "))
        .map(|number| number.parse().unwrap())
        .max()
        .unwrap_or(0)
}

/// Some of the points from 1 to `count`, spread evenly, or all of them.
fn points(count: u64) -> impl Iterator<Item = u64> {
    let all = std::env::var("FERRISDB_ENGINE_FAULTS").is_ok_and(|which| which == "all");
    let wanted = if all { count } else { POINTS_EVERY_DAY.min(count) };
    (0..wanted).map(move |n| 1 + n * count / wanted)
}

#[test]
fn what_was_acknowledged_survives_a_fault_at_every_operation() {
    if let Ok(task) = std::env::var(TASK) {
        return be_the_engine(&task);
    }
    let scene = Scene::new();
    let (operations, reads) = scene.count();
    assert!(operations > 2 * STEPS, "each step writes and syncs: {operations} operations");
    for kind in ["kill", "tear", "power", "refuse", "full"] {
        points(operations).for_each(|at| scene.check("write", Fault { kind, at, lies: false }));
    }
    assert!(reads > 0, "tables are read when they are merged");
    points(reads).for_each(|at| scene.check("write", Fault { kind: "flip", at, lies: false }));
}

/// The checks can fail: a step that is acknowledged before it is on disk is missed after a crash.
#[test]
#[should_panic(expected = "(I-9, I-11)")]
fn a_step_that_is_acknowledged_early_is_found() {
    let scene = Scene::new();
    for at in 200..230 {
        scene.check("acknowledge-early", Fault { kind: "kill", at, lies: false });
    }
}

/// The power cuts are real: with a disk that only says that it syncs, steps are missed.
#[test]
#[should_panic(expected = "(I-9, I-11)")]
fn a_disk_that_lies_about_syncs_is_found() {
    let scene = Scene::new();
    for at in 200..230 {
        scene.check("write", Fault { kind: "power", at, lies: true });
    }
}
