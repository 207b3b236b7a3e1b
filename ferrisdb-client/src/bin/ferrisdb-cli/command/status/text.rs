//! The status for people.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use ferrisdb_client::Status;
use ferrisdb_core::service::controller::Phase;

use super::findings::{Finding, Severity, lag, seconds, servers_alive, storage_processes};

/// Shards that are listed one by one; of more, only the number and the ones in danger are told.
const SHARDS_LISTED_MAX: usize = 20;

/// The whole report.
pub(crate) fn report(status: &Status, findings: &[Finding]) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{}\n", verdict(findings));
    for finding in findings {
        let _ = writeln!(text, "  ! {}\n    do: {}", finding.what, finding.todo);
    }
    if !findings.is_empty() {
        text.push('\n');
    }
    text.push_str(&cluster(status));
    let _ = writeln!(text, "\nProcesses\n{}", processes(status));
    let _ = writeln!(text, "\nShards\n{}", shards(status));
    text
}

fn verdict(findings: &[Finding]) -> &'static str {
    match findings.first().map(|worst| worst.severity) {
        None => "OK: the cluster serves, and everything that has registered is alive.",
        Some(Severity::Weak) => "DEGRADED: the cluster serves, but it needs attention.",
        Some(Severity::Down) => "DOWN: reads or writes fail.",
    }
}

fn cluster(status: &Status) -> String {
    let cluster = &status.cluster;
    let phase = match &cluster.phase {
        Phase::Active => String::from("active"),
        Phase::Waiting { reason } => format!("waiting: {reason}"),
        Phase::Recovering { step } => format!("recovering: {step}"),
    };
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<12}{value}");
    };
    line("cluster", cluster.cluster_id.to_string());
    line("controller", status.controller.to_string());
    line("generation", format!("{}, {phase}", cluster.generation));
    line("recoveries", format!("{} since the controller started", status.recoveries));
    if let Some(coordinator) = &cluster.coordinator {
        line("sequencer", coordinator.sequencer.address.to_string());
        line("proxies", coordinator.proxies.len().to_string());
        line("resolvers", coordinator.resolvers.len().to_string());
    }
    if let Some((newest, older)) = cluster.log_sets.split_last() {
        let logs: Vec<&str> =
            newest.logs.iter().map(|log| log.endpoint.address.0.as_str()).collect();
        let copies = newest.replication;
        line("logs", format!("{} (copies of each message: {copies})", logs.join(", ")));
        if let Some(oldest) = older.first() {
            let (count, begin) = (older.len(), oldest.begin_version);
            line("older logs", format!("{count} sets, needed for versions after {begin}"));
        }
    }
    text
}

/// Columns in a plain layout: it survives being pasted into a ticket, and `awk`.
fn table<const N: usize>(header: [&str; N], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for &column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn processes(status: &Status) -> String {
    let header =
        ["CLASS", "ADDRESS", "ALIVE", "HEARD", "VERSION", "DURABLE", "LAG", "BYTES", "PROCESS"];
    let mut table = table(header, &[3, 4, 5, 6, 7]);
    let mut processes: Vec<_> = status.processes.iter().collect();
    processes.sort_by_key(|process| (process.heartbeat.class, &process.heartbeat.worker.address));
    for process in processes {
        let heartbeat = &process.heartbeat;
        table.add_row([
            heartbeat.class.to_string(),
            heartbeat.worker.address.to_string(),
            String::from(if process.alive { "yes" } else { "NO" }),
            format!("{:.1} s ago", process.silent_ms as f64 / 1000.0),
            heartbeat.progress.version.to_string(),
            heartbeat.progress.durable_version.to_string(),
            lag(status, process).map_or(String::from("-"), |lag| format!("{:.1} s", seconds(lag))),
            heartbeat.progress.bytes.to_string(),
            heartbeat.process.to_string(),
        ]);
    }
    table.trim_fmt()
}

fn shards(status: &Status) -> String {
    let servers = storage_processes(status);
    let shards = &status.cluster.shards;
    let listed = shards.iter().filter(|shard| {
        shards.len() <= SHARDS_LISTED_MAX || servers_alive(shard, &servers) < shard.team.len()
    });
    let mut table = table(["BEGIN", "END", "SERVERS", "ALIVE"], &[]);
    let mut count = 0;
    for shard in listed.take(SHARDS_LISTED_MAX) {
        count += 1;
        let team: Vec<String> = shard.team.iter().map(|tag| tag.to_string()).collect();
        table.add_row([
            format!("{:?}", shard.range.begin),
            format!("{:?}", shard.range.end),
            team.join(" "),
            format!("{} of {}", servers_alive(shard, &servers), shard.team.len()),
        ]);
    }
    match shards.len() - count {
        0 => table.trim_fmt(),
        more if count == 0 => {
            format!("  {more} shards, all with their whole teams (--json lists them)")
        }
        more => format!("{}\n  and {more} more (--json lists them)", table.trim_fmt()),
    }
}
