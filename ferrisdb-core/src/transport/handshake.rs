//! The first words on a connection. Their format never changes, so that any two versions can at least disagree.
//!
//! ```text
//!   caller:    "FERRISDB"  u16 protocol version  16 bytes cluster id (zero: not known yet)
//!              u8 service  u64 instance                                          = 35 bytes
//!              u8 length   as many bytes: where the caller itself is reached     <= 65 bytes
//!   answer:    "FERRISDB"  u16 protocol version  16 bytes cluster id (zero: not known yet)
//!              u8 refusal (0: welcome)                                           = 27 bytes
//! ```
//!
//! All integers are big-endian. Whoever notices a mismatch answers and hangs up; nobody waits longer than
//! [`Bounds::handshake_timeout`](super::Bounds::handshake_timeout). Both sides look at the first eight bytes
//! before they wait for more, so that a peer with another protocol and a short greeting is known at once.

use std::{future::Future, io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    error::{Error, ErrorCode, Result, Stage},
    id::ClusterId,
    runtime,
    service::{PROTOCOL_VERSION, ServiceKind},
};

const MAGIC: [u8; 8] = *b"FERRISDB";
/// The part of a hello that is always there, the length of the rest included.
const HELLO_LEN: usize = 36;
/// Longest origin; a longer one is cut.
const ORIGIN_LEN_MAX: usize = 64;
const ANSWER_LEN: usize = 27;

/// What a caller says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The caller's [`PROTOCOL_VERSION`].
    pub protocol_version: u16,
    /// The caller's cluster, if it belongs to one.
    pub cluster_id: Option<ClusterId>,
    /// The number of the service wanted; see [`ServiceKind`].
    pub service: u8,
    /// The instance wanted; see [`crate::id::Endpoint`].
    pub instance: u64,
    /// Where the caller itself is reached, empty for a client: for logs, for tests that cut links, and for the connections that
    /// are kept for servers. Nobody relies on it otherwise.
    pub origin: String,
}

/// Why a connection is not served. The numbers are on the wire: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The protocol versions differ.
    Version = 1,
    /// The clusters differ.
    Cluster = 2,
    /// No such service or instance here.
    Endpoint = 3,
    /// Too many connections.
    Busy = 4,
}

impl Hello {
    /// The bytes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let origin = &self.origin.as_bytes()[..self.origin.len().min(ORIGIN_LEN_MAX)];
        let mut bytes = Vec::with_capacity(HELLO_LEN + origin.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.protocol_version.to_be_bytes());
        bytes.extend_from_slice(&cluster_bytes(self.cluster_id));
        bytes.push(self.service);
        bytes.extend_from_slice(&self.instance.to_be_bytes());
        bytes.push(u8::try_from(origin.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(origin);
        bytes
    }

    /// Reads a hello from the beginning of a connection; `None` as soon as it turns out not to be one.
    ///
    /// # Errors
    ///
    /// If the caller hangs up before its end.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Hello>> {
        let Some(bytes) = read_after_magic::<HELLO_LEN>(stream).await? else { return Ok(None) };
        let mut origin = vec![0; usize::from(bytes[HELLO_LEN - 1])];
        if origin.len() > ORIGIN_LEN_MAX {
            return Ok(None);
        }
        stream.read_exact(&mut origin).await?;
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&bytes[10..26]);
        let mut instance = [0; 8];
        instance.copy_from_slice(&bytes[27..35]);
        Ok(Some(Hello {
            protocol_version: u16::from_be_bytes([bytes[8], bytes[9]]),
            cluster_id: cluster_of(cluster),
            service: bytes[26],
            instance: u64::from_be_bytes(instance),
            origin: String::from_utf8_lossy(&origin).into_owned(),
        }))
    }
}

fn cluster_bytes(cluster_id: Option<ClusterId>) -> [u8; 16] {
    cluster_id.map_or(0, |id| id.0).to_be_bytes()
}

fn cluster_of(bytes: [u8; 16]) -> Option<ClusterId> {
    let number = u128::from_be_bytes(bytes);
    (number != 0).then_some(ClusterId(number))
}

/// Whether two sides can be of one cluster: a side that does not know its cluster yet goes with any.
pub(super) fn clusters_agree(ours: Option<ClusterId>, theirs: Option<ClusterId>) -> bool {
    ours.is_none() || theirs.is_none() || ours == theirs
}

/// The caller's side. Returns the server's cluster.
///
/// # Errors
///
/// What differs, or that the peer is not a FerrisDB server, hung up or kept silent.
pub(super) async fn greet(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    hello: Hello,
    limit: Duration,
) -> Result<Option<ClusterId>> {
    let exchange = async {
        stream.write_all(&hello.to_bytes()).await?;
        stream.flush().await?;
        read_after_magic::<ANSWER_LEN>(stream).await
    };
    let Some(answer) = in_time(limit, exchange).await? else {
        let detail = "the peer does not answer like a FerrisDB server";
        return Err(Error::new(ErrorCode::IncompatibleProtocol, Stage::Connect, detail));
    };
    let version = u16::from_be_bytes([answer[8], answer[9]]);
    let mut cluster = [0; 16];
    cluster.copy_from_slice(&answer[10..26]);
    let cluster_id = cluster_of(cluster);
    let refused = |code, detail: String| Err(Error::new(code, Stage::Connect, detail));
    match answer[26] {
        0 => Ok(cluster_id),
        1 => refused(
            ErrorCode::IncompatibleProtocol,
            format!("the server speaks version {version}, this side {}", hello.protocol_version),
        ),
        2 => refused(
            ErrorCode::WrongCluster,
            format!(
                "the server belongs to {}, this side to {}",
                name(cluster_id),
                name(hello.cluster_id)
            ),
        ),
        3 => {
            let service = ServiceKind::from_number(hello.service);
            refused(ErrorCode::NoSuchEndpoint, format!("{service:?} #{:x}", hello.instance))
        }
        4 => refused(ErrorCode::TooBusy, "the server has too many connections".into()),
        other => refused(ErrorCode::Protocol, format!("refused for an unknown reason, {other}")),
    }
}

/// For people: a cluster's identity, or that there is none yet.
fn name(cluster_id: Option<ClusterId>) -> String {
    cluster_id.map_or_else(|| "no cluster yet".to_string(), |id| format!("cluster {id}"))
}

/// The server's side, first half: what the caller wants.
///
/// # Errors
///
/// If the caller keeps silent, hangs up, or does not speak the protocol.
pub(super) async fn listen(
    stream: &mut (impl AsyncRead + Unpin),
    limit: Duration,
) -> Result<Hello> {
    in_time(limit, Hello::read(stream)).await?.ok_or_else(|| {
        let detail = "the caller does not speak FerrisDB's protocol";
        Error::new(ErrorCode::IncompatibleProtocol, Stage::Connect, detail)
    })
}

/// The server's side, second half: welcome, or why not.
///
/// # Errors
///
/// If the caller hung up.
pub(super) async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    cluster_id: Option<ClusterId>,
    refusal: Option<Refusal>,
    limit: Duration,
) -> Result<()> {
    let mut bytes = [0; ANSWER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&PROTOCOL_VERSION.to_be_bytes());
    bytes[10..26].copy_from_slice(&cluster_bytes(cluster_id));
    bytes[26] = refusal.map_or(0, |refusal| refusal as u8);
    let write = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    in_time(limit, write).await
}

/// Reads a message of `N` bytes; `None` as soon as it turns out not to begin with the magic.
async fn read_after_magic<const N: usize>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    let (magic, rest) = bytes.split_at_mut(MAGIC.len());
    stream.read_exact(magic).await?;
    if magic != MAGIC {
        return Ok(None);
    }
    stream.read_exact(rest).await?;
    Ok(Some(bytes))
}

/// Waits for a part of the handshake. A peer that hangs up or keeps silent is as good as none.
async fn in_time<T>(limit: Duration, part: impl Future<Output = io::Result<T>>) -> Result<T> {
    runtime::timeout(limit, Stage::Connect, part)
        .await
        .map_err(|error| error.with_code(ErrorCode::Unreachable))?
        .map_err(|error| {
            Error::new(ErrorCode::Unreachable, Stage::Connect, format!("handshake: {error}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Hello> {
        let mut stream = bytes;
        futures::FutureExt::now_or_never(Hello::read(&mut stream)).unwrap().unwrap()
    }

    #[test]
    fn golden_bytes() {
        let hello = Hello {
            protocol_version: 0x0102,
            cluster_id: Some(ClusterId(0xaabb)),
            service: 6,
            instance: 0x0304,
            origin: "h:1".into(),
        };
        let bytes =
            b"FERRISDB\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xaa\xbb\x06\0\0\0\0\0\0\x03\x04\x03h:1";
        assert_eq!(hello.to_bytes(), bytes);
        assert_eq!(read(bytes), Some(hello.clone()));
        let long = Hello { origin: "x".repeat(100), ..hello };
        assert_eq!(read(&long.to_bytes()).unwrap().origin, "x".repeat(ORIGIN_LEN_MAX));
    }

    #[test]
    fn no_magic_no_hello() {
        let mut bytes = [0x20; HELLO_LEN];
        bytes[..4].copy_from_slice(b"GET ");
        assert_eq!(read(&bytes), None);
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[HELLO_LEN - 1] = 255;
        assert_eq!(read(&bytes), None);
    }
}
