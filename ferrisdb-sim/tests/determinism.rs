//! One seed, run twice in processes of their own, gives the same trace, byte for byte.
//!
//! By default with every fourth scenario; with all of them if `FERRISDB_DETERMINISM=all`, as every night.

#![cfg(madsim)]

use std::process::Command;

use ferrisdb_sim::scenario::BUILT_IN;

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
    let is_all = std::env::var("FERRISDB_DETERMINISM").is_ok_and(|which| which == "all");
    for (scenario, _) in BUILT_IN.iter().step_by(if is_all { 1 } else { 4 }) {
        let (first, second) = (run(scenario, 7), run(scenario, 7));
        let differs = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "{scenario} diverges");
        assert_eq!(first, second);
        assert!(first.lines().count() > 10, "hardly anything happened:\n{first}");
    }
}

#[test]
fn different_seeds_give_different_runs() {
    assert_ne!(run("bank", 9), run("bank", 10));
}
