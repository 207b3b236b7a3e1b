//! A line per record: the escaped key, a tab, the escaped value.

use std::io::{self, Write};

use anyhow::{Context as _, bail};
use ferrisdb_core::key::escape;

use super::{Record, unescape_bytes};

pub(super) fn write(out: &mut dyn Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    writeln!(out, "{}\t{}", escape(key), escape(value))
}

pub(super) fn parse(line: &[u8]) -> anyhow::Result<Record> {
    let mut fields = line.split(|&byte| byte == b'\t');
    let (Some(key), Some(value), None) = (fields.next(), fields.next(), fields.next()) else {
        let tabs = line.iter().filter(|&&byte| byte == b'\t').count();
        bail!("expected key, tab, value, but there are {tabs} tabs (a tab inside is written \\t)");
    };
    let key = unescape_bytes(key).context("in the key")?;
    let value = unescape_bytes(value).context("in the value")?;
    Ok(Record { key: key.into(), value: value.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        let record = parse(b"a\\tb\tline\\nend \xe2\x82\xac \xff").unwrap();
        assert_eq!(record.key.as_slice(), b"a\tb");
        assert_eq!(record.value.as_slice(), b"line\nend \xe2\x82\xac \xff");
        assert_eq!(parse(b"\t").unwrap(), Record { key: "".into(), value: "".into() });
    }

    #[test]
    fn a_line_is_exactly_one_record() {
        for line in [&b"key"[..], b"a\tb\tc", b"a\t\\x1", b"\\q\tb"] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
