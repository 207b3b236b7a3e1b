//! Benchmarks of FerrisDB. `cargo bench -p ferrisdb-benches` runs all of them.
//!
//! `micro/` measures one structure each, `cluster/` the system as its users see it.
