//! (to be written)

pub mod resolver;
