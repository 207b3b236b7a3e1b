//! `check`: whether all replicas of the data are the same.

use std::{fmt::Write as _, time::Duration};

use anyhow::Result;
use ferrisdb_client::{ConsistencyReport, Difference, ReplicaRow, Unchecked};
use ferrisdb_core::{key::escape, runtime};
use serde_json::{Value, json};

use crate::{
    output::{Failure, Output, OutputFormat},
    progress,
    session::Session,
};

/// What `--help` says.
pub(super) const HELP: &str = "\
Reads all data, the system keyspace included, from every storage server that holds it, and compares it byte for byte. \
The database can be used meanwhile: each part is read from all its servers at one version.

The exit code is 1 if anything differs, or could not be read from all of its servers.";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// A value is shown up to so many characters of its escaped form.
const VALUE_SHOWN_MAX: usize = 60;

pub(crate) async fn run(session: &Session, _: &Args, output: &mut Output<'_>) -> Result<()> {
    let began = runtime::now();
    let bar = progress::of_shards();
    let checked = session.database().check_consistency(|so_far| {
        bar.set_length(so_far.shards_total);
        bar.set_position(so_far.shards);
        let (rows, differences) = (so_far.rows, so_far.differences);
        let mb = so_far.bytes as f64 / 1e6;
        bar.set_message(format!("{rows} rows, {mb:.1} MB, {differences} differences"));
    });
    let checked = checked.await;
    bar.finish_and_clear();
    let report = checked?;
    match output.format {
        OutputFormat::Json => output.json(&object(&report))?,
        OutputFormat::Text => {
            let elapsed = runtime::now().saturating_duration_since(began);
            output.data.write_all(text(&report, elapsed).as_bytes())?;
        }
    }
    if report.total.differences > 0 {
        return Err(Failure::new(
            format!("{} keys differ between their replicas", report.total.differences),
            "keep the disks as they are and find out which replica is right; exclude the server that is wrong, and \
             its data is copied from the others",
        )
        .into());
    }
    if !report.unchecked.is_empty() {
        return Err(Failure::new(
            "not everything could be compared",
            "status shows which servers are not well; check again when they are",
        )
        .into());
    }
    Ok(())
}

fn text(report: &ConsistencyReport, elapsed: Duration) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    for difference in &report.differences {
        let _ =
            writeln!(text, "! {} differs at version {}", difference.key, difference.read_version);
        for row in &difference.rows {
            let _ = writeln!(text, "    {}: {}", row.replica, shown(row));
        }
    }
    let told = report.differences.len() as u64;
    if report.total.differences > told {
        let _ = writeln!(text, "! and {} more keys differ", report.total.differences - told);
    }
    for Unchecked { replica, range, reason } in &report.unchecked {
        let _ = writeln!(text, "? {range:?} was not read from {replica}: {reason}");
    }
    let (total, replicas) = (&report.total, report.replicas);
    let summary = progress::summary(total.rows, elapsed).replace("records", "rows");
    let _ = writeln!(
        text,
        "compared {replicas} replicas of {} shards, {} bytes, {summary}: {}",
        total.shards,
        total.bytes,
        match (total.differences, report.unchecked.is_empty()) {
            (0, true) => String::from("no differences"),
            (0, false) => String::from("no differences in what was read"),
            (count, _) => format!("{count} DIFFERENCES"),
        }
    );
    text
}

fn shown(row: &ReplicaRow) -> String {
    let Some((value, commit_version)) = &row.value else { return String::from("not set") };
    let value_text = escape(value);
    let bytes = value.len();
    match value_text.len() > VALUE_SHOWN_MAX {
        // The escaped form is ASCII, so any place is a place to cut.
        true => format!(
            "{}... ({bytes} bytes), written at {commit_version}",
            &value_text[..VALUE_SHOWN_MAX]
        ),
        false => format!("'{value_text}', written at {commit_version}"),
    }
}

fn object(report: &ConsistencyReport) -> Value {
    let row = |row: &ReplicaRow| {
        json!({
            "storage": row.replica.tag.0,
            "address": row.replica.address.as_ref().map(ToString::to_string),
            "value": row.value.as_ref().map(|(value, _)| escape(value)),
            "commit_version": row.value.as_ref().map(|(_, version)| version.0),
        })
    };
    let difference = |difference: &Difference| {
        json!({
            "key": escape(&difference.key),
            "read_version": difference.read_version.0,
            "replicas": difference.rows.iter().map(row).collect::<Vec<_>>(),
        })
    };
    let unchecked = |unchecked: &Unchecked| {
        json!({
            "storage": unchecked.replica.tag.0,
            "address": unchecked.replica.address.as_ref().map(ToString::to_string),
            "range": {
                "begin": escape(&unchecked.range.begin),
                "end": escape(&unchecked.range.end),
            },
            "reason": unchecked.reason,
        })
    };
    json!({
        "consistent": report.is_clean(),
        "shards": report.total.shards,
        "replicas": report.replicas,
        "rows": report.total.rows,
        "bytes": report.total.bytes,
        "differences_total": report.total.differences,
        "differences": report.differences.iter().map(difference).collect::<Vec<_>>(),
        "unchecked": report.unchecked.iter().map(unchecked).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::{Address, ConsistencyProgress, KeyRange, Replica, Version};
    use ferrisdb_core::Tag;

    use super::*;

    #[test]
    fn differences_say_who_has_what() {
        let replica = |tag| Replica { tag: Tag(tag), address: Some(Address::new("s:1")) };
        let report = ConsistencyReport {
            total: ConsistencyProgress { shards: 1, rows: 3, differences: 2, ..Default::default() },
            replicas: 2,
            differences: vec![Difference {
                key: "k\x00".into(),
                read_version: Version(50),
                rows: vec![
                    ReplicaRow {
                        replica: replica(0),
                        value: Some((vec![0xff; 100].into(), Version(40))),
                    },
                    ReplicaRow { replica: replica(1), value: None },
                ],
            }],
            unchecked: vec![Unchecked {
                replica: replica(2),
                range: KeyRange::new("a", "b"),
                reason: "refused".to_owned(),
            }],
        };
        let text = text(&report, Duration::from_secs(1));
        for shown in [
            r"! k\x00 differs at version 50",
            "(100 bytes), written at 40",
            "storage 1 at s:1: not set",
            "and 1 more keys differ",
            "'a'..'b' was not read from storage 2 at s:1: refused",
            "2 DIFFERENCES",
        ] {
            assert!(text.contains(shown), "{shown} is missing in:\n{text}");
        }
        let object = object(&report);
        assert_eq!(object["consistent"], false);
        assert_eq!(object["differences"][0]["replicas"][1]["value"], Value::Null);
    }
}
