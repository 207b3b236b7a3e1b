//! How records stand in files: what `export` writes, `import` reads back byte for byte.
//!
//! ```text
//!   record            key "user/7", value "tab\there \xff"
//!   tsv      a line   user/7<TAB>tab\x09here \xff
//!   jsonl    a line   {"key":"user/7","value":"tab\\x09here \\xff"}
//! ```
//!
//! Both hold keys and values in the escaped form of [`ferrisdb_core::key::escape`]: printable ASCII as it is,
//! a backslash doubled, every other byte as `\xNN`. JSON strings hold that same text (and JSON escapes the
//! backslash once more), because a JSON string by itself can only hold Unicode, which keys need not be.
//! Neither tab nor line end occurs inside an escaped field, so a line is always exactly one record.
//!
//! Reading is more generous than writing: `\t`, `\n`, `\r`, `\0`, UTF-8 text and (in tsv) even stray bytes
//! that are not UTF-8 are taken as what they plainly mean. Lines end with `\n` or `\r\n`; empty ones are
//! skipped. Everything else is an error with its line number.
//!
//! Start with [`Format`], then [`RecordReader`].

mod jsonl;
mod reader;
mod tsv;

use std::{
    io::{self, Write},
    path::Path,
};

use ferrisdb_client::{Key, Value};
use ferrisdb_core::key::{UnescapeError, unescape};

pub(crate) use reader::{LineError, RecordReader};

/// A row of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Key,
    pub(crate) value: Value,
}

/// One of the two ways to write records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// `key<TAB>value`, both escaped
    Tsv,
    /// {"key": "...", "value": "..."}, both escaped
    Jsonl,
}

impl Format {
    /// The format that a file's name asks for: JSON lines for `.jsonl`, `.ndjson` and `.json`, otherwise tsv.
    pub(crate) fn of_path(path: &Path) -> Format {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "ndjson" | "json") => Format::Jsonl,
            _ => Format::Tsv,
        }
    }

    /// Writes one record as one line.
    pub(crate) fn write(self, out: &mut dyn Write, key: &[u8], value: &[u8]) -> io::Result<()> {
        match self {
            Format::Tsv => tsv::write(out, key, value),
            Format::Jsonl => jsonl::write(out, key, value),
        }
    }

    /// Reads the record of a line that has lost its line end.
    fn parse(self, line: &[u8]) -> anyhow::Result<Record> {
        match self {
            Format::Tsv => tsv::parse(line),
            Format::Jsonl => jsonl::parse(line),
        }
    }
}

/// [`unescape`] for text that need not be UTF-8: bytes that are not stand for themselves.
fn unescape_bytes(text: &[u8]) -> Result<Vec<u8>, UnescapeError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut offset = 0;
    for chunk in text.utf8_chunks() {
        let valid = unescape(chunk.valid())
            .map_err(|error| UnescapeError { offset: offset + error.offset })?;
        bytes.extend_from_slice(&valid);
        bytes.extend_from_slice(chunk.invalid());
        offset += chunk.valid().len() + chunk.invalid().len();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes with more of what is hard: separators, escapes, line ends.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let hard = prop::sample::select(b"\t\n\r\\\"'x0{}\x00\xff\xc3".to_vec());
        prop::collection::vec(prop_oneof![hard, any::<u8>()], 0..40)
    }

    fn round_trip(format: Format, rows: &[(Vec<u8>, Vec<u8>)]) {
        let mut file = Vec::new();
        for (key, value) in rows {
            format.write(&mut file, key, value).unwrap();
        }
        // The prefix keeps keys out of the system keyspace, which the reader refuses.
        let mut reader = RecordReader::new(io::Cursor::new(file.clone()), format).prefix(b"k");
        for (key, value) in rows {
            let record = reader.next_record().unwrap().unwrap();
            assert_eq!((&record.key[1..], record.value.as_slice()), (&key[..], &value[..]));
        }
        assert_eq!(reader.next_record().unwrap(), None);
        assert_eq!(reader.position(), file.len() as u64);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn what_is_written_is_read_back(rows in prop::collection::vec((bytes(), bytes()), 0..8)) {
            round_trip(Format::Tsv, &rows);
            round_trip(Format::Jsonl, &rows);
        }

        #[test]
        fn garbage_is_an_error_and_not_a_panic(line in bytes()) {
            let _ = Format::Tsv.parse(&line);
            let _ = Format::Jsonl.parse(&line);
        }

        #[test]
        fn bytes_without_a_backslash_stand_for_themselves(line in bytes()) {
            let line: Vec<u8> = line.into_iter().filter(|&byte| byte != b'\\').collect();
            prop_assert_eq!(unescape_bytes(&line).unwrap(), line);
        }
    }

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        for format in [Format::Tsv, Format::Jsonl] {
            round_trip(format, &[(all.clone(), all.clone()), (vec![], vec![]), (vec![0], vec![])]);
        }
    }

    #[test]
    fn golden_lines() {
        let mut file = Vec::new();
        Format::Tsv.write(&mut file, b"user/7", b"a\tb\\\"\xff").unwrap();
        Format::Jsonl.write(&mut file, b"user/7", b"a\tb\\\"\xff").unwrap();
        let expected = concat!(
            r#"user/7	a\x09b\\"\xff"#,
            "\n",
            r#"{"key":"user/7","value":"a\\x09b\\\\\"\\xff"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(file).unwrap(), expected);
    }

    #[test]
    fn an_error_offset_counts_the_bytes_that_are_not_utf8() {
        assert_eq!(unescape_bytes(b"ab\xff\\q").unwrap_err().offset, 3);
        assert_eq!(unescape_bytes(b"ab\\\xff").unwrap_err().offset, 2);
    }

    #[test]
    fn the_format_follows_the_name() {
        assert_eq!(Format::of_path(Path::new("dump.jsonl")), Format::Jsonl);
        assert_eq!(Format::of_path(Path::new("dump.tsv")), Format::Tsv);
        assert_eq!(Format::of_path(Path::new("-")), Format::Tsv);
    }
}
