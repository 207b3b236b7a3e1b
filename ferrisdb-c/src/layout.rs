//! Structures that C sees, byte for byte. Pointers in arrays of them need not be aligned: the headers pack them to four bytes.

use std::ffi::c_int;

/// `FDBKeyValue`: a row of a range read.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug)]
pub struct FdbKeyValue {
    /// The key's bytes.
    pub key: *const u8,
    /// How many there are.
    pub key_length: c_int,
    /// The value's bytes.
    pub value: *const u8,
    /// How many there are.
    pub value_length: c_int,
}

/// `FDBKey`: a key of an array.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug)]
pub struct FdbKey {
    /// The bytes.
    pub key: *const u8,
    /// How many there are.
    pub key_length: c_int,
}

const _: () = assert!(size_of::<FdbKeyValue>() == 24);
const _: () = assert!(size_of::<FdbKey>() == 12);
