//! A line per record: a JSON object whose strings hold the escaped key and value.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use anyhow::Context as _;
use ferrisdb_core::key::{escape, unescape};
use serde::{Deserialize, Serialize};

use super::Record;

/// A misspelt or doubled field is an error: a value that is lost silently would be worse.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

pub(super) fn write(out: &mut dyn Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    let line = Line { key: escape(key).into(), value: escape(value).into() };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

pub(super) fn parse(line: &[u8]) -> anyhow::Result<Record> {
    let line: Line<'_> =
        serde_json::from_slice(line).context(r#"expected {"key": "...", "value": "..."}"#)?;
    let key = unescape(&line.key).context("in the key")?;
    let value = unescape(&line.value).context("in the value")?;
    Ok(Record { key: key.into(), value: value.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_spaces_and_unicode_are_free() {
        let record = parse(r#" { "value" : "\u20ac\\xff\n", "key":"k" } "#.as_bytes()).unwrap();
        assert_eq!(record.key.as_slice(), b"k");
        assert_eq!(record.value.as_slice(), b"\xe2\x82\xac\xff\n");
    }

    #[test]
    fn what_could_lose_data_is_an_error() {
        for line in [
            r#"{"key":"a"}"#,
            r#"{"key":"a","value":"b","ttl":"1"}"#,
            r#"{"key":"a","key":"b","value":"c"}"#,
            r#"{"key":"a","value":5}"#,
            r#"{"key":"a","value":"\\q"}"#,
            r#"{"key":"a","value":"b"} {"key":"c","value":"d"}"#,
            r#"["a","b","c"]"#,
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
    }
}
