//! TCP: a listener that greets and hands on, and the framing of a connection.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

#[cfg(madsim)]
use super::simulated::{self, Connection};
use super::{
    codec::Bincode,
    handshake::{self, Refusal, clusters_agree},
    network::Network,
    router::{ByteStream, Router},
};
use crate::{
    error::{Error, ErrorCode, Result, Stage},
    id::Address,
    limits,
    runtime::{self, Awake, Task, spawn},
    service::{PROTOCOL_VERSION, ServiceKind},
};

/// Frames of at most [`limits::FRAME_BYTES_MAX`] bytes, in the wire encoding.
pub(super) type FramedTransport<Item, SinkItem> =
    tarpc::serde_transport::Transport<Box<dyn ByteStream>, Item, SinkItem, Bincode>;

/// Makes a stream of messages of one of bytes. Each of them stirs `awake`.
pub(super) fn framed<Item, SinkItem>(
    stream: Box<dyn ByteStream>,
    awake: Arc<Awake>,
) -> FramedTransport<Item, SinkItem>
where
    Item: serde::de::DeserializeOwned,
    SinkItem: serde::Serialize,
{
    let codec = LengthDelimitedCodec::builder()
        .max_frame_length(limits::FRAME_BYTES_MAX)
        .length_field_type::<u32>()
        .new_codec();
    let stream: Box<dyn ByteStream> = Box::new(QuietFlush { stream, dirty: false, awake });
    tarpc::serde_transport::new(Framed::new(stream, codec), Bincode)
}

/// A stream of bytes to another process.
#[cfg(not(madsim))]
type Connection = tokio::net::TcpStream;

/// Opens a connection to another process.
pub(super) async fn connect(address: &Address) -> Result<Connection> {
    #[cfg(not(madsim))]
    let connecting = Connection::connect(address.0.as_str());
    #[cfg(madsim)]
    let connecting = simulated::connect(address.0.as_str());
    let stream = runtime::timeout(limits::CONNECT_TIMEOUT, Stage::Connect, connecting)
        .await
        .map_err(|error| error.with_code(ErrorCode::Unreachable).at(address))?
        .map_err(|error| {
            // Of the server that says nothing. It must not be taken for one that is down.
            let code = match is_own(&error, address) {
                true => ErrorCode::TooBusy,
                false => ErrorCode::Unreachable,
            };
            Error::new(code, Stage::Connect, error.to_string()).at(address)
        })?;
    #[cfg(not(madsim))]
    prepare(&stream);
    Ok(stream)
}

/// Whether this process or its machine has run out of something that a connection needs: memory, files, ports, buffers.
fn is_own(error: &io::Error, peer: &Address) -> bool {
    // ENOBUFS, which has no kind of its own.
    let lacks_buffers = cfg!(target_os = "linux") && error.raw_os_error() == Some(105);
    // A host without IPv6 has the same error for all such peers, each time: it does not pass.
    let lacks_ports = error.kind() == io::ErrorKind::AddrNotAvailable && !peer.0.starts_with('[');
    let lacks_memory = error.kind() == io::ErrorKind::OutOfMemory;
    lacks_memory || lacks_ports || lacks_buffers || runtime::is_out_of_descriptors(error)
}

/// Sets the options of a new connection. It works without them, so failures do not matter.
#[cfg(not(madsim))]
fn prepare(stream: &Connection) {
    // A lone small request must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    // A machine that is gone says nothing: without questions its connections would stay for ever.
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(limits::KEEPALIVE_IDLE)
        .with_interval(limits::KEEPALIVE_INTERVAL)
        .with_retries(limits::KEEPALIVE_RETRIES);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(limits::UNACKNOWLEDGED_MAX));
}

/// Accepts connections and serves what a [`Router`] offers, until it is dropped.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    _accepting: Task,
}

impl Listener {
    /// Listens on `address`; port 0 picks a free one.
    ///
    /// Belongs to the cluster of `network`: a caller of another cluster or protocol is told so.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub async fn bind(address: &Address, router: Router, network: Network) -> Result<Listener> {
        let failed = |error: io::Error| {
            let detail = format!("cannot listen on {address}: {error}");
            Error::new(ErrorCode::InvalidArgument, Stage::Process, detail)
        };
        let listener = TcpListener::bind(address.0.as_str()).await.map_err(failed)?;
        let address = Address(listener.local_addr().map_err(failed)?.to_string());
        let accepting = spawn(accept(listener, router, network));
        Ok(Listener { address, _accepting: accepting })
    }

    /// The address, with the port that was picked.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

async fn accept(listener: TcpListener, router: Router, network: Network) {
    let bounds = network.bounds();
    // The oldest first.
    let mut greeting: VecDeque<Task> = VecDeque::new();
    let last_refused = Arc::new(Mutex::new(None));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, for example: connections that end make room again.
                tracing::warn!(%error, "cannot accept a connection");
                runtime::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        greeting.retain(|task| !task.is_finished());
        while greeting.len() >= bounds.handshakes_max.max(1) {
            tracing::debug!(%peer, "a connection that has kept silent makes room for another one");
            greeting.pop_front();
        }
        #[cfg(not(madsim))]
        prepare(&stream);
        #[cfg(madsim)]
        let Ok(stream) = simulated::accepted(stream) else { continue };
        let (router, network) = (router.clone(), network.clone());
        let last_refused = Arc::clone(&last_refused);
        // Handshakes have a task each: a silent caller holds up nobody else.
        greeting.push_back(spawn(async move {
            if let Err(error) = greet(stream, router, network).await {
                // A peer in a retry loop must not fill the log: say it once, until it changes.
                let said = (peer.ip(), error.code());
                if last_refused.lock().replace(said) == Some(said) {
                    tracing::debug!(%peer, %error, "connection refused");
                } else {
                    tracing::warn!(%peer, %error, "connection refused");
                }
            }
        }));
    }
}

/// The server's side of a new connection: handshake, then on to the endpoint.
async fn greet(mut stream: Connection, router: Router, network: Network) -> Result<()> {
    let bounds = network.bounds();
    let hello = handshake::listen(&mut stream, bounds.handshake_timeout).await?;
    // Clients may want more connections than there are. They do not get those by which servers elect a leader, say that they
    // live, and reach each other: without these nobody would be served.
    let reserved = match hello.origin.is_empty() {
        true => bounds.connections_max / limits::CONNECTIONS_RESERVED_PART,
        false => 0,
    };
    let place = router.take_place(bounds.connections_max - reserved);
    let cluster_id = network.cluster_id();
    let kind = ServiceKind::from_number(hello.service);
    let offered = kind.filter(|&kind| router.offers(kind, hello.instance));
    let refusal = if hello.protocol_version != PROTOCOL_VERSION {
        Some(Refusal::Version)
    } else if !clusters_agree(cluster_id, hello.cluster_id) {
        Some(Refusal::Cluster)
    } else if place.is_none() {
        Some(Refusal::Busy)
    } else if offered.is_none() {
        Some(Refusal::Endpoint)
    } else {
        None
    };
    let place = place.filter(|_| refusal.is_none());
    handshake::answer(&mut stream, cluster_id, refusal, bounds.handshake_timeout).await?;
    let refused = |code, detail: String| Err(Error::new(code, Stage::Connect, detail));
    match (refusal, offered.zip(place)) {
        (None, Some((kind, place))) => {
            let stream = Box::new(stream);
            router.serve_stream(place, kind, hello.instance, stream, network.awake());
            Ok(())
        }
        (Some(Refusal::Version), _) => refused(
            ErrorCode::IncompatibleProtocol,
            format!("the caller speaks version {}, we {PROTOCOL_VERSION}", hello.protocol_version),
        ),
        (Some(Refusal::Cluster), _) => refused(
            ErrorCode::WrongCluster,
            format!("the caller belongs to {:?}, we to {cluster_id:?}", hello.cluster_id),
        ),
        (Some(Refusal::Busy), _) => {
            refused(ErrorCode::TooBusy, format!("{} connections", bounds.connections_max))
        }
        // Callers look for roles that have just ended all the time during a recovery: not worth a word.
        _ => Ok(()),
    }
}

/// Passes a flush on only if something was written since the last one, and says when something moves.
///
/// tarpc flushes each time it is polled; in madsim an empty flush is a packet, and two idle peers would
/// wake each other for ever.
struct QuietFlush<S> {
    stream: S,
    dirty: bool,
    awake: Arc<Awake>,
}

impl<S: AsyncRead + Unpin> AsyncRead for QuietFlush<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.awake.stir();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for QuietFlush<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.dirty = true;
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.dirty = true;
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.dirty {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.dirty = false;
            self.awake.stir();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_lacks_is_no_silence_of_a_server() {
        let is_own_of = |number, peer: &str| {
            is_own(&io::Error::from_raw_os_error(number), &Address(peer.to_string()))
        };
        let peer = "192.0.2.1:4500";
        assert!(is_own_of(24, peer) && is_own_of(99, peer), "no file, no port");
        assert!(!is_own_of(111, peer) && !is_own_of(113, peer), "refused, no route");
        assert!(!is_own_of(99, "[2001:db8::1]:4500"), "perhaps no IPv6 at all");
        assert!(is_own_of(24, "[2001:db8::1]:4500"));
    }

    #[tokio::test]
    async fn both_ends_ask_whether_the_peer_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address(listener.local_addr().unwrap().to_string());
        let opened = connect(&address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        prepare(&accepted);
        for stream in [&opened, &accepted] {
            let socket = socket2::SockRef::from(stream);
            assert!(stream.nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), limits::KEEPALIVE_IDLE);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), limits::KEEPALIVE_INTERVAL);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), limits::KEEPALIVE_RETRIES);
        }
    }
}
