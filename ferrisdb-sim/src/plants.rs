//! Where to look for each planted bug: the scenarios that are tried in turn until one of them fails.

use ferrisdb_core::simulation::Plant;

/// The scenarios that should notice a bug, the likeliest first.
pub fn scenarios_for(_plant: Plant) -> &'static [&'static str] {
    &["bank", "recorded-bank", "operations"]
}
