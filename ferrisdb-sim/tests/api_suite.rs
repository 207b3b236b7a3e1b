//! The simulation gives the same answers as every other place in which the database runs.

#![cfg(madsim)]

use ferrisdb_sim::{fault::FaultSpec, testing::Simulation, workload::api_suite};

#[test]
fn the_simulation_is_like_all_others() {
    // Without faults: the suite says what each call answers, not what a retry would make of it.
    let simulation = Simulation::new("the_simulation_is_like_all_others");
    simulation.seeds(0..3).faults(FaultSpec::default()).run(|world| async move {
        world.client(|database| async move { api_suite::run(&database).await }).await?;
        Ok(())
    });
}
