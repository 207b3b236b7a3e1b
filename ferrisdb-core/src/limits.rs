//! Every bound of the system, in one place. Reaching one is a typed error or back-pressure, never a surprise.

use std::time::Duration;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 10_000;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 100_000;
/// Most data that one transaction may affect: its mutations and conflict ranges, in bytes.
pub const TRANSACTION_BYTES_MAX: usize = 10_000_000;
/// What a client may add to a transaction of that size, for finding out what became of its commit.
pub const TRANSACTION_OVERHEAD_BYTES_MAX: usize = 10_000;
/// The same in mutations and conflict ranges.
pub const TRANSACTION_OVERHEAD_ITEMS_MAX: usize = 100;
/// Most conflict ranges and mutations together that one transaction may send.
pub const TRANSACTION_ITEMS_MAX: usize = 1_000_000;

/// How fast versions advance. A transaction's life in versions is its life in seconds times this.
pub const VERSIONS_PER_SECOND: u64 = 1_000_000;
/// How long a version can be read, and how old a read version a commit may have, in versions.
pub const WINDOW_VERSIONS: u64 = 5 * VERSIONS_PER_SECOND;
/// How far a version that is given out may be ahead of the newest committed one, in versions. Whoever begins now reads at
/// the committed one, so this much of the window may be behind it already: a transaction lives for the rest at least.
pub const VERSIONS_AHEAD_MAX: u64 = 3 * VERSIONS_PER_SECOND / 2;
/// How long a proxy has no commits until it commits an empty batch, so that versions of an idle database go on.
pub const IDLE_BATCH_AFTER: Duration = Duration::from_secs(1);
/// How far a recovery jumps ahead, in versions, so that every older read version is too old.
pub const RECOVERY_VERSION_JUMP: u64 = 100_000_000;

/// How long the record of an idempotency id is kept at least, when its client never clears it. A client that still
/// does not know the fate of a commit when the record may be gone gets `commit_unknown_result`. Records live up to
/// a fifth longer, and up to twice as long when the controller changes.
pub const IDEMPOTENCY_LIFETIME: Duration = Duration::from_secs(600);

/// Longest frame on the wire, in bytes. A longer one ends its connection.
pub const FRAME_BYTES_MAX: usize = 128 * 1024 * 1024;
/// How long a peer may take to say who it is.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that may be in their handshake at once, at most: a process with few descriptors allows fewer. A further one
/// takes the place of the one that has been silent for the longest time, which is closed without a word: so silent peers can
/// neither use up the process' files nor keep others out.
pub const HANDSHAKES_MAX: usize = 1_024;
/// How long it may take to reach a server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a controller may take to say who leads, the way to it included.
pub const LEADER_ANSWER_MAX: Duration = Duration::from_millis(500);
/// How long a connection may be quiet before the system asks whether the peer's machine still lives.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// How long until it asks again.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// After how many questions without an answer the connection ends.
pub const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent bytes may go without an acknowledgement before the connection ends: keepalive asks only
/// when nothing is under way. Together they bound how long a connection outlives its peer's machine.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// How far ahead a request's deadline may lie; a later one is moved here. Timers cannot hold any length.
pub const REQUEST_DEADLINE_MAX: Duration = Duration::from_secs(3_600);
/// Requests that one connection may have in flight, unsent answers included. Our callers keep further ones
/// to themselves; those of a caller that does not are refused.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 16 * 1024;
/// Connections that one process accepts, those from within it included, at most: a process with few descriptors accepts fewer.
/// A further one is refused.
pub const CONNECTIONS_MAX: usize = 4_096;
/// The part of a process' connections that only other servers of the cluster get, one of so many.
pub const CONNECTIONS_RESERVED_PART: usize = 8;

/// Most rows that one range read returns, whatever was asked for.
pub const RANGE_ROWS_MAX: usize = 100_000;
/// Most bytes of keys and values that one range read returns, whatever was asked for (but always a row).
pub const RANGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most rows that one range read looks at, those that are deleted or changed later included; then it is continued by another
/// request (I-16).
pub const READ_ROWS_LOOKED_AT_MAX: usize = 200_000;
/// How long one range read may look before it is continued by another request: long enough that the way to the server does
/// not count, and far shorter than anybody's patience.
pub const READ_TIME_MAX: Duration = Duration::from_millis(50);
/// Most point reads that travel in one request.
pub const READS_PER_REQUEST_MAX: usize = 4_096;

/// How long clients and servers look for the next message before they sleep, unless their settings say otherwise. Long enough for
/// the answer to a commit, whose log waits for a disk.
pub const STAY_AWAKE_DEFAULT: Duration = Duration::from_micros(200);

/// How many watches of one database handle wait at a time, unless its settings say otherwise.
pub const WATCHES_DEFAULT: usize = 10_000;
/// How many the settings may allow.
pub const WATCHES_MAX: usize = 1_000_000;
/// Most watches that one request begins or ends, and most news that one answer brings.
pub const WATCHES_PER_REQUEST_MAX: usize = 1_000;
/// How long a storage server waits for news of a session's watches before it answers that there are none.
pub const WATCH_WAIT_MAX: Duration = Duration::from_secs(30);
/// Memory for the watches of all clients on one storage server, in bytes; a further one is refused, and its client
/// looks now and then.
pub const WATCH_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Most transactions in a commit batch: what a versionstamp's two bytes can count.
pub const BATCH_TRANSACTIONS_MAX: usize = 32_768;
/// Bytes of mutations and conflict ranges at which a commit batch is closed.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that a log gets of a commit batch at which the batch is closed. By the shard map of the moment: a server that joins
/// before the batch has its turn gets a copy of its own, so there is room for as much again.
pub const BATCH_PUSHED_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;
/// Most bytes that a log may get of a single transaction.
pub const PUSH_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_BYTES_MAX / 16;
/// What a mutation takes in a message besides its keys and values, at most.
pub const MUTATION_OVERHEAD_BYTES: usize = 10;
/// How many servers a shard may have at once: three copies, and as many that join.
pub const SHARD_SERVERS_MAX: usize = 6;
/// Most bytes that one peek of a log returns (but always a whole version).
pub const PEEK_BYTES_MAX: usize = 4 * 1024 * 1024;

const _: () = assert!(TRANSACTION_BYTES_MAX >= KEY_BYTES_MAX + VALUE_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX >= TRANSACTION_BYTES_MAX);
// A batch is closed by the transaction that passes the limit, and its encoding adds to it.
const _: () = assert!(FRAME_BYTES_MAX >= 2 * (BATCH_BYTES_MAX + TRANSACTION_BYTES_MAX));
const _: () =
    assert!(FRAME_BYTES_MAX >= 2 * RANGE_BYTES_MAX + 2 * (KEY_BYTES_MAX + VALUE_BYTES_MAX));
// A read that finds all its rows side by side is not cut short.
const _: () = assert!(READ_ROWS_LOOKED_AT_MAX > RANGE_ROWS_MAX);
// All servers of a shard may be told by the same log.
const _: () = assert!(
    PUSH_BYTES_MAX
        >= SHARD_SERVERS_MAX
            * (TRANSACTION_BYTES_MAX
                + TRANSACTION_OVERHEAD_BYTES_MAX
                + (TRANSACTION_ITEMS_MAX + TRANSACTION_OVERHEAD_ITEMS_MAX)
                    * MUTATION_OVERHEAD_BYTES)
);
const _: () = assert!(BATCH_TRANSACTIONS_MAX <= u16::MAX as usize);
const _: () = assert!(RECOVERY_VERSION_JUMP > WINDOW_VERSIONS);
const _: () = assert!(WINDOW_VERSIONS > 3 * VERSIONS_AHEAD_MAX);
// An idle database keeps up with time although its batches take a while.
const _: () = assert!(VERSIONS_AHEAD_MAX > IDLE_BATCH_AFTER.as_secs() * VERSIONS_PER_SECOND);
const _: () = assert!(
    UNACKNOWLEDGED_MAX.as_secs()
        == KEEPALIVE_IDLE.as_secs() + KEEPALIVE_INTERVAL.as_secs() * KEEPALIVE_RETRIES as u64
);
