//! Real processes for tests: the binaries of this package, started, killed with SIGKILL, started again.
//!
//! `cluster.rs` makes a cluster of them, `relay.rs` is the network between them, and `availability.rs` measures
//! how long they are not there for their clients. `fleet.rs` is a cluster whose processes move and lose their disks.

#![allow(dead_code, reason = "each test program uses a part of this")]

pub(crate) mod availability;
pub(crate) mod cluster;
pub(crate) mod fleet;
pub(crate) mod relay;
pub(crate) mod scene;

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// One server process with its arguments, so that it can be started again.
pub(crate) struct Process {
    pub(crate) name: String,
    binary: &'static str,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    /// Besides the environment of the test.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
}

impl Process {
    pub(crate) fn new(
        name: &str,
        binary: &'static str,
        arguments: Vec<String>,
        log: PathBuf,
    ) -> Process {
        Process { name: name.into(), binary, arguments, log, child: None, environment: Vec::new() }
    }

    /// Starts the process and waits for the line by which it says that it is ready.
    pub(crate) fn start(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts the process.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        // The signal that a passed file size sends is ignored, so that `limit_files` makes writes fail instead.
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", self.binary])
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.binary));
        self.child = Some(child);
    }

    /// Waits for the line by which the process says that it is ready.
    pub(crate) fn wait_ready(&mut self) {
        let mut ready = String::new();
        let stdout = self.child.as_mut().unwrap().stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        assert!(ready.contains("listening on"), "{} said {ready:?}\n{}", self.name, self.log());
    }

    /// Whether it was started and not killed since.
    pub(crate) fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Sends a signal, as `kill` names it.
    pub(crate) fn signal(&mut self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// From now on no file of the process grows beyond `bytes`: writes fail.
    pub(crate) fn limit_files(&mut self, bytes: u64) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let limit = format!("--fsize={bytes}");
        let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(set.unwrap().success(), "prlimit {limit} of {}", self.name);
    }

    /// Forgets a process that has ended by itself, with an error that it has told; whether it had.
    pub(crate) fn collect_failed(&mut self) -> bool {
        let ended = self.child.as_mut().unwrap().try_wait().unwrap();
        if let Some(status) = ended {
            // Not by a panic, and not by a signal.
            assert_eq!(
                status.code(),
                Some(1),
                "{} ended with {status:?}\n{}",
                self.name,
                self.log()
            );
            self.child = None;
        }
        ended.is_some()
    }

    /// SIGKILL: the process gets no chance to do anything.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended by itself has broken an invariant: its log says which.
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended with {ended:?}\n{}", self.name, self.log());
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let pid = child.id().to_string();
        Command::new("kill").arg(pid).status().unwrap();
        child.wait().unwrap().code()
    }

    /// What the process has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The last lines of the logs of processes: what to say when something has failed.
pub(crate) fn report<'a>(processes: impl Iterator<Item = &'a Process>) -> String {
    let tail = |process: &Process| {
        let log = process.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("{}:\n{}\n", process.name, lines[lines.len().saturating_sub(25)..].join("\n"))
    };
    processes.map(tail).collect()
}

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
