//! What must be true of everything that happened: a file per property.

pub mod serializability;
