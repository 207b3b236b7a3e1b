//! One run: a workload with a number of clients, from its warm-up to its checks.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use ferrisdb_core::runtime;
use parking_lot::Mutex;

use crate::{
    clients::{self, Client, ExactlyOnce},
    intervals::{self, Every},
    process::{DiskUsage, Usage},
    progress,
    report::{Report, Setting, Used},
    rows::Rows,
    schedule::{Schedule, Window},
    tally::Tally,
    target::Target,
    workload::{self, Kind, Sizes, Totals},
};

/// How a workload is run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Transactions in flight.
    pub(crate) clients: usize,
    /// How long it runs before it counts.
    pub(crate) warm_up: Duration,
    /// How long it counts.
    pub(crate) duration: Duration,
    /// Operations a second of an open loop.
    pub(crate) rate: Option<f64>,
    /// What transactions do about lost answers.
    pub(crate) exactly_once: ExactlyOnce,
    /// Seeds the clients' random numbers.
    pub(crate) seed: u64,
    /// How often to tell what has happened since the last time, and how.
    pub(crate) every: Option<Every>,
}

/// Runs a workload and says what was measured.
///
/// # Errors
///
/// What the preparation fails with; a check that does not hold.
pub(crate) async fn run(
    kind: Kind,
    sizes: &Sizes,
    rows: &Arc<Rows>,
    target: &Target,
    plan: &Plan,
) -> Result<Report> {
    let workload = workload::prepare(kind, sizes, rows, target.database(0)).await?;
    let window = Window::new(plan.warm_up, plan.duration);
    let tally = Arc::new(Mutex::new(Tally::new(window)?));
    let schedule = Schedule::new(window, plan.rate);
    let clients = (0..plan.clients).map(|number| {
        let (database, rows) = (target.database(number).clone(), Arc::clone(rows));
        let (tally, seed) = (Arc::clone(&tally), plan.seed);
        Client::new(database, rows, tally, plan.exactly_once, seed, number as u64)
    });
    let mut showing = None;
    if !sizes.is_quiet {
        let name = format!("{}, {} clients", kind.name(), plan.clients);
        showing = Some(runtime::spawn(progress::show(name, window, Arc::clone(&tally))));
    }
    let (ended, used, told) = futures::join!(
        clients::run_all(clients.collect(), &workload, &schedule),
        usage(window, target),
        intervals::tell(plan.every, window, &tally, target)
    );
    ended?;
    told?;
    drop(showing);

    let totals = {
        let tally = tally.lock();
        ensure!(
            tally.missing == 0,
            "{} rows that were loaded were not found: load them again, without --no-load",
            tally.missing
        );
        Totals { done: tally.all, unknown: tally.unknown }
    };
    let check = workload.check(target.database(0), totals).await?;
    let setting = Setting {
        workload: kind.name(),
        clients: plan.clients,
        keys: sizes.keys,
        accounts: sizes.accounts,
        key_bytes: rows.row_bytes() - rows.value_bytes(),
        value_bytes: rows.value_bytes(),
        distribution: sizes.distribution.map_or_else(String::new, |of| of.name().to_owned()),
        rate: plan.rate,
        target: target.description.clone(),
    };
    let never_begun = schedule.never_begun();
    Ok(Report::new(setting, plan.duration, &tally.lock(), used, never_begun, check))
}

/// What the processes use within the window.
async fn usage(window: Window, target: &Target) -> Used {
    let own_pid = std::process::id();
    let now = || {
        let disk = target.data.as_deref().and_then(DiskUsage::of);
        (Usage::of(own_pid), target.server_usage(), disk)
    };
    runtime::sleep(window.start.saturating_duration_since(runtime::now())).await;
    let (client_before, server_before, disk_before) = now();
    runtime::sleep(window.end.saturating_duration_since(runtime::now())).await;
    let (client, server, disk) = now();
    let since = |now: Option<Usage>, before: Option<Usage>| {
        now.zip(before).map(|(now, before)| now.since(before))
    };
    Used {
        client: since(client, client_before),
        server: since(server, server_before),
        disk: disk.zip(disk_before).map(|(now, before)| now.since(before)),
        is_embedded: target.is_embedded,
        resident_bytes: target.resident_bytes(),
    }
}
