//! One seed, run twice in processes of their own, gives the same trace, byte for byte.

#![cfg(madsim)]

use std::process::Command;

fn run(scenario: &str, seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ferrisdb-sim"))
        .args([scenario, "--trace", "--seed"])
        .arg(seed.to_string())
        .output()
        .expect("the simulation can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "seed {seed} failed; replay with: cargo sim {scenario} --seed {seed}\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [7, 8] {
        let (first, second) = (run("bank", seed), run("bank", seed));
        let differs = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed} diverges");
        assert_eq!(first, second);
        assert!(first.lines().count() > 100, "hardly anything happened:\n{first}");
    }
    assert_eq!(run("recorded-bank", 7), run("recorded-bank", 7));
    assert_eq!(run("operations", 7), run("operations", 7));
}

#[test]
fn different_seeds_give_different_runs() {
    assert_ne!(run("bank", 9), run("bank", 10));
}

#[test]
fn a_batch_of_seeds_is_clean() {
    for seed in 100..160 {
        run("bank", seed);
    }
}

#[test]
fn what_clients_saw_is_strictly_serializable() {
    for seed in 100..130 {
        run("recorded-bank", seed);
    }
}

#[test]
fn data_is_moved_while_clients_work_and_all_replicas_are_equal() {
    for seed in 100..120 {
        run("operations", seed);
    }
}
