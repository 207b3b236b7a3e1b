//! Records out of a stream, one line in memory at a time.

use std::{
    fmt,
    io::{BufRead, Read as _},
};

use anyhow::{Context as _, anyhow};
use ferrisdb_client::Key;
use ferrisdb_core::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use super::{Format, Record};

/// Longest line that can hold a record: six characters of JSON for each of the four of `\xNN`.
/// A longer one is not read into memory.
const LINE_BYTES_MAX: usize = 24 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) + 1024;

/// Reads the records of a stream and remembers where it is.
pub(crate) struct RecordReader {
    input: Box<dyn BufRead + Send>,
    format: Format,
    prefix: Vec<u8>,
    /// Lines read so far, so that the last one read has this number.
    line: u64,
    position: u64,
    buffer: Vec<u8>,
}

/// Why the records end early, and at which line.
#[derive(Debug)]
pub(crate) struct LineError {
    /// Counted from one.
    pub(crate) line: u64,
    /// What is wrong with it.
    pub(crate) reason: anyhow::Error,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:#}", self.line, self.reason)
    }
}

impl RecordReader {
    /// Reads `input` from where it stands.
    pub(crate) fn new(input: impl BufRead + Send + 'static, format: Format) -> RecordReader {
        RecordReader {
            input: Box::new(input),
            format,
            prefix: Vec::new(),
            line: 0,
            position: 0,
            buffer: Vec::new(),
        }
    }

    /// Puts `prefix` in front of every key.
    #[must_use]
    pub(crate) fn prefix(mut self, prefix: &[u8]) -> RecordReader {
        self.prefix = prefix.to_vec();
        self
    }

    /// How many bytes of the input have been read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next record; `None` at the end.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record>, LineError> {
        loop {
            self.line += 1;
            match self.read_line() {
                Ok(true) if self.buffer.is_empty() => {}
                Ok(true) => {
                    return self.parse_line().map(Some).map_err(|reason| self.error(reason));
                }
                Ok(false) => return Ok(None),
                Err(reason) => return Err(self.error(reason)),
            }
        }
    }

    fn error(&self, reason: anyhow::Error) -> LineError {
        LineError { line: self.line, reason }
    }

    /// Reads a line into the buffer, without its end; false when there is none.
    fn read_line(&mut self) -> anyhow::Result<bool> {
        self.buffer.clear();
        let mut bounded = self.input.by_ref().take(LINE_BYTES_MAX as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.buffer).context("cannot read")?;
        self.position += read as u64;
        if self.buffer.len() > LINE_BYTES_MAX {
            return Err(anyhow!("longer than any record can be ({LINE_BYTES_MAX} bytes)"));
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        }
        Ok(read > 0)
    }

    /// The record in the buffer, checked against the limits: here the line is still known.
    fn parse_line(&self) -> anyhow::Result<Record> {
        let mut record = self.format.parse(&self.buffer)?;
        if !self.prefix.is_empty() {
            record.key = Key::from([self.prefix.as_slice(), &record.key].concat());
        }
        let (key_bytes, value_bytes) = (record.key.len(), record.value.len());
        if key_bytes > KEY_BYTES_MAX {
            return Err(anyhow!("the key has {key_bytes} bytes, allowed are {KEY_BYTES_MAX}"));
        }
        if value_bytes > VALUE_BYTES_MAX {
            return Err(anyhow!(
                "the value has {value_bytes} bytes, allowed are {VALUE_BYTES_MAX}"
            ));
        }
        if record.key >= Key::USER_END {
            return Err(anyhow!("the key {:?} is in the system keyspace", record.key));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn error_of(file: impl Into<Vec<u8>>) -> String {
        let mut reader = RecordReader::new(Cursor::new(file.into()), Format::Tsv);
        loop {
            match reader.next_record() {
                Ok(Some(_)) => {}
                Ok(None) => return String::from("none"),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn lines_end_in_either_way_and_the_last_need_not() {
        let file = "a\t1\r\n\n\r\nb\t2";
        let mut reader = RecordReader::new(Cursor::new(file), Format::Tsv).prefix(b"p/");
        let mut rows = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            rows.push(format!("{}={}", record.key, record.value));
        }
        assert_eq!(rows, ["p/a=1", "p/b=2"]);
        assert_eq!(reader.position(), file.len() as u64);
    }

    #[test]
    fn errors_name_their_line() {
        assert!(error_of("a\t1\n\nb 2\n").starts_with("line 3: expected key, tab, value"));
        assert!(
            error_of("a\t\\x5\n").starts_with("line 1: in the value: malformed escape at byte 0")
        );
        assert!(error_of("\\xff\t\n").contains("system keyspace"));
    }

    #[test]
    fn limits_are_met_where_the_line_is_known() {
        let key_max = "k".repeat(KEY_BYTES_MAX);
        assert_eq!(error_of(format!("{key_max}\t")), "none");
        assert!(error_of(format!("{key_max}k\t")).contains("10001 bytes"));
        let value_max = "v".repeat(VALUE_BYTES_MAX);
        assert_eq!(error_of(format!("k\t{value_max}")), "none");
        assert!(error_of(format!("k\t{value_max}v")).contains("100001 bytes"));
        assert!(error_of("k".repeat(LINE_BYTES_MAX + 2)).contains("longer than any record"));
    }
}
