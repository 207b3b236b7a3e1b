//! Real processes: layers of settings that only a process has, signals, panics, exit codes.
#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests as well")]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Output, Stdio},
};

use ferrisdb_server::process;

const LOG: &str = env!("CARGO_BIN_EXE_ferrisdb-log");

/// Of a test that starts itself again: what the second one is to do.
const PART: &str = "FERRISDB_TEST_PART";

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// This test's program, to run one test with a part to play.
fn again(test: &str, part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(PART, part);
    command
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log.toml");
    std::fs::write(&file, "data = 'file'\nsegment_bytes = '1MiB'\ncontrollers = ['file:1']\n")
        .unwrap();
    let output = run(Command::new(LOG)
        .env("FERRISDB_CONFIG", &file)
        .env("FERRISDB_SEGMENT_BYTES", "2MiB")
        .env("FERRISDB_CONTROLLERS", "environment:1,environment:2")
        .args(["--controllers=flag:1", "--print-config"]));
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output.stdout);
    assert!(printed.contains("\ndata = \"file\"  # from the file\n"), "{printed}");
    assert!(printed.contains("\nsegment_bytes = \"2MiB\"  # from the environment\n"), "{printed}");
    assert!(printed.contains("\ncontrollers = [\"flag:1\"]  # from a flag\n"), "{printed}");
    assert!(printed.contains("\nmemory_bytes_max = \"256MiB\"  # by default\n"), "{printed}");
}

#[test]
fn bad_settings_exit_with_two_and_say_why() {
    let output = run(Command::new(LOG).env("FERRISDB_SEGMENT_BYTES", "big"));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("'big'"), "{output:?}");
    let output = run(Command::new(LOG).arg("--config=/no/such/file"));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot read the settings file"), "{output:?}");
    let output = run(Command::new(LOG).arg("--help"));
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("--segment-bytes"), "{output:?}");
}

#[test]
fn an_unusable_directory_exits_with_one_and_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("holiday.jpg"), "sunset").unwrap();
    let output =
        run(Command::new(LOG).arg("--listen=127.0.0.1:0").arg("--data").arg(directory.path()));
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("holiday.jpg") && error.contains("hint: check the path"), "{error}");
}

/// Starts a log in a directory, and waits for the line that says it is ready.
fn start_log(data: &std::path::Path) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let mut command = Command::new(LOG);
    command.arg("--listen=127.0.0.1:0").arg("--data").arg(data);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    (child, stdout, line)
}

fn kill(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_process_says_that_it_is_ready_locks_its_directory_and_stops_on_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("log");
    for signal in ["-TERM", "-INT"] {
        let (mut child, mut stdout, line) = start_log(&data);
        assert!(line.starts_with("ferrisdb-log listening on 127.0.0.1:"), "{line}");
        assert!(!line.contains(":0,"), "the real port is missing: {line}");

        let (mut second, _, line) = start_log(&data);
        assert_eq!(line, "");
        assert_eq!(second.wait().unwrap().code(), Some(1));
        let mut error = String::new();
        second.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert!(error.contains("stop the other process"), "{error}");

        kill(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "one line is said on the standard output");
    }
}

#[test]
fn a_second_signal_ends_a_process_that_does_not_stop() {
    if std::env::var_os(PART).is_some() {
        let never_stops = async {
            let mut shutdown = process::shutdown_signal()?;
            process::say("ready");
            shutdown.requested().await;
            process::say("stopping");
            std::future::pending().await
        };
        process::run(1, never_stops);
        return;
    }
    let mut command = again("a_second_signal_ends_a_process_that_does_not_stop", "child");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.any(|line| line.ends_with("ready")));
    kill(&child, "-TERM");
    assert!(lines.any(|line| line == "stopping"));
    kill(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_panic_in_any_task_aborts_the_process() {
    use std::os::unix::process::ExitStatusExt as _;

    if let Some(part) = std::env::var_os(PART) {
        if part == "logging" {
            process::init_logging("info", ferrisdb_server::config::LogFormat::Json);
        }
        process::install_panic_hook();
        process::run(1, async {
            ferrisdb_core::runtime::spawn(async { panic!("durable 7 beyond appended 5") }).detach();
            std::future::pending().await
        });
        return;
    }
    for part in ["bare", "logging"] {
        let output = run(&mut again("a_panic_in_any_task_aborts_the_process", part));
        assert_eq!(output.status.signal(), Some(6), "{output:?}");
        let error = text(&output.stderr);
        assert!(error.contains("durable 7 beyond appended 5"), "{error}");
        assert!(error.contains("tests/process.rs"), "no location: {error}");
        assert_eq!(error.starts_with('{'), part == "logging", "{error}");
    }
}

/// Stands for a message with a field that the RPC library panics over, such as a deadline past all clocks.
#[derive(Debug)]
struct Hostile;

impl<'de> serde::Deserialize<'de> for Hostile {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Hostile, D::Error> {
        panic!("overflow when adding duration to instant")
    }
}

#[test]
fn a_panic_over_what_a_peer_sent_is_survived() {
    use ferrisdb_core::transport::Bincode;
    use tokio_serde::Deserializer as _;

    if std::env::var_os(PART).is_some() {
        process::install_panic_hook();
        let mut codec = Bincode;
        let decoded: Result<Hostile, _> =
            std::pin::Pin::new(&mut codec).deserialize(&b"\x01"[..].into());
        assert!(decoded.unwrap_err().to_string().contains("out of range"));
        process::say("alive");
        return;
    }
    let output = run(&mut again("a_panic_over_what_a_peer_sent_is_survived", "child"));
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("alive"), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
