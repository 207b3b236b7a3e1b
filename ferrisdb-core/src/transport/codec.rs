//! The wire encoding: bincode 1.3 with variable-length integers, bounded on both sides.
//!
//! This module is the only one that names bincode, so that it can be exchanged in one place.

use std::{cell::Cell, io, panic, pin::Pin};

use bincode::Options;
use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits;

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(limits::FRAME_BYTES_MAX as u64)
}

/// Encodes a message.
///
/// # Errors
///
/// If the encoding is longer than [`limits::FRAME_BYTES_MAX`].
pub fn encode<T: Serialize + ?Sized>(message: &T) -> io::Result<Bytes> {
    options().serialize(message).map(Bytes::from).map_err(invalid)
}

/// Decodes a message.
///
/// # Errors
///
/// If the bytes are not the encoding of a `T`, with nothing left over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    options().deserialize(bytes).map_err(invalid)
}

fn invalid(error: bincode::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is decoding what a peer sent: a panic now is the peer's fault, and is caught.
pub fn is_decoding() -> bool {
    DECODING.get()
}

/// [`encode`] and [`decode`] as the codec of a tarpc transport.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bincode;

impl<T: Serialize> tokio_serde::Serializer<T> for Bincode {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, message: &T) -> io::Result<Bytes> {
        encode(message)
    }
}

impl<T: DeserializeOwned> tokio_serde::Deserializer<T> for Bincode {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<T> {
        // tarpc adds the deadline that a peer sent to the present time without a check, which panics
        // when a hostile one is beyond what the clock can hold.
        DECODING.set(true);
        let decoded = panic::catch_unwind(|| decode(bytes));
        DECODING.set(false);
        decoded.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a field of the message is out of range",
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{key::Key, transaction::CommitRequest};

    proptest! {
        #[test]
        fn garbage_is_an_error_and_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<CommitRequest>(&bytes);
            let _ = decode::<Vec<Vec<Key>>>(&bytes);
        }
    }

    #[test]
    fn a_length_beyond_the_frame_allocates_nothing() {
        // A varint of eight bytes claims 2^60 elements.
        let claim = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10];
        assert!(decode::<Vec<u64>>(&claim).is_err());
        assert!(decode::<Key>(&claim).is_err());
    }
}
