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

/// `FDBKeySelector`: an end of a mapped range.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FdbKeySelector {
    /// The key that the search begins at.
    pub key: FdbKey,
    /// Whether the key itself counts.
    pub or_equal: c_int,
    /// How many keys further on.
    pub offset: c_int,
}

/// `FDBGetRangeReqAndResult`: a mapped range and its rows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FdbGetRange {
    /// Where the range begins.
    pub begin: FdbKeySelector,
    /// Where it ends.
    pub end: FdbKeySelector,
    /// The rows.
    pub rows: *const FdbKeyValue,
    /// How many there are.
    pub count: c_int,
    /// For how many there is room.
    pub capacity: c_int,
}

/// `FDBMappedKeyValue`: a row, and the range that was made of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FdbMappedKeyValue {
    /// The row's key.
    pub key: FdbKey,
    /// The row's value.
    pub value: FdbKey,
    /// The range.
    pub range: FdbGetRange,
    /// What C sees as bytes without a meaning.
    pub reserved: [u8; 32],
}

const _: () = assert!(size_of::<FdbKeyValue>() == 24);
const _: () = assert!(size_of::<FdbKeySelector>() == 20);
const _: () = assert!(size_of::<FdbGetRange>() == 56);
const _: () = assert!(size_of::<FdbMappedKeyValue>() == 112);
const _: () = assert!(size_of::<FdbKey>() == 12);
