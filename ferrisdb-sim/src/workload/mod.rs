//! What clients do, and what must be true afterwards: a file per workload.

pub mod bank;
pub mod recorded_bank;
pub mod register;
