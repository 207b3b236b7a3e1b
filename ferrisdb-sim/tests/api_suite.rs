//! The simulation gives the same answers as every other place in which the database runs.

#![cfg(madsim)]

use ferrisdb_sim::{testing::Simulation, workload::api_suite};

#[test]
fn the_simulation_is_like_all_others() {
    Simulation::new("the_simulation_is_like_all_others").seeds(0..3).run(|world| async move {
        world.client(|database| async move { api_suite::run(&database).await }).await?;
        Ok(())
    });
}
