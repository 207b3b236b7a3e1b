//! The relays of the tests: who is connected, and what a cut does to bytes in each direction.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "clients of real processes run on tokio itself")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use ferrisdb_core::transport::Hello;
use support::{
    cluster::{Cluster, Shape},
    relay::{AfterHeal, CLIENT, Relays},
};

/// Long enough for bytes to come that should not.
const SILENCE: Duration = Duration::from_millis(100);

/// A connection to a relay by whoever is reached at `origin`.
fn connect(relay: SocketAddr, origin: &str) -> TcpStream {
    let mut near = TcpStream::connect(relay).unwrap();
    near.write_all(&hello(origin)).unwrap();
    near
}

fn hello(origin: &str) -> Vec<u8> {
    let origin = origin.to_owned();
    Hello { protocol_version: 1, cluster_id: None, service: 1, instance: 0, origin }.to_bytes()
}

/// The far end of a connection that [`connect`] has made.
fn accept(listener: &TcpListener, origin: &str) -> TcpStream {
    let (mut far, _) = listener.accept().unwrap();
    let mut bytes = vec![0; hello(origin).len()];
    far.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, hello(origin), "the relay passes the first words on");
    far
}

/// A connection through the relay of a server in this process: the near end, and the server's.
fn pair(relays: &Relays) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = relays.add("server", listener.local_addr().unwrap());
    let near = connect(relay, "");
    (near, accept(&listener, ""))
}

fn send(from: &mut TcpStream, text: &str) {
    from.write_all(text.as_bytes()).unwrap();
}

#[track_caller]
fn expect(at: &mut TcpStream, text: &str) {
    at.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bytes = vec![0; text.len()];
    at.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
}

#[track_caller]
fn expect_silence(at: &mut TcpStream) {
    at.set_read_timeout(Some(SILENCE)).unwrap();
    let error = at.read(&mut [0]).expect_err("bytes or an end came through a cut");
    let is_timeout =
        [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind());
    assert!(is_timeout, "the connection broke in a cut: {error}");
}

#[test]
fn a_cut_holds_bytes_in_both_directions_until_it_heals() {
    let relays = Relays::new();
    let (mut near, mut far) = pair(&relays);
    send(&mut near, "question");
    expect(&mut far, "question");
    send(&mut far, "answer");
    expect(&mut near, "answer");

    relays.cut(CLIENT, "server");
    send(&mut near, "held");
    send(&mut far, "held too");
    expect_silence(&mut far);
    expect_silence(&mut near);
    relays.heal();
    expect(&mut far, "held");
    expect(&mut near, "held too");
}

#[test]
fn a_cut_of_one_direction_leaves_the_other() {
    let relays = Relays::new();
    let (mut near, mut far) = pair(&relays);
    relays.cut_one_way(CLIENT, "server");
    send(&mut far, "still");
    expect(&mut near, "still");
    send(&mut near, "held");
    expect_silence(&mut far);
    relays.heal();
    expect(&mut far, "held");

    // Whoever has connected: this is the server's direction.
    relays.cut_one_way("server", CLIENT);
    send(&mut near, "still");
    expect(&mut far, "still");
    send(&mut far, "held");
    expect_silence(&mut near);
}

#[test]
fn nothing_is_heard_of_an_end_behind_a_cut() {
    let relays = Relays::new();
    let (near, mut far) = pair(&relays);
    relays.isolate("server");
    drop(near);
    expect_silence(&mut far);
    relays.heal();
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "the end comes after the cut");
}

#[test]
fn held_connections_can_break_instead() {
    let relays = Relays::new();
    relays.set_after_heal(AfterHeal::Break);
    let (mut near, mut far) = pair(&relays);
    relays.cut(CLIENT, "server");
    send(&mut near, "lost");
    expect_silence(&mut far);
    relays.heal();
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap_or(0), 0, "what was held is lost");
}

#[test]
fn a_new_connection_hangs_in_a_cut_and_is_not_refused() {
    let relays = Relays::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = relays.add("server", listener.local_addr().unwrap());
    relays.cut_one_way("server", CLIENT);
    let mut near = connect(relay, "");
    send(&mut near, "question");
    expect_silence(&mut near);
    relays.heal();
    let mut far = accept(&listener, "");
    expect(&mut far, "question");
}

#[test]
fn processes_are_told_apart_by_where_they_are_reached() {
    let relays = Relays::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = relays.add("server", listener.local_addr().unwrap());
    let mut ends = Vec::new();
    for name in ["one", "other"] {
        let origin = relays.add(name, "127.0.0.1:9".parse().unwrap()).to_string();
        let near = connect(relay, &origin);
        ends.push((near, accept(&listener, &origin)));
    }
    let from = |name: &str| (name.to_string(), "server".to_string());
    assert_eq!(relays.accepted(), [from("one"), from("other")]);

    // Only the link that is cut is silent.
    relays.cut("one", "server");
    ends.iter_mut().for_each(|(_, far)| send(far, "news"));
    expect(&mut ends[1].0, "news");
    expect_silence(&mut ends[0].0);
    relays.heal();
    expect(&mut ends[0].0, "news");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_a_cluster_goes_through_relays() {
    let mut cluster = Cluster::start(&Shape::default());
    cluster.wait_available(Duration::from_secs(20)).await;
    let accepted = cluster.relays().accepted();
    let is_there = |from: &str, to: &str| {
        assert!(accepted.contains(&(from.into(), to.into())), "{from} -> {to}: {accepted:?}");
    };
    for name in ["coordinator-0", "log-0", "log-1", "log-2", "storage-0", "storage-1", CLIENT] {
        is_there(name, "controller-0");
    }
    for log in ["log-0", "log-1", "log-2"] {
        is_there("coordinator-0", log);
    }
    is_there(CLIENT, "coordinator-0");
    cluster.shut_down();
}
