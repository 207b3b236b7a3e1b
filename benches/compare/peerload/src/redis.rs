//! Redis: GET, SET, and transfers as two round trips (WATCH and MGET; MULTI, two SETs and EXEC). No pipelining otherwise.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Common, balance, key,
    tally::{Clock, Tally},
    two_accounts, value,
};

const AT_ONCE: usize = 500;
const FIRST_BALANCE: i64 = 1_000;

pub(crate) async fn run(addr: &str, workload: &str, common: &Common) -> Result<()> {
    match workload {
        "load" => return load(addr, common).await,
        "check" => return check(addr, common).await,
        _ => {}
    }
    let clock = Clock::new(common);
    let mut clients = Vec::new();
    for _ in 0..common.clients {
        let (addr, workload, common) = (addr.to_owned(), workload.to_owned(), common.clone());
        clients.push(tokio::spawn(async move { client(&addr, &workload, &common, clock).await }));
    }
    let used = clock.usage(common.pid).await;
    let mut sum = Tally::new(clock)?;
    for client in clients {
        sum.add(&client.await??)?;
    }
    sum.report("redis", workload, common, used);
    Ok(())
}

async fn client(addr: &str, workload: &str, common: &Common, clock: Clock) -> Result<Tally> {
    let mut connection = Connection::open(addr).await?;
    let mut tally = Tally::new(clock)?;
    let mut rng = fastrand::Rng::new();
    while clock.is_running() {
        let began = Instant::now();
        let row = key('k', rng.u64(..common.keys));
        match workload {
            "set" => {
                connection.ask(&[b"SET", &row, &value(common.value, 0)]);
                connection.answers(1).await?;
            }
            "get" => {
                connection.ask(&[b"GET", &row]);
                connection.answers(1).await?;
            }
            "transfer" => {
                let accounts = two_accounts(&mut rng, common.accounts);
                while !transfer(&mut connection, &accounts, common).await? {
                    tally.retry();
                    if !clock.is_running() {
                        return Ok(tally);
                    }
                }
            }
            other => bail!("no workload {other}"),
        }
        tally.done(began);
    }
    Ok(tally)
}

/// One attempt; whether it took effect.
async fn transfer(
    connection: &mut Connection,
    [from, to]: &[Vec<u8>; 2],
    common: &Common,
) -> Result<bool> {
    connection.ask(&[b"WATCH", from, to]);
    connection.ask(&[b"MGET", from, to]);
    let read = connection.answers(2).await?;
    let Some(Reply::Array(found)) = read.get(1) else { bail!("MGET was answered otherwise") };
    let [Reply::Bulk(payer), Reply::Bulk(payee)] = found.as_slice() else {
        bail!("an account is missing")
    };
    connection.ask(&[b"MULTI"]);
    connection.ask(&[b"SET", from, &value(common.value, balance(payer) - 1)]);
    connection.ask(&[b"SET", to, &value(common.value, balance(payee) + 1)]);
    connection.ask(&[b"EXEC"]);
    let written = connection.answers(4).await?;
    Ok(matches!(written.last(), Some(Reply::Array(_))))
}

async fn load(addr: &str, common: &Common) -> Result<()> {
    let mut connection = Connection::open(addr).await?;
    let rows = (0..common.keys).map(|number| (key('k', number), 0));
    let accounts = (0..common.accounts).map(|number| (key('t', number), FIRST_BALANCE));
    let all: Vec<(Vec<u8>, i64)> = rows.chain(accounts).collect();
    for some in all.chunks(AT_ONCE) {
        for (key, balance) in some {
            connection.ask(&[b"SET", key, &value(common.value, *balance)]);
        }
        connection.answers(some.len()).await?;
    }
    Ok(())
}

async fn check(addr: &str, common: &Common) -> Result<()> {
    let mut connection = Connection::open(addr).await?;
    let mut sum = 0;
    for number in 0..common.accounts {
        connection.ask(&[b"GET", &key('t', number)]);
        let answer = connection.answers(1).await?;
        let Some(Reply::Bulk(found)) = answer.first() else { bail!("account {number} is missing") };
        sum += balance(found);
    }
    let expected = common.accounts as i64 * FIRST_BALANCE;
    ensure!(sum == expected, "the accounts hold {sum}, there must be {expected}");
    Ok(())
}

/// An answer, as far as the load looks at it.
enum Reply {
    Bulk(Vec<u8>),
    Array(Vec<Reply>),
    /// A status, a number, or nothing.
    Other,
}

/// A connection that speaks as much RESP2 as the load needs.
struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
    received: Vec<u8>,
    parsed: usize,
}

impl Connection {
    async fn open(addr: &str) -> Result<Connection> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, unsent: Vec::new(), received: Vec::new(), parsed: 0 })
    }

    /// Queues a request.
    fn ask(&mut self, words: &[&[u8]]) {
        self.unsent.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.unsent.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.unsent.extend_from_slice(word);
            self.unsent.extend_from_slice(b"\r\n");
        }
    }

    /// Sends what was queued, and waits for so many answers.
    async fn answers(&mut self, count: usize) -> Result<Vec<Reply>> {
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        let mut replies = Vec::with_capacity(count);
        while replies.len() < count {
            if let Some((reply, end)) = parse(&self.received, self.parsed)? {
                replies.push(reply);
                self.parsed = end;
                continue;
            }
            self.received.drain(..self.parsed);
            self.parsed = 0;
            self.received.reserve(65_536);
            ensure!(self.stream.read_buf(&mut self.received).await? > 0, "the server hung up");
        }
        Ok(replies)
    }
}

/// The reply that begins at a place, and where it ends; `None` if not all of it is there.
fn parse(bytes: &[u8], begin: usize) -> Result<Option<(Reply, usize)>> {
    let rest = &bytes[begin..];
    let Some(line_bytes) = rest.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let kind = rest[0];
    let line = std::str::from_utf8(&rest[1..line_bytes])?;
    let end = begin + line_bytes + 2;
    if matches!(kind, b'+' | b':') {
        return Ok(Some((Reply::Other, end)));
    }
    ensure!(kind != b'-', "the server says: {line}");
    let Ok(length) = usize::try_from(line.parse::<i64>().context("a length")?) else {
        return Ok(Some((Reply::Other, end)));
    };
    match kind {
        b'$' => {
            let found = bytes.get(end..end + length).filter(|_| bytes.len() >= end + length + 2);
            Ok(found.map(|found| (Reply::Bulk(found.to_vec()), end + length + 2)))
        }
        b'*' => {
            let (mut replies, mut place) = (Vec::new(), end);
            for _ in 0..length {
                let Some((reply, after)) = parse(bytes, place)? else { return Ok(None) };
                replies.push(reply);
                place = after;
            }
            Ok(Some((Reply::Array(replies), place)))
        }
        other => bail!("an answer begins with byte {other}"),
    }
}
