//! (to be written)

pub mod conflict_set;
