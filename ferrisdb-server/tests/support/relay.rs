//! A network between real processes that can be cut: every server is reached through a relay of the test.
//!
//! ```text
//!   log-1 --- connects to the address that storage-0 advertises ---> relay of storage-0 ---> storage-0
//!                                                                      |
//!                    who is that? the first words of the connection say: log-1
//!                    may bytes go log-1 -> storage-0, and storage-0 -> log-1? the links say
//! ```
//!
//! A cut link is silent: nothing is reset or refused, bytes already under way are held, and so is the news that
//! one side has closed. After [`Relays::heal`] they flow on, or the connection breaks ([`AfterHeal`]). The test's
//! own process takes part under the name [`CLIENT`].
//!
//! # Caveats
//!
//! A connection through a cut link is accepted by the relay's kernel, and hangs in the handshake, not in
//! `connect`. Kernels acknowledge what relays hold, so keepalive does not find out: only answers that fail to
//! come tell a process that it is alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
};

use ferrisdb_core::transport::Hello;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// The name of the test's own process.
pub(crate) const CLIENT: &str = "client";
/// What happens to connections that were held when their link is open again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AfterHeal {
    /// They go on with the bytes that were held.
    #[default]
    Flow,
    /// They break.
    Break,
}

/// Which bytes flow.
#[derive(Clone, Debug, Default)]
struct Links {
    /// From the first to the second.
    cut: BTreeSet<(String, String)>,
    isolated: BTreeSet<String>,
    after_heal: AfterHeal,
}

impl Links {
    fn is_open(&self, from: &str, to: &str) -> bool {
        let is_apart = self.isolated.contains(from) || self.isolated.contains(to);
        from == to || !is_apart && !self.cut.contains(&(from.into(), to.into()))
    }
}

/// All relays of a cluster.
pub(crate) struct Relays {
    shared: Arc<Shared>,
    /// Of their own, so that a test that is busy holds up no process. `None` when dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

struct Shared {
    links: watch::Sender<Links>,
    /// Who is reached through which relay.
    names: Mutex<BTreeMap<String, String>>,
    /// Connections as they were made: from, to.
    accepted: Mutex<Vec<(String, String)>>,
}

impl Relays {
    pub(crate) fn new() -> Relays {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("relay")
            .enable_all()
            .build()
            .unwrap();
        let shared = Shared {
            links: watch::Sender::new(Links::default()),
            names: Mutex::default(),
            accepted: Mutex::default(),
        };
        Relays { shared: Arc::new(shared), runtime: Some(runtime) }
    }

    /// Opens the relay of the process `name`, which listens on `target`, at another port of the same address.
    pub(crate) fn add(&self, name: &str, target: SocketAddr) -> SocketAddr {
        let runtime = self.runtime.as_ref().unwrap();
        let listener = std::net::TcpListener::bind((target.ip(), 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        self.shared.names.lock().insert(address.to_string(), name.to_string());
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).unwrap()
        };
        let (shared, name, handle) =
            (Arc::clone(&self.shared), name.to_string(), runtime.handle().clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, name) = (Arc::clone(&shared), name.clone());
                // An error is the end of the connection on one of its sides: it ends on the other as well.
                handle.spawn(async move { shared.relay(stream, &name, target).await });
            }
        });
        address
    }

    /// Nothing flows between two processes any more.
    pub(crate) fn cut(&self, one: &str, other: &str) {
        self.shared.links.send_modify(|links| {
            links.cut.insert((one.into(), other.into()));
            links.cut.insert((other.into(), one.into()));
        });
    }

    /// Nothing flows from one process to another any more, whichever of them has connected; the other way round
    /// it does.
    pub(crate) fn cut_one_way(&self, from: &str, to: &str) {
        self.shared.links.send_modify(|links| {
            links.cut.insert((from.into(), to.into()));
        });
    }

    /// Nothing flows between any of the ones and any of the others any more.
    pub(crate) fn split(&self, ones: &[&str], others: &[&str]) {
        for one in ones {
            for other in others {
                self.cut(one, other);
            }
        }
    }

    /// Nothing flows from or to a process any more.
    pub(crate) fn isolate(&self, name: &str) {
        self.shared.links.send_modify(|links| {
            links.isolated.insert(name.into());
        });
    }

    /// What to do with connections that were held, at every heal from now on.
    pub(crate) fn set_after_heal(&self, after_heal: AfterHeal) {
        self.shared.links.send_modify(|links| links.after_heal = after_heal);
    }

    /// Everything flows again.
    pub(crate) fn heal(&self) {
        self.shared.links.send_modify(|links| {
            links.cut.clear();
            links.isolated.clear();
        });
    }

    /// All connections that were made so far: from whom, to whom.
    pub(crate) fn accepted(&self) -> Vec<(String, String)> {
        self.shared.accepted.lock().clone()
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        // Not waited for: the test may be async itself.
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Shared {
    /// One connection, from its beginning to its end.
    async fn relay(
        self: Arc<Shared>,
        mut stream: TcpStream,
        to: &str,
        target: SocketAddr,
    ) -> io::Result<()> {
        let hello = Hello::read(&mut stream).await?.ok_or(io::ErrorKind::InvalidData)?;
        let from = self.names.lock().get(&hello.origin).cloned();
        let from = from.unwrap_or_else(|| CLIENT.to_string());
        self.accepted.lock().push((from.clone(), to.into()));
        let mut links = self.links.subscribe();
        // To connect takes both directions.
        until_open(&mut links, &from, to).await?;
        until_open(&mut links, to, &from).await?;
        let mut server = TcpStream::connect(target).await?;
        server.write_all(&hello.to_bytes()).await?;
        stream.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (client_reader, client_writer) = stream.into_split();
        let (server_reader, server_writer) = server.into_split();
        futures::try_join!(
            pump(links.clone(), (&from, to), client_reader, server_writer),
            pump(links, (to, &from), server_reader, client_writer),
        )?;
        Ok(())
    }
}

/// Moves bytes in one direction until the reader ends, and says so to the writer.
async fn pump(
    mut links: watch::Receiver<Links>,
    (from, to): (&str, &str),
    mut reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        until_open(&mut links, from, to).await?;
        let count = tokio::select! {
            biased;
            _ = links.changed() => {
                links.mark_changed();
                continue;
            }
            count = reader.read(&mut buffer) => count?,
        };
        // A cut may have come in between: it holds these bytes, too.
        until_open(&mut links, from, to).await?;
        if count == 0 {
            return writer.shutdown().await;
        }
        writer.write_all(&buffer[..count]).await?;
    }
}

/// Waits until bytes may flow; fails if they may, but the connection is to break then.
async fn until_open(links: &mut watch::Receiver<Links>, from: &str, to: &str) -> io::Result<()> {
    let mut was_held = false;
    loop {
        {
            let links = links.borrow_and_update();
            if links.is_open(from, to) {
                let breaks = was_held && links.after_heal == AfterHeal::Break;
                return if breaks { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) };
            }
        }
        was_held = true;
        links.changed().await.map_err(|_| io::ErrorKind::ConnectionReset)?;
    }
}
