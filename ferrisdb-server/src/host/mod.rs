//! How a process hosts roles: its place on the network, its heartbeat, its directories.
//!
//! ```text
//!   Site         an address, the router behind it, the way to others
//!   Media        the disk and the engines: files, or memory
//!   Worker       the heartbeat of one process class; takes the controller's recruitment
//!
//!   ControllerHost, CoordinatorHost, LogHost, StorageHost      one role in a process
//!   ServerHost                                                 all of them in one process and one directory
//! ```
//!
//! An embedded database is a [`ServerHost`] that listens nowhere.

mod controller;
mod coordinator;
mod log;
mod media;
mod metrics;
mod server;
#[cfg(not(madsim))]
mod settings;
mod site;
mod storage;
mod worker;

pub use controller::ControllerHost;
pub use coordinator::CoordinatorHost;
pub use log::LogHost;
pub use media::{EngineFactory, Media};
pub use server::{Embedded, ServerHost, ServerSettings};
#[cfg(not(madsim))]
pub use settings::cache_bytes;
pub use site::Site;
pub use storage::StorageHost;
