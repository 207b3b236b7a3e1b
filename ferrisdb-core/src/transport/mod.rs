//! How messages travel: over TCP between processes; within one, they do not.
//!
//! ```text
//!   Network::connect::<LogService>(endpoint)
//!        |
//!        |  the address is one of this process' own: calls go straight to the handler
//!        +--> Router --> handler
//!        |
//!        |  otherwise: TCP, a handshake, frames of bincode
//!        +--> handshake ==== socket ==== handshake --> Router --> handler
//! ```
//!
//! A [`Router`] is what a process offers: handlers by service and instance. One connection serves one
//! endpoint, so a role that is gone refuses at the handshake, and a slow role holds up nobody else.
//! [`Network`] is the caller's side, [`Listener`] the server's.
//!
//! In a simulation madsim replaces the sockets underneath, and `simulated` may lay links with conditions over them.

mod caller;
mod codec;
mod handshake;
mod network;
mod router;
#[cfg(madsim)]
pub mod simulated;
mod tcp;

pub use caller::{Caller, Offered};
pub use codec::{Bincode, decode, encode, is_decoding};
pub use handshake::{Hello, Refusal};
pub use network::{Bounds, Network, call, rpc_error};
pub use router::{Handler, Router};
pub use tcp::Listener;

/// Makes a [`Handler`] of a value that implements the service trait `$service` and is `Clone`.
///
/// A macro because the futures of tarpc's service traits are only known to be `Send` where their type is
/// known.
#[macro_export]
macro_rules! handler {
    ($service:path, $server:expr) => {{
        let server = $server;
        $crate::transport::Handler::new(move |context, request| {
            let server = ::core::clone::Clone::clone(&server);
            ::std::boxed::Box::pin(async move {
                ::tarpc::server::Serve::serve(<_ as $service>::serve(server), context, request)
                    .await
            })
        })
    }};
}
