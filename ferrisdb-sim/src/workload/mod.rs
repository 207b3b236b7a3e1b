//! What clients do, and what must be true afterwards: a file per workload.

pub mod bank;
