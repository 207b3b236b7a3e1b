//! Writes: they cannot fail, so the first error is kept for the futures that follow.

use ferrisdb_client::{AtomicOp, ErrorCode, KeyRange, Transaction as Client};
use ferrisdb_core::{limits, transaction::METADATA_VERSION_KEY};

use super::{Transaction, long_keys::shortened_bound};
use crate::{
    errors::{self, Code},
    promise::Promise,
    special::{self, Tracing},
};

/// The value that sets the version of the metadata: the gap for the stamp, and the stamp's offset.
const METADATA_VERSION_VALUE: [u8; 14] = [0; 14];

const SET_VERSIONSTAMPED_KEY: i32 = 14;
const SET_VERSIONSTAMPED_VALUE: i32 = 15;

/// Writes.
impl<P: Promise> Transaction<P> {
    /// Sets a key.
    pub fn set(&self, key: &[u8], value: &[u8]) {
        if special::is_special(key) {
            return self.change_special(|tracing, is_first| tracing.set(key, value, is_first));
        }
        if key == METADATA_VERSION_KEY {
            return self.defer(errors::CLIENT_INVALID_OPERATION);
        }
        if self.change(|client| client.set(key, value)) {
            self.state.lock().written.set(key, value, false);
        }
    }

    /// Clears a key.
    pub fn clear(&self, key: &[u8]) {
        if special::is_special(key) {
            return self.change_special(|_, _| special::clear(&KeyRange::single(&key.into())));
        }
        if key == METADATA_VERSION_KEY {
            return self.defer(errors::CLIENT_INVALID_OPERATION);
        }
        // Nobody can have written a longer one.
        if key.len() <= limits::KEY_BYTES_MAX && self.change(|client| client.clear(key)) {
            self.state.lock().written.clear(key);
        }
    }

    /// Clears a range.
    pub fn clear_range(&self, begin: &[u8], end: &[u8]) {
        if special::is_special(begin) {
            let range = KeyRange::new(begin, end);
            return self.change_special(|_, _| special::clear(&range));
        }
        let range = KeyRange { begin: shortened_bound(begin), end: shortened_bound(end) };
        if self.change(|client| client.clear_range(range)) {
            self.state.lock().written.clear_range(begin, end);
        }
    }

    /// An atomic operation.
    pub fn atomic_op(&self, key: &[u8], parameter: &[u8], operation: i32) {
        if key == METADATA_VERSION_KEY {
            let is_stamp =
                operation == SET_VERSIONSTAMPED_VALUE && *parameter == METADATA_VERSION_VALUE;
            if !is_stamp {
                return self.defer(errors::CLIENT_INVALID_OPERATION);
            }
        }
        let is_taken = match operation {
            SET_VERSIONSTAMPED_KEY => match split_offset(key) {
                Some((key, offset)) => {
                    self.change(|client| client.set_versionstamped_key(key, offset, parameter))
                }
                None => return self.defer(errors::CLIENT_INVALID_OPERATION),
            },
            SET_VERSIONSTAMPED_VALUE => match split_offset(parameter) {
                Some((value, offset)) => {
                    self.change(|client| client.set_versionstamped_value(key, value, offset))
                }
                None => return self.defer(errors::CLIENT_INVALID_OPERATION),
            },
            _ => match atomic_operation(operation) {
                Some(operation) => self.change(|client| client.atomic(operation, key, parameter)),
                None => return self.defer(errors::INVALID_MUTATION_TYPE),
            },
        };
        if is_taken {
            let is_key_stamped = operation == SET_VERSIONSTAMPED_KEY;
            self.state.lock().written.set(key, parameter, is_key_stamped);
        }
    }
}

/// How they work.
impl<P: Promise> Transaction<P> {
    /// Changes the client's transaction, and says whether that was done; an error is kept.
    pub(super) fn change(
        &self,
        change: impl FnOnce(&Client) -> ferrisdb_client::Result<()>,
    ) -> bool {
        let code = match &self.client {
            Ok(client) => match change(client) {
                Ok(()) => return true,
                Err(error) if error.code() == ErrorCode::InvalidMutation => {
                    errors::CLIENT_INVALID_OPERATION
                }
                Err(error) => errors::number_of(&error),
            },
            Err(code) => *code,
        };
        if code == errors::USED_DURING_COMMIT {
            self.note_misuse();
        }
        self.defer(code);
        false
    }

    /// Changes a special key; tells the change whether nothing was read or written before.
    fn change_special(&self, change: impl FnOnce(&mut Tracing, bool) -> Result<(), Code>) {
        let has_read = |client: &Client| client.read_conflicts_size().0 > 0;
        let has_read = self.client.as_ref().is_ok_and(has_read);
        let mut state = self.state.lock();
        let is_first = state.written.is_empty() && !has_read;
        let changed = match state.may_write_special_keys {
            true => change(state.tracing(), is_first),
            false => Err(errors::SPECIAL_KEYS_WRITE_DISABLED),
        };
        drop(state);
        if let Err(code) = changed {
            self.defer(code);
        }
    }
}

/// The operation of a number. 18 and 19 are how FoundationDB itself names two of them.
fn atomic_operation(number: i32) -> Option<AtomicOp> {
    match number {
        18 => Some(AtomicOp::Min),
        19 => Some(AtomicOp::And),
        _ => AtomicOp::from_number(u8::try_from(number).ok()?),
    }
}

/// What comes before the offset of a versionstamp, and the offset: four bytes at the end, the lowest first.
fn split_offset(bytes: &[u8]) -> Option<(&[u8], u32)> {
    let (rest, offset) = bytes.split_last_chunk()?;
    let offset = u32::from_le_bytes(*offset);
    let end = usize::try_from(offset).ok()?.checked_add(ferrisdb_client::Versionstamp::LEN)?;
    (end <= rest.len()).then_some((rest, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_inside_or_refused() {
        let with =
            |length: usize, offset: u32| [&vec![0; length][..], &offset.to_le_bytes()].concat();
        assert_eq!(split_offset(&with(10, 0)), Some((&[0; 10][..], 0)));
        assert_eq!(split_offset(&with(10, 1)), None);
        assert_eq!(split_offset(&with(12, u32::MAX)), None);
        assert_eq!(split_offset(b"abc"), None);
    }

    #[test]
    fn operations_have_numbers() {
        assert_eq!(atomic_operation(2), Some(AtomicOp::Add));
        assert_eq!(atomic_operation(19), Some(AtomicOp::And));
        for unknown in [-1, 0, 1, 3, 5, 10, 21, 256 + 2] {
            assert_eq!(atomic_operation(unknown), None, "{unknown}");
        }
    }
}
