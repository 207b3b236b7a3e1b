//! Programs that were made for FoundationDB, unmodified, on a FerrisDB server: in C, in Python, in Rust. Those in Node and those of
//! `asyncio-foundationdb` are run by hand, see `docs/libfdb_c.md`.
//!
//! What they use is in `clients/`; this builds or installs it, starts a server, and looks at how the programs end. Packages are kept in
//! the cache folder of the project, see `scripts/env`.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "real processes, real time")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long any of the programs may take, the compiler included.
const LIMIT: Duration = Duration::from_secs(600);

/// A server, and the file by which programs find it. It is killed and its data removed when this is dropped.
struct Server {
    process: Child,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(server_binary())
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_once("listening on ").unwrap().1;
        let address = address.split([',', ' ']).next().unwrap().trim();
        fs::write(folder.path().join("fdb.cluster"), format!("test:abc@{address}\n")).unwrap();
        Server { process, folder }
    }

    fn cluster_file(&self) -> PathBuf {
        self.folder.path().join("fdb.cluster")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Where the library was built, and this test.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Where packages of others are kept.
fn cache() -> PathBuf {
    let folder = std::env::var_os("FERRISDB_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/ferrisdb"));
    let folder = folder.join("clients");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The server. Whoever asks for this test alone has none yet, or an older one: what the test of all of them builds is built again, with
/// the same features of all packages, which takes nothing where it is there.
fn server_binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--quiet", "--no-run", "--workspace", "--all-features"]);
        // A test of the server: cargo builds the programs of its package for it.
        cargo.args(["--test", "process"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        succeed(&mut cargo);
        library().parent().unwrap().join("ferrisdb-server")
    });
    built.clone()
}

/// Runs a command that has to succeed; returns what it printed. What it started and left behind goes with it.
fn succeed(command: &mut Command) -> String {
    let process = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut process = process.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
    let (out, err) = (read_to_end(out), read_to_end(err));
    let began = Instant::now();
    let ended = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > LIMIT {
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // Children of its own would keep the pipes open. That none is left is no error.
    let group = format!("-{}", process.id());
    Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status().unwrap();
    let status = ended.unwrap_or_else(|| process.wait().unwrap());
    let (printed, errors) = (out.join().unwrap(), err.join().unwrap());
    assert!(
        status.success(),
        "{command:?}: {status} after {:?}\n{printed}\n{errors}",
        began.elapsed()
    );
    printed
}

/// Reads a pipe on a thread of its own.
fn read_to_end(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs a program on the server.
fn run(server: &Server, program: &mut Command) -> String {
    let printed = succeed(
        program
            .env("FDB_CLUSTER_FILE", server.cluster_file())
            .env("LD_LIBRARY_PATH", library())
            .current_dir(server.folder.path()),
    );
    print!("{printed}");
    printed
}

/// Python with a release of the package `foundationdb`.
fn python_with(release: &str) -> PathBuf {
    let folder = cache().join(format!("python-foundationdb-{release}"));
    let python = folder.join("bin/python");
    if !folder.join("complete").exists() {
        succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let package = format!("foundationdb=={release}");
        succeed(Command::new(&python).args(["-m", "pip", "install", "--quiet", &package]));
        fs::write(folder.join("complete"), "").unwrap();
    }
    python
}

fn python_suite(release: &str, api_version: &str) {
    let server = Server::start();
    let python = python_with(release);
    let printed =
        run(&server, Command::new(python).arg(sources().join("python/suite.py")).arg(api_version));
    assert!(printed.contains("cases passed"), "{printed}");
}

#[test]
fn the_package_foundationdb_7_3_of_pypi() {
    python_suite("7.3.63", "730");
}

#[test]
fn the_package_foundationdb_8_0_of_pypi() {
    python_suite("8.0.0", "800");
}

#[test]
fn answers_that_get_lost() {
    let folder = tempfile::tempdir().unwrap();
    let program = sources().join("python/lost_answers.py");
    let mut python = Command::new(python_with("7.3.63"));
    python.arg(program).arg(server_binary()).arg(folder.path());
    let printed = succeed(python.env("LD_LIBRARY_PATH", library()));
    assert_eq!(printed.matches("ok ").count(), 3, "{printed}");
}

#[test]
fn a_program_of_an_older_version_of_the_interface() {
    python_suite("7.3.63", "630");
}

/// Compiles a program in C, linked with the library.
fn compile(name: &str, folder: &Path) -> PathBuf {
    let program = folder.join(name);
    succeed(
        Command::new("gcc")
            .args(["-std=c11", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-o"])
            .arg(&program)
            .arg(sources().join("c").join(name).with_extension("c"))
            .arg("-L")
            .arg(library())
            .args(["-lfdb_c", "-lpthread"]),
    );
    program
}

#[test]
fn the_rules_of_the_interface_in_c() {
    let server = Server::start();
    let program = compile("interface", server.folder.path());
    let printed = run(&server, Command::new(&program).arg(server.cluster_file()));
    assert!(printed.contains("ok the_end"), "{printed}");

    // The same again, with each access to memory watched.
    let valgrind = ["--quiet", "--error-exitcode=9", "--leak-check=full", "--fair-sched=yes"];
    let printed = run(
        &server,
        Command::new("valgrind")
            .args(valgrind)
            .args(["--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"])
            .arg(&program)
            .arg(server.cluster_file()),
    );
    assert!(printed.contains("ok the_end"), "{printed}");
}

#[test]
fn the_crate_foundationdb() {
    let server = Server::start();
    let compiled = cache().join("rust-foundationdb");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--manifest-path"]);
    cargo.arg(sources().join("rust/Cargo.toml")).env("CARGO_TARGET_DIR", &compiled);
    // What the build of this test was given does not concern it.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS");
    succeed(cargo.env("FDB_CLIENT_LIB_PATH", library()));
    let printed = run(&server, &mut Command::new(compiled.join("debug/suite")));
    assert!(printed.contains("ok directories"), "{printed}");
}

/// What the library shows: its name, and the functions of the interface without versions.
#[test]
fn nothing_but_the_interface_is_exported() {
    let library = library().join("libfdb_c.so");
    let names = succeed(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let names: Vec<&str> = names.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert!(names.len() > 90, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("fdb_") && !name.contains('@')), "{names:?}");
    let dynamic = succeed(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains("Library soname: [libfdb_c.so]"), "{dynamic}");
}
