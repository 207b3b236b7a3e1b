//! What must be true of everything that happened: a file per property.

pub mod cycles;
pub mod serializability;
