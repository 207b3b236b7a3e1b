//! What a request and its answer cost at least: 128 bytes over loopback TCP and back, from a thread to another one.

use std::{sync::mpsc, time::Instant};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use crate::{
    Common, OnOneThread,
    tally::{Clock, Tally},
};

const BYTES: usize = 128;

pub(crate) async fn run(common: &Common) -> Result<()> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || -> Result<()> {
        Runtime::new_on_one_thread()?.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            tell.send(listener.local_addr()?)?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(answer(stream));
            }
        })
    });
    let addr = told.recv()?;
    let clock = Clock::new(common);
    let mut clients = Vec::new();
    for _ in 0..common.clients {
        clients.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let mut tally = Tally::new(clock)?;
            let mut bytes = [7; BYTES];
            while clock.is_running() {
                let began = Instant::now();
                stream.write_all(&bytes).await?;
                stream.read_exact(&mut bytes).await?;
                tally.done(began);
            }
            Ok::<_, anyhow::Error>(tally)
        }));
    }
    let used = clock.usage(None).await;
    let mut sum = Tally::new(clock)?;
    for client in clients {
        sum.add(&client.await??)?;
    }
    sum.report("limit", "tcp-echo", common, used);
    Ok(())
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; BYTES];
    loop {
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await?;
    }
}
