//! etcd: linearizable gets, puts, and transfers as two requests (two gets; two puts if nothing changed).

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Client, Compare, CompareOp, GetOptions, KvClient, Txn, TxnOp, TxnOpResponse};

use crate::{
    Common, balance, key,
    tally::{Clock, Tally},
    two_accounts, value,
};

/// etcd takes 128 operations in a transaction.
const LOADED_AT_ONCE: usize = 60;
const READ_AT_ONCE: u64 = 10_000;
const FIRST_BALANCE: i64 = 1_000;

pub(crate) async fn run(addr: &str, workload: &str, conns: usize, common: &Common) -> Result<()> {
    let mut connections = Vec::new();
    for _ in 0..conns.clamp(1, common.clients.max(1)) {
        connections.push(Client::connect([format!("http://{addr}")], None).await?.kv_client());
    }
    match workload {
        "load" => return load(&mut connections[0], common).await,
        "check" => return check(&mut connections[0], common).await,
        _ => {}
    }
    let clock = Clock::new(common);
    let mut clients = Vec::new();
    for number in 0..common.clients {
        let connection = connections[number % connections.len()].clone();
        let (common, workload) = (common.clone(), workload.to_owned());
        clients
            .push(tokio::spawn(async move { client(connection, &workload, &common, clock).await }));
    }
    let used = clock.usage(common.pid).await;
    let mut sum = Tally::new(clock)?;
    for client in clients {
        sum.add(&client.await??)?;
    }
    sum.report("etcd", workload, common, used);
    Ok(())
}

async fn client(mut kv: KvClient, workload: &str, common: &Common, clock: Clock) -> Result<Tally> {
    let mut tally = Tally::new(clock)?;
    let mut rng = fastrand::Rng::new();
    while clock.is_running() {
        let began = Instant::now();
        let row = key('k', rng.u64(..common.keys));
        match workload {
            "put" => drop(kv.put(row, value(common.value, 0), None).await?),
            "get" => drop(kv.get(row, None).await?),
            "transfer" => {
                let accounts = two_accounts(&mut rng, common.accounts);
                while !transfer(&mut kv, &accounts, common).await? {
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
async fn transfer(kv: &mut KvClient, accounts: &[Vec<u8>; 2], common: &Common) -> Result<bool> {
    let reads: Vec<TxnOp> = accounts.iter().map(|key| TxnOp::get(key.clone(), None)).collect();
    let answer = kv.txn(Txn::new().and_then(reads)).await?;
    let (mut unchanged, mut writes) = (Vec::new(), Vec::new());
    for ((key, response), change) in accounts.iter().zip(answer.op_responses()).zip([-1, 1]) {
        let TxnOpResponse::Get(found) = response else { bail!("a get was answered otherwise") };
        let row = found.kvs().first().context("an account is missing")?;
        let after = value(common.value, balance(row.value()) + change);
        unchanged.push(Compare::mod_revision(key.clone(), CompareOp::Equal, row.mod_revision()));
        writes.push(TxnOp::put(key.clone(), after, None));
    }
    Ok(kv.txn(Txn::new().when(unchanged).and_then(writes)).await?.succeeded())
}

async fn load(kv: &mut KvClient, common: &Common) -> Result<()> {
    let rows = (0..common.keys).map(|number| (key('k', number), 0));
    let accounts = (0..common.accounts).map(|number| (key('t', number), FIRST_BALANCE));
    let all: Vec<(Vec<u8>, i64)> = rows.chain(accounts).collect();
    for some in all.chunks(LOADED_AT_ONCE) {
        let put = |(key, balance): &(Vec<u8>, i64)| {
            TxnOp::put(key.clone(), value(common.value, *balance), None)
        };
        kv.txn(Txn::new().and_then(some.iter().map(put).collect::<Vec<_>>())).await?;
    }
    Ok(())
}

async fn check(kv: &mut KvClient, common: &Common) -> Result<()> {
    let mut sum = 0;
    for begin in (0..common.accounts).step_by(READ_AT_ONCE as usize) {
        let end = (begin + READ_AT_ONCE).min(common.accounts);
        let range = GetOptions::new().with_range(key('t', end));
        let answer = kv.get(key('t', begin), Some(range)).await?;
        sum += answer.kvs().iter().map(|row| balance(row.value())).sum::<i64>();
    }
    let expected = common.accounts as i64 * FIRST_BALANCE;
    ensure!(sum == expected, "the accounts hold {sum}, there must be {expected}");
    Ok(())
}
