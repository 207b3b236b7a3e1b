//! Links with conditions, in simulations only: what madsim's network is too tame for.
//!
//! ```text
//!                     10.0.1.1 -> 10.0.3.1                10.0.3.1 -> 10.0.1.1
//!   latency           0.1-1 ms, one of 1000 ten times     the same, times 50: slow one way
//!   clogged           -                                   requests arrive, answers do not
//!   deaths            a tenth after at most 64 KiB        -
//! ```
//!
//! A run that has called [`install`] has its connections carried by pipes: sockets of madsim are opened as usual, so
//! ports, refusals and the end of killed processes are as they were, but bytes take the way of `connection.rs`. What a
//! link is like is looked up by the addresses of its two machines, per direction (`links.rs`), and drawn from there for
//! each connection and each message (`conditions.rs`). Without `install` nothing of this is used, and the production
//! build does not contain it.
//!
//! - Bytes of a connection keep their order, as TCP promises; those of different connections do not.
//! - A clogged link holds bytes back, the end of a connection included. Connecting over it gets no answer until it
//!   opens, or whoever waits gives up.
//! - A machine without power takes its connections with it without a word.
//!
//! Start with [`install`], then `connect`.
//!
//! # Caveats
//!
//! madsim's own clogs only refuse new connections here. A node's first connection is made before its address is known,
//! so the server may see it for a moment although the link is clogged.

mod conditions;
mod connection;
mod links;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use madsim::time::TimeHandle;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::oneshot};

pub(super) use self::connection::Connection;
pub use self::{
    conditions::{Latency, LinkConditions},
    links::{
        Counts, alter, clog, counts, cut_power, deafen, forget_special, install, is_clogged,
        is_installed, let_speak, mute, ordinary, reset, restore_power, set_ordinary, unclog,
        unclog_all,
    },
};
use self::{
    conditions::{draw_below, fraction, happens},
    connection::{End, Pipe, Side},
};
use crate::runtime::{spawn, true_now};

/// How long a caller waits before it tries again to get an answer; then twice as long each time.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How long a ghost stays.
const GHOST_LIFE_MAX_MS: u64 = 10_000;

/// Waits by the true clock, however short.
async fn pass(duration: Duration) {
    connection::timer(&TimeHandle::current(), true_now() + duration).await;
}

/// Opens a connection.
pub(super) async fn connect(address: &str) -> io::Result<Connection> {
    if !is_installed() {
        return Ok(Connection::Plain(TcpStream::connect(address).await?));
    }
    let server = address.parse::<SocketAddr>().map(|server| server.ip()).ok();
    loop {
        let own = links::own_address();
        if let (Some(own), Some(server)) = (own, server) {
            reach(own, server).await;
        }
        let socket = TcpStream::connect(address).await?;
        let caller = socket.local_addr()?.ip();
        if own.is_none() {
            links::learn_address(caller);
            if !links::is_reached(caller, socket.peer_addr()?.ip()) {
                continue;
            }
        }
        let mut end = opened(socket)?;
        let ghosts = links::link(caller, end.peer()?).with_conditions(|link| link.ghosts);
        if happens(ghosts) {
            let (first, says) = oneshot::channel();
            end.echo_to(first);
            spawn(haunt(address.to_owned(), says)).detach();
        }
        return Ok(Connection::Piped(end));
    }
}

/// The caller's end of a connection that was just made.
fn opened(socket: TcpStream) -> io::Result<End> {
    let (caller, server) = (socket.local_addr()?, socket.peer_addr()?);
    let to_server = links::link(caller.ip(), server.ip());
    let pipe = Pipe::open(to_server, links::link(server.ip(), caller.ip()));
    links::offer(caller, server, pipe.clone());
    links::count(|counts| counts.connections += 1);
    Ok(End::new(socket, pipe, Side::Caller))
}

/// The server's end of a connection.
pub(super) fn accepted(socket: TcpStream) -> io::Result<Connection> {
    if !is_installed() {
        return Ok(Connection::Plain(socket));
    }
    let (caller, server) = (socket.peer_addr()?, socket.local_addr()?);
    links::learn_address(server.ip());
    let gone = || io::Error::new(io::ErrorKind::ConnectionReset, "the caller is gone already");
    let pipe = links::take(caller, server).ok_or_else(gone)?;
    Ok(Connection::Piped(End::new(socket, pipe, Side::Server)))
}

/// Waits until a request for a connection was answered.
async fn reach(own: IpAddr, server: IpAddr) {
    let (there, back) = (links::link(own, server), links::link(server, own));
    if happens(there.with_conditions(|link| link.silent_connects)) {
        links::count(|counts| counts.silent_connects += 1);
        // Whoever wants this connection has a limit.
        std::future::pending::<()>().await;
    }
    let mut wait = ANSWER_WAIT;
    if !links::is_reached(own, server) {
        links::count(|counts| counts.silent_connects += 1);
    }
    while !links::is_reached(own, server) {
        pass(wait).await;
        wait *= 2;
    }
    let latencies = [there, back].map(|link| link.with_conditions(|link| link.latency.draw()));
    pass(latencies.iter().sum()).await;
}

/// A connection that nobody asked for: it stays silent, or says what another one says first, and then nothing.
async fn haunt(address: String, says: oneshot::Receiver<Bytes>) {
    let Ok(socket) = TcpStream::connect(address.as_str()).await else { return };
    let Ok(end) = opened(socket) else { return };
    links::count(|counts| counts.ghosts += 1);
    let mut ghost = Connection::Piped(end);
    if fraction() < 0.5
        && let Ok(first) = says.await
    {
        let _ = ghost.write_all(&first).await;
        let _ = ghost.flush().await;
    }
    pass(Duration::from_millis(draw_below(GHOST_LIFE_MAX_MS))).await;
}
