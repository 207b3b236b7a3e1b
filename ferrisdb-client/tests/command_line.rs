//! The command line as a process: how it finds the cluster, and what it says when it does not.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{path::Path, process::Command};

/// Exit code and standard error of `ferrisdb-cli get k`, in a directory, with nothing in the environment.
fn get(directory: &Path, args: &[&str], named: Option<&Path>) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrisdb-cli"));
    command.current_dir(directory).env_clear().args(["--timeout", "0.5"]).args(args);
    command.envs(named.map(|named| ("FERRISDB_CLUSTER_FILE", named)));
    let output = command.args(["get", "k"]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_cluster_file_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let check = |args: &[&str], named: Option<&Path>, shown: &[&str]| {
        let (code, said) = get(directory, args, named);
        assert_eq!(code, Some(1), "{said}");
        shown
            .iter()
            .for_each(|shown| assert!(said.contains(shown), "{shown} is missing in {said}"));
    };
    // Nobody listens at any of these, but which one was tried is said.
    std::fs::write(directory.join("other"), "other:0@127.0.0.1:2").unwrap();
    let missing = directory.join("missing");
    check(&[], Some(&missing), &["no_cluster_file", "FERRISDB_CLUSTER_FILE", "missing", "hint: "]);
    std::fs::write(directory.join("ferrisdb.cluster"), "here:0@127.0.0.1:1").unwrap();
    check(&[], None, &["the cluster of ferrisdb.cluster", "127.0.0.1:1"]);
    check(&["-C", "other"], Some(&missing), &["the cluster of other", "127.0.0.1:2"]);
    check(&["--cluster-file", "no_such"], None, &["no_cluster_file", "no_such"]);
    check(&["-C", "other", "--controllers", "127.0.0.1:3"], None, &["127.0.0.1:3"]);
}
