//! The status for people.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use ferrisdb_client::Address;
use ferrisdb_core::{Tag, service::controller::Phase};

use super::{
    facts::{Availability, Facts, plural, seconds, spoken},
    findings::{Finding, Severity},
    tolerance::{Loss, controllers_to_spare, tolerance},
};

/// Shards and repairs that are listed one by one; of more, only the number and the ones in danger are told.
const LISTED_MAX: usize = 20;

/// The whole report.
pub(crate) fn report(facts: &Facts<'_>, findings: &[Finding]) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{}\n", verdict(facts, findings));
    for finding in findings {
        let mark = if finding.severity == Severity::Advice { '~' } else { '!' };
        let _ = writeln!(text, "  {mark} {}\n    do: {}", finding.what, finding.todo);
    }
    if !findings.is_empty() {
        text.push('\n');
    }
    text.push_str(&cluster(facts));
    let mut section = |name: &str, body: String| {
        if !body.is_empty() {
            let _ = writeln!(text, "\n{name}\n{body}");
        }
    };
    section("Repairs", repairs(facts));
    section("Excluded", excluded(facts));
    section("Processes", processes(facts));
    section("Storage", storage(facts));
    section("Shards", shards(facts));
    text
}

fn verdict(facts: &Facts<'_>, findings: &[Finding]) -> String {
    let all = facts.shards().len();
    match (facts.availability(), findings.first().map(|worst| worst.severity)) {
        (Availability { is_active: false, .. }, _) => {
            String::from("DOWN: neither reads nor writes work.")
        }
        (Availability { shards_unreadable: 0, .. }, Some(Severity::Unknown)) => String::from(
            "NOT KNOWN YET: the controller has just begun to lead, and has not heard of everybody.",
        ),
        (Availability { shards_unreadable: 0, .. }, None | Some(Severity::Advice)) => {
            String::from("OK: reads and writes work, and everything that is needed is alive.")
        }
        (Availability { shards_unreadable: 0, .. }, Some(_)) => {
            String::from("DEGRADED: reads and writes work, but it needs attention.")
        }
        (Availability { shards_unreadable, .. }, _) => format!(
            "DOWN: writes work, and reads but for those of {shards_unreadable} of {all} shards."
        ),
    }
}

fn cluster(facts: &Facts<'_>) -> String {
    let status = facts.status;
    let cluster = &status.cluster;
    let phase = match &cluster.phase {
        Phase::Active => String::from("active"),
        Phase::Waiting { reason } => format!("waiting: {reason}"),
        Phase::Recovering { step } => format!("recovering: {step}"),
    };
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<13} {value}");
    };
    line("cluster", cluster.cluster_id.to_string());
    line("controllers", controllers(facts));
    if let Some(configuration) = &cluster.configuration {
        let zones = facts.zones();
        line(
            "redundancy",
            format!(
                "{} ({} of everything, in {} of {} zones: {})",
                configuration.redundancy,
                plural(facts.copies(), "copy", "copies"),
                facts.copies(),
                zones.len(),
                zones.join(", ")
            ),
        );
    }
    let tolerance = tolerance(facts);
    let (data, availability) = (&tolerance.data, &tolerance.availability);
    line("can be lost", format!("{} without losing data{}", zones(data), why(facts, data)));
    let why = why(facts, availability);
    line("", format!("{} without losing availability{why}", zones(availability)));
    line("generation", format!("{}, {phase}", cluster.generation));
    let since = "since the controller leads";
    line("recoveries", format!("{} {since}", status.recoveries));
    if let Some(last) = &status.last_recovery {
        let (generation, ms, reason) = (last.generation, last.duration_ms, &last.reason);
        let attempts = plural(last.attempts as usize, "attempt", "attempts");
        line("last recovery", format!("to {generation}, took {ms} ms ({attempts}): {reason}"));
    }
    if let Some(coordinator) = &cluster.coordinator {
        line("sequencer", coordinator.sequencer.address.to_string());
        let proxies = coordinator.proxies.iter().map(|proxy| &proxy.address);
        line("proxies", addresses(proxies));
        line("resolvers", addresses(coordinator.resolvers.iter().map(|(_, r)| &r.address)));
    }
    if let Some((newest, older)) = cluster.log_sets.split_last() {
        let logs = addresses(newest.logs.iter().map(|log| &log.endpoint.address));
        line("logs", format!("{logs} (copies of each message: {})", newest.replication));
        if let Some(oldest) = older.first() {
            let (count, begin) = (older.len(), oldest.begin_version);
            line("older logs", format!("{count} sets, needed for versions after {begin}"));
        }
    }
    text
}

fn zones(loss: &Loss) -> String {
    match loss.zones {
        None | Some(0) => String::from("no zone"),
        Some(zones) => plural(zones, "zone", "zones"),
    }
}

/// What is the matter, if less may be lost than the redundancy seems to promise.
fn why(facts: &Facts<'_>, loss: &Loss) -> String {
    match loss.zones.is_some_and(|zones| zones + 1 >= facts.copies()) {
        true => String::new(),
        false => format!(" ({})", loss.limited_by.join("; ")),
    }
}

fn addresses<'a>(addresses: impl Iterator<Item = &'a Address>) -> String {
    addresses.map(|address| address.0.as_str()).collect::<Vec<_>>().join(", ")
}

fn controllers(facts: &Facts<'_>) -> String {
    let status = facts.status;
    let is_silent =
        |address: &Address| status.silent_controllers.iter().any(|(silent, _)| silent == address);
    let mut all: Vec<&Address> = status.cluster.controllers.iter().map(|m| &m.address).collect();
    if all.is_empty() {
        all.push(&status.controller);
    }
    all.sort_unstable();
    let shown = all.into_iter().map(|address| match *address == status.controller {
        true => format!("{address} (leads)"),
        false if is_silent(address) => format!("{address} (SILENT)"),
        false => address.to_string(),
    });
    let spare = controllers_to_spare(facts);
    format!("{}; {spare} may be lost", shown.collect::<Vec<_>>().join(", "))
}

/// Columns in a plain layout: it survives being pasted into a ticket, and `awk`.
pub(crate) fn table<const N: usize>(header: [&str; N], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for &column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn repairs(facts: &Facts<'_>) -> String {
    let repairs = &facts.status.repairs;
    let mut lines: Vec<String> =
        repairs.iter().take(LISTED_MAX).map(|repair| format!("  {repair}")).collect();
    if repairs.len() > lines.len() {
        lines.push(format!("  and {} more (--json lists them)", repairs.len() - lines.len()));
    }
    lines.join("\n")
}

fn excluded(facts: &Facts<'_>) -> String {
    let line = |excluded: super::facts::Excluded| {
        let state = match excluded.uses.is_empty() {
            true => String::from("drained, it can be stopped"),
            false => format!("still has {}", excluded.uses.join(", ")),
        };
        format!("  {} ({}): {state}", excluded.name, excluded.selector)
    };
    facts.excluded().into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn processes(facts: &Facts<'_>) -> String {
    let header = [
        "CLASS", "ADDRESS", "ZONE", "ALIVE", "HEARD", "VERSION", "DURABLE", "LAG", "BYTES",
        "PROCESS",
    ];
    let mut table = table(header, &[4, 5, 6, 7, 8]);
    let mut processes: Vec<_> = facts.status.processes.iter().collect();
    processes.sort_by_key(|process| (process.heartbeat.class, &process.heartbeat.worker.address));
    for process in processes {
        let heartbeat = &process.heartbeat;
        let lag = facts.lag(process);
        table.add_row([
            heartbeat.class.to_string(),
            heartbeat.worker.address.to_string(),
            heartbeat.zone.clone(),
            String::from(if process.alive { "yes" } else { "NO" }),
            format!("{} ago", spoken(process.silent_ms)),
            heartbeat.progress.version.to_string(),
            heartbeat.progress.durable_version.to_string(),
            lag.map_or(String::from("-"), |lag| format!("{:.1} s", seconds(lag))),
            heartbeat.progress.bytes.to_string(),
            heartbeat.process.to_string(),
        ]);
    }
    table.trim_fmt()
}

fn storage(facts: &Facts<'_>) -> String {
    let servers = &facts.status.cluster.storage_servers;
    if servers.is_empty() {
        return String::new();
    }
    let header = ["TAG", "ADDRESS", "ZONE", "ALIVE", "SHARDS", "JOINING", "COPYING", "COPIED"];
    let mut table = table(header, &[0, 4, 5, 6, 7]);
    for server in servers {
        let count = |tags: fn(&ferrisdb_core::Teams) -> &[Tag]| {
            let shards = facts.shards().iter();
            shards.filter(|shard| tags(&shard.teams).contains(&server.tag)).count().to_string()
        };
        let process = facts.process(server.process);
        let report = process.and_then(|process| process.heartbeat.storage.as_ref());
        // What it says of another tag's data is about another life.
        let report = report.filter(|report| report.tag == Some(server.tag));
        let alive = facts.is_alive(server.process);
        table.add_row([
            server.tag.to_string(),
            server.endpoint.address.to_string(),
            server.zone.clone(),
            String::from(if alive { "yes" } else { "NO" }),
            count(|teams| &teams.team),
            count(|teams| &teams.joining),
            report.map_or(String::from("-"), |report| report.copying.len().to_string()),
            report.map_or(String::from("-"), |report| report.copied_bytes.to_string()),
        ]);
    }
    table.trim_fmt()
}

fn shards(facts: &Facts<'_>) -> String {
    let shards = facts.shards();
    let listed = shards.iter().filter(|shard| {
        let is_whole = facts.members_alive(shard) == facts.members_wanted(shard);
        shards.len() <= LISTED_MAX || !is_whole || !shard.teams.joining.is_empty()
    });
    let mut table = table(["BEGIN", "END", "SERVERS", "JOINING", "ALIVE"], &[]);
    let mut count = 0;
    let tags = |tags: &[Tag]| tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    for shard in listed.take(LISTED_MAX) {
        count += 1;
        let (alive, wanted) = (facts.members_alive(shard), facts.members_wanted(shard));
        table.add_row([
            format!("{:?}", shard.range.begin),
            format!("{:?}", shard.range.end),
            tags(&shard.teams.team),
            tags(&shard.teams.joining),
            format!("{alive} of {wanted}"),
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
