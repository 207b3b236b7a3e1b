//! The batch of seeds that every change has to pass, and the front end around it.

#![cfg(madsim)]

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_ferrisdb-sim");
    Command::new(program).args(arguments).output().expect("the simulation can be run")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}\n{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[test]
fn a_batch_of_seeds_of_every_scenario_is_clean() {
    let output = simulate(&["all", "--seed", "100", "--seeds", "2"]);
    println!("{}", text(&output));
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_planted_bug_is_found_replayed_and_its_schedule_made_small() {
    let output =
        simulate(&["cycle", "--seed", "1", "--seeds", "20", "--plant", "skip-read-conflict"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cycle") && said.contains("I-"), "{said}");
    assert!(said.contains("faults these are needed"), "{said}");
    // The command that it prints fails in the same way.
    let replay = said.lines().find_map(|line| line.split_once("replay with: cargo sim "));
    let replay: Vec<&str> = replay.expect("a command to replay it").1.split(' ').collect();
    let again = simulate(&replay);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(text(&again).contains("FAILED"), "{}", text(&again));
}

#[test]
fn what_is_there_is_listed_and_what_is_not_is_named() {
    let listed = text(&simulate(&["list"]));
    for name in ["bank", "two-generations", "skip-read-conflict", "storage-rolled-back"] {
        assert!(listed.contains(name), "{listed}");
    }
    let unknown = simulate(&["no-such-scenario"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown).contains("there are: api"), "{}", text(&unknown));
    let unknown = simulate(&["bank", "--plant", "no-such-bug"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown));
}
