//! Parsers of single values. Each says, when it refuses, what it would have taken.

use std::time::Duration;

use ferrisdb_core::{Key, id::Address, key::unescape, limits, service::controller::Redundancy};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A number of bytes: `1048576`, `1_048_576`, `1024KiB`, `1 MiB`, or decimal as `10MB`. Units in any case.
///
/// # Errors
///
/// What was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || {
        format!(
            "{text:?} is not a size: write bytes as 1048576, or 64KiB, 64MiB, 64GiB, 64TiB, 64MB"
        )
    };
    let text = text.trim();
    let unit_begin = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_begin);
    let number: u64 = digits.replace('_', "").parse().map_err(|_| expected())?;
    let unit = unit.trim();
    let (_, factor) =
        UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(expected)?;
    number.checked_mul(*factor).ok_or_else(|| format!("{text:?} is more than 64 bits can count"))
}

/// A size in the largest unit that divides it, as [`parse_bytes`] takes it.
fn show_bytes(bytes: u64) -> String {
    let binary = UNITS[2..6].iter().rev();
    let unit = binary.into_iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(&("", 1));
    format!("{}{name}", bytes / factor)
}

/// A size within bounds, both of them legal.
pub(super) fn bytes<const MIN: u64, const MAX: u64>(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if (MIN..=MAX).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("a size from {} to {} is expected", show_bytes(MIN), show_bytes(MAX)))
}

/// A duration in milliseconds within bounds, both of them legal.
pub(super) fn milliseconds<const MIN: u64, const MAX: u64>(text: &str) -> Result<Duration, String> {
    let number: Option<u64> = text.replace('_', "").parse().ok();
    number
        .filter(|number| (MIN..=MAX).contains(number))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("a number of milliseconds from {MIN} to {MAX} is expected"))
}

/// A duration in seconds within bounds, both of them legal.
pub(super) fn seconds<const MIN: u64, const MAX: u64>(text: &str) -> Result<Duration, String> {
    let number: Option<u64> = text.replace('_', "").parse().ok();
    number
        .filter(|number| (MIN..=MAX).contains(number))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("a number of seconds from {MIN} to {MAX} is expected"))
}

/// How many copies there are of everything.
pub(super) fn redundancy(text: &str) -> Result<Redundancy, String> {
    text.parse()
}

/// The name of a zone.
pub(super) fn zone(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        return Err("a name of 1 to 255 bytes is expected".to_owned());
    }
    Ok(text.to_owned())
}

/// An address with a port of at least `PORT_MIN`: only who listens may leave the port open.
pub(super) fn address<const PORT_MIN: u16>(text: &str) -> Result<Address, String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| "HOST:PORT is expected, such as 127.0.0.1:4500".to_owned())?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !bracketed {
        return Err(format!("an IPv6 address stands in brackets, such as [::1]:{port}"));
    }
    let strange = |c: char| c.is_whitespace() || c.is_control() || "/\\\"'".contains(c);
    if host.is_empty() || host.contains(strange) {
        return Err("HOST:PORT is expected, with a name or an address of a host".to_owned());
    }
    match port.parse::<u16>() {
        Ok(port) if port >= PORT_MIN => Ok(Address::new(text)),
        _ => Err(format!("the port is a number from {PORT_MIN} to 65535")),
    }
}

/// A key at which the keyspace is cut.
pub(super) fn shard_boundary(text: &str) -> Result<Key, String> {
    let key = Key::from(unescape(text).map_err(|error| error.to_string())?);
    if key.is_empty() {
        return Err("a boundary is a key of at least one byte".to_owned());
    }
    if key.len() > limits::KEY_BYTES_MAX {
        return Err(format!("a key has at most {} bytes", limits::KEY_BYTES_MAX));
    }
    if key >= Key::SYSTEM_END {
        return Err(r"a boundary is a key below \xff\xff".to_owned());
    }
    Ok(key)
}

/// A filter that the logging library takes.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("a filter is expected, such as info or warn,ferrisdb_server=debug".to_owned());
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{error}: a filter is expected, such as info or warn,ferrisdb_server=debug"
        )),
    }
}
