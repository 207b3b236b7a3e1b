//! A connection: two queues of messages, each with the time at which it arrives.
//!
//! ```text
//!            write, flush            what the server reads                        read
//!   caller ----------------> [ 3.1 ms "GET"  3.9 ms "PUT"  4.0 ms end ] ---------> server
//!
//!   clogged    what is due stays in the queue, the end as well; afterwards it comes late, as if sent again
//!   death      the queue is cut after a number of bytes, and a reset follows
//! ```
//!
//! Messages never overtake each other. One timer is set per message, for the reader; nothing here is a task.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use madsim::time::TimeHandle;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};

use super::{
    conditions::{LinkConditions, fraction},
    links::{self, Link},
};
use crate::{
    limits,
    runtime::{Instant, true_now},
};

/// Longest silence after a clog has ended.
const SENT_AGAIN_AFTER_MAX: Duration = Duration::from_secs(10);
/// What a writer collects before it sends without being asked to.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Caller = 0,
    Server = 1,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Caller => Side::Server,
            Side::Server => Side::Caller,
        }
    }
}

/// Both directions of a connection.
pub(super) struct Pipe(Mutex<State>);

struct State {
    /// By who reads.
    directions: [Direction; 2],
    /// When both ends learn that the connection is no more.
    broken: Option<Instant>,
}

/// One direction.
struct Direction {
    link: Link,
    messages: VecDeque<Message>,
    /// Bytes of the messages.
    waiting_bytes: usize,
    sent_bytes: u64,
    /// After how many sent bytes the connection breaks.
    dies_after: Option<u64>,
    is_cut: bool,
    /// When the link resets the connection.
    reset: Option<Instant>,
    /// When the last message arrives: a later one does not arrive before it.
    last_arrives: Instant,
    /// When the reader learns that the writer has hung up.
    ends: Option<Instant>,
    /// Since when something is due and held back.
    held_since: Option<Instant>,
    /// What was held back does not arrive before this.
    sent_again: Option<Instant>,
    has_reader: bool,
    reader: Option<Waker>,
    /// When the reader is woken next.
    rings: Option<Instant>,
    writer: Option<Waker>,
}

struct Message {
    arrives: Instant,
    bytes: Bytes,
}

/// A timer as exact as the virtual clock. madsim's own take a millisecond at least.
pub(super) fn timer(time: &TimeHandle, at: Instant) -> madsim::time::Sleep {
    let mut timer = time.sleep_until(at);
    Pin::new(&mut timer).reset(at);
    timer
}

/// Wakes somebody at a time.
fn ring(waker: &Waker, at: Instant) {
    // A run that is over has no time.
    let Some(time) = TimeHandle::try_current() else { return };
    let mut timer = timer(&time, at);
    // Once polled, the timer stays when its future is gone.
    if Pin::new(&mut timer).poll(&mut Context::from_waker(waker)).is_ready() {
        waker.wake_by_ref();
    }
}

impl Direction {
    fn new(link: Link) -> Direction {
        let now = true_now();
        let dies_after = link.with_conditions(LinkConditions::draw_death);
        let reset = link.with_conditions(LinkConditions::draw_reset).map(|after| now + after);
        Direction {
            link,
            messages: VecDeque::new(),
            waiting_bytes: 0,
            sent_bytes: 0,
            dies_after,
            is_cut: false,
            reset,
            last_arrives: now,
            ends: None,
            held_since: None,
            sent_again: None,
            has_reader: true,
            reader: None,
            rings: None,
            writer: None,
        }
    }

    /// Lets the reader look again at a time.
    fn ring_reader(&mut self, at: Instant) {
        if let Some(reader) = &self.reader
            && self.rings != Some(at)
        {
            self.rings = Some(at);
            ring(reader, at);
        }
    }

    /// When the next message or the end arrives, clogs apart.
    fn next_arrival(&self) -> Option<Instant> {
        let next = self.messages.front().map(|message| message.arrives).or(self.ends)?;
        Some(self.sent_again.map_or(next, |again| next.max(again)))
    }

    /// Whether something has arrived and is let through.
    fn has_arrived(&mut self, now: Instant) -> bool {
        if self.next_arrival().is_none_or(|at| at > now) {
            return false;
        }
        if self.link.is_clogged() {
            self.hold(now);
            return false;
        }
        let Some(since) = self.held_since.take() else { return true };
        // Lost bytes are sent again at longer and longer intervals, so the silence goes on for a part of the
        // time that it has lasted.
        let silence = now.saturating_duration_since(since).min(SENT_AGAIN_AFTER_MAX);
        self.sent_again = Some(now + silence.mul_f64(fraction()));
        false
    }

    /// Something would arrive at a time and is held back.
    fn hold(&mut self, at: Instant) {
        if self.held_since.is_none() {
            self.held_since = Some(at);
            links::count(|counts| counts.held += 1);
        }
    }

    fn take_message(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let Some(message) = self.messages.front_mut() else { return false };
        let length = message.bytes.len().min(buffer.remaining());
        buffer.put_slice(&message.bytes[..length]);
        message.bytes.advance(length);
        self.waiting_bytes -= length;
        if message.bytes.is_empty() {
            self.messages.pop_front();
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        true
    }

    /// Sends a message. Says when the connection breaks by it, if it does.
    fn send(&mut self, mut bytes: Bytes) -> Option<Instant> {
        let arrives = self.link.draw_arrival(bytes.len()).max(self.last_arrives);
        self.last_arrives = arrives;
        if self.is_cut || !self.has_reader {
            return None;
        }
        let may_die = self.link.with_conditions(|conditions| conditions.deaths > 0.0);
        let left = self.dies_after.map_or(u64::MAX, |after| after - self.sent_bytes);
        if may_die && left < bytes.len() as u64 {
            self.is_cut = true;
            bytes.truncate(usize::try_from(left).unwrap_or(0));
            links::count(|counts| counts.deaths += 1);
        }
        if self.dies_after.is_some_and(|after| after < self.sent_bytes + bytes.len() as u64) {
            // It outlived the conditions that it was to die of.
            self.dies_after = None;
        }
        self.sent_bytes += bytes.len() as u64;
        self.waiting_bytes += bytes.len();
        if !bytes.is_empty() {
            self.messages.push_back(Message { arrives, bytes });
            if self.link.is_clogged() {
                self.hold(arrives);
            } else if self.messages.len() == 1 {
                self.ring_reader(self.next_arrival().unwrap_or(arrives));
            }
        }
        self.is_cut.then_some(arrives)
    }

    /// The writer hangs up.
    fn end(&mut self) {
        if self.ends.is_none() {
            let arrives = self.link.draw_arrival(0).max(self.last_arrives);
            self.ends = Some(arrives);
            if self.link.is_clogged() {
                self.hold(arrives);
            } else {
                self.ring_reader(arrives);
            }
        }
    }
}

impl State {
    fn direction(&mut self, reader: Side) -> &mut Direction {
        &mut self.directions[reader as usize]
    }

    fn breaks(&self) -> Option<Instant> {
        let resets = self.directions.iter().map(|direction| direction.reset);
        resets.chain([self.broken]).flatten().min()
    }

    /// Breaks the connection at a time, at the latest.
    fn break_at(&mut self, at: Instant) {
        self.broken = Some(self.broken.map_or(at, |earlier| earlier.min(at)));
        self.directions.iter_mut().for_each(|direction| direction.ring_reader(at));
    }

    fn check_broken(&mut self, now: Instant) -> io::Result<()> {
        let Some(at) = self.breaks().filter(|&at| at <= now) else { return Ok(()) };
        if self.broken.is_none() {
            // It is so for good, whatever becomes of the link.
            self.broken = Some(at);
            links::count(|counts| counts.resets += 1);
        }
        Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset"))
    }

    fn poll_read(
        &mut self,
        side: Side,
        waker: &Waker,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = true_now();
        let breaks = self.breaks();
        let direction = self.direction(side);
        if direction.has_arrived(now) {
            // What would have arrived after the break never does.
            let arrives = direction.messages.front().map(|message| message.arrives);
            let is_lost = breaks.is_some_and(|at| at <= now && arrives.is_none_or(|it| it > at));
            if !is_lost {
                direction.take_message(buffer);
                return Poll::Ready(Ok(()));
            }
        }
        self.check_broken(now)?;
        let direction = self.direction(side);
        if !direction.reader.as_ref().is_some_and(|reader| reader.will_wake(waker)) {
            direction.reader = Some(waker.clone());
            direction.rings = None;
        }
        let arrival = direction.next_arrival().filter(|_| !direction.link.is_clogged());
        if let Some(next) = [arrival, breaks].into_iter().flatten().min() {
            direction.ring_reader(next);
        }
        Poll::Pending
    }

    fn poll_send(
        &mut self,
        side: Side,
        waker: &Waker,
        bytes: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        let now = true_now();
        self.check_broken(now)?;
        let incoming = self.direction(side);
        if incoming.ends.is_some_and(|at| at <= now) && !incoming.link.is_clogged() {
            let gone = io::Error::new(io::ErrorKind::BrokenPipe, "the peer has hung up");
            return Poll::Ready(Err(gone));
        }
        let outgoing = self.direction(side.other());
        if bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let window = outgoing.link.with_conditions(|conditions| conditions.window_bytes);
        if outgoing.waiting_bytes >= window {
            outgoing.writer = Some(waker.clone());
            links::count(|counts| counts.full_windows += 1);
            return Poll::Pending;
        }
        if let Some(at) = outgoing.send(bytes.split().freeze()) {
            self.break_at(at);
        }
        Poll::Ready(Ok(()))
    }
}

impl Pipe {
    /// A connection over two links.
    pub(super) fn open(to_server: Link, to_caller: Link) -> Arc<Pipe> {
        let directions = [Direction::new(to_caller.clone()), Direction::new(to_server.clone())];
        let pipe = Arc::new(Pipe(Mutex::new(State { directions, broken: None })));
        to_caller.add(&pipe, Side::Caller);
        to_server.add(&pipe, Side::Server);
        pipe
    }

    /// Lets a reader look whether it can go on.
    pub(super) fn wake_reader(&self, reader: Side) {
        let mut state = self.0.lock();
        let direction = state.direction(reader);
        direction.rings = None;
        if let Some(reader) = &direction.reader {
            reader.wake_by_ref();
        }
    }

    /// Decides anew when the link towards a reader resets the connection.
    pub(super) fn plan_reset(&self, reader: Side, after: Option<Duration>) {
        let mut state = self.0.lock();
        let at = after.map(|after| true_now() + after);
        state.direction(reader).reset = at;
        if let Some(at) = at {
            state.directions.iter_mut().for_each(|direction| direction.ring_reader(at));
        }
    }

    /// An end is gone.
    fn close(&self, side: Side, has_power: bool) {
        let mut state = self.0.lock();
        let incoming = state.direction(side);
        incoming.has_reader = false;
        incoming.messages.clear();
        incoming.waiting_bytes = 0;
        let writer = incoming.writer.take();
        incoming.reader = None;
        if has_power {
            state.direction(side.other()).end();
        } else {
            // Nobody is left to say so: the peer's system has to find out.
            state.break_at(true_now() + limits::UNACKNOWLEDGED_MAX);
        }
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

/// One end of a connection.
pub(in crate::transport) enum Connection {
    /// As madsim has it, in runs whose links have no conditions.
    Plain(TcpStream),
    /// Over a pipe.
    Piped(End),
}

/// One end of a pipe.
pub(in crate::transport) struct End {
    /// Keeps the port, and nothing else.
    socket: TcpStream,
    pipe: Arc<Pipe>,
    side: Side,
    written: BytesMut,
    /// Who says the same once more on a connection of its own.
    ghost: Option<oneshot::Sender<Bytes>>,
}

impl End {
    pub(super) fn new(socket: TcpStream, pipe: Arc<Pipe>, side: Side) -> End {
        End { socket, pipe, side, written: BytesMut::new(), ghost: None }
    }

    /// Where the other end is.
    pub(super) fn peer(&self) -> io::Result<IpAddr> {
        Ok(self.socket.peer_addr()?.ip())
    }

    /// Tells somebody else what is sent first.
    pub(super) fn echo_to(&mut self, ghost: oneshot::Sender<Bytes>) {
        self.ghost = Some(ghost);
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(ghost) = self.ghost.take_if(|_| !self.written.is_empty()) {
            let _ = ghost.send(Bytes::copy_from_slice(&self.written));
        }
        self.pipe.0.lock().poll_send(self.side, context.waker(), &mut self.written)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // A run that is over drops its tasks outside of time.
        if TimeHandle::try_current().is_some() {
            let has_power = self.socket.local_addr().is_ok_and(|own| links::has_power(own.ip()));
            self.pipe.close(self.side, has_power);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Connection::Piped(end) => {
                end.pipe.0.lock().poll_read(end.side, context.waker(), buffer)
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write(context, data),
            Connection::Piped(end) => {
                if end.written.len() >= WRITE_BUFFER_BYTES {
                    std::task::ready!(end.poll_send(context))?;
                }
                end.written.extend_from_slice(data);
                Poll::Ready(Ok(data.len()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_flush(context),
            Connection::Piped(end) => end.poll_send(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Connection::Piped(end) => {
                std::task::ready!(end.poll_send(context))?;
                end.pipe.0.lock().direction(end.side.other()).end();
                Poll::Ready(Ok(()))
            }
        }
    }
}
