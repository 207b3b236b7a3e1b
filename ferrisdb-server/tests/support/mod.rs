//! Real processes for tests: the binaries of this package, started, killed with SIGKILL, started again.

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
}

impl Process {
    pub(crate) fn new(
        name: &str,
        binary: &'static str,
        arguments: Vec<String>,
        log: PathBuf,
    ) -> Process {
        Process { name: name.into(), binary, arguments, log, child: None }
    }

    /// Starts the process and waits for the line by which it says that it is ready.
    pub(crate) fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut child = Command::new(self.binary)
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.binary));
        let mut ready = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        assert!(ready.contains("listening on"), "{} said {ready:?}\n{}", self.name, self.log());
        self.child = Some(child);
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

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
