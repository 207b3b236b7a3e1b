//! Consensus alone, in the simulated world: no acknowledged write is lost, and a seed always gives the same run.

#![cfg(madsim)]

use std::process::Command;

fn run(seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ferrisdb-sim"))
        .args(["register", "--trace", "--seed"])
        .arg(seed.to_string())
        .output()
        .expect("the simulation can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "seed {seed} failed; replay with: cargo sim register --seed {seed}\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [7, 8] {
        let (first, second) = (run(seed), run(seed));
        let differs = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed} diverges");
        assert_eq!(first, second);
        assert!(first.lines().count() > 100, "hardly anything happened:\n{first}");
    }
}

#[test]
fn different_seeds_give_different_runs() {
    assert_ne!(run(9), run(10));
}

#[test]
fn no_acknowledged_write_is_lost_in_a_batch_of_seeds() {
    for seed in 100..130 {
        run(seed);
    }
}
