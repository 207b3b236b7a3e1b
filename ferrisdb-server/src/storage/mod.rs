//! (to be written)

pub mod engine;
pub mod read;
pub mod window;
