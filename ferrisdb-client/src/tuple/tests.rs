//! Types, limits and errors. The encoding itself is compared with FoundationDB's in `tests/tuple_vectors.rs`.

use std::{borrow::Cow, fmt::Debug};

use ferrisdb_core::{ErrorCode, Key, Value, Version};
use proptest::prelude::*;

use super::*;
use crate::retry::AsError as _;

fn round_trip<T: TuplePack + TupleUnpack + PartialEq + Debug>(value: T, expected: &[u8]) {
    let packed = pack(&value).unwrap();
    assert_eq!(packed, expected, "{value:?}");
    assert_eq!(unpack::<T>(&packed).unwrap(), value);
    // As an element of a tuple, between others.
    let packed = pack(&("a", &value, 7)).unwrap();
    let (before, found, after): (String, T, u8) = unpack(&packed).unwrap();
    assert_eq!((before.as_str(), found, after), ("a", value, 7));
}

#[test]
fn the_examples_of_the_specification() {
    round_trip(b"foo\x00bar".to_vec(), b"\x01foo\x00\xffbar\x00");
    round_trip("F\u{d4}O\0bar".to_string(), b"\x02F\xc3\x94O\x00\xffbar\x00");
    round_trip(
        ((b"foo\x00bar".to_vec(), None::<u8>, ()),),
        b"\x05\x01foo\x00\xffbar\x00\x00\xff\x05\x00\x00",
    );
    round_trip(-5_551_212, b"\x11\xabK\x93");
    round_trip(-42f32, b"\x20\x3d\xd7\xff\xff");
}

#[test]
fn integers_of_all_types_share_one_encoding() {
    round_trip(0u8, b"\x14");
    round_trip(255u8, b"\x15\xff");
    round_trip(-1i8, b"\x13\xfe");
    round_trip(256u16, b"\x16\x01\x00");
    round_trip(-256i16, b"\x12\xfe\xff");
    round_trip(i32::MIN, b"\x10\x7f\xff\xff\xff");
    round_trip(u32::MAX, b"\x18\xff\xff\xff\xff");
    round_trip(i64::MIN, b"\x0c\x7f\xff\xff\xff\xff\xff\xff\xff");
    round_trip(u64::MAX, b"\x1c\xff\xff\xff\xff\xff\xff\xff\xff");
    round_trip(usize::MAX, b"\x1c\xff\xff\xff\xff\xff\xff\xff\xff");
    round_trip(isize::MIN, b"\x0c\x7f\xff\xff\xff\xff\xff\xff\xff");
    round_trip(u128::from(u64::MAX) + 1, b"\x1d\x09\x01\0\0\0\0\0\0\0\0");
    round_trip(i128::MIN, &[&[0x0b, !16, 0x7f][..], &[0xff; 15]].concat());
    round_trip(u128::MAX, &[&[0x1d, 16][..], &[0xff; 16]].concat());
    round_trip(BigInt::positive(&[0xab; 255]).unwrap(), &[&[0x1d, 255][..], &[0xab; 255]].concat());
    round_trip(BigInt::negative(&[0xab; 255]).unwrap(), &[&[0x0b, 0][..], &[0x54; 255]].concat());
    round_trip(BigInt::from(-7), b"\x13\xf8");
    let too_long = TupleError::IntegerTooLong { bytes: 256 };
    assert_eq!(BigInt::positive(&[1; 256]), Err(too_long));
}

#[test]
fn every_type_has_its_element() {
    round_trip(true, b"\x27");
    round_trip(false, b"\x26");
    round_trip(1.5f64, b"\x21\xbf\xf8\0\0\0\0\0\0");
    round_trip(Uuid([7; 16]), &[&[0x30][..], &[7; 16]].concat());
    let stamp = crate::Versionstamp { commit_version: Version(1), batch_index: 2 };
    round_trip(Versionstamp::complete(stamp, 3), b"\x33\0\0\0\0\0\0\0\x01\0\x02\0\x03");
    round_trip(Key::from("k"), b"\x01k\0");
    round_trip(Value::from("v"), b"\x01v\0");
    round_trip(bytes::Bytes::from_static(b"b"), b"\x01b\0");
    round_trip([1u8, 2], b"\x01\x01\x02\0");
    round_trip(vec![1u16, 2], b"\x15\x01\x15\x02");
    round_trip([Some(true), None], b"\x27\0");
    round_trip(Some(5), b"\x15\x05");
    round_trip(None::<u8>, b"\0");
    round_trip(Box::new(5), b"\x15\x05");
    round_trip((), b"");
    round_trip(vec![()], b"\x05\0");
    round_trip(Element::Null, b"\0");
    round_trip(crate::tuple::tuple![1, None::<u8>, "a"], b"\x15\x01\0\x02a\0");
    assert_eq!(pack(&(Cow::Borrowed("a"), "a".to_string())), pack(&("a", "a")));
    let twelve = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    assert_eq!(
        unpack::<[u8; 0]>(&pack(&twelve).unwrap()).unwrap_err().to_string(),
        "at byte 0 there is an integer instead of a byte string"
    );
    assert_eq!(unpack::<Vec<u16>>(&pack(&twelve).unwrap()).unwrap().len(), 12);
}

#[test]
fn an_optional_tuple_is_not_the_tuple_of_an_option() {
    round_trip(Some((1, 2)), b"\x05\x15\x01\x15\x02\0");
    round_trip(None::<(u8, u8)>, b"\0");
    round_trip((Some(1), 2), b"\x15\x01\x15\x02");
    round_trip(Element::from(crate::tuple::tuple![1]), b"\x05\x15\x01\0");
}

#[test]
fn what_is_there_instead_is_said() {
    let error = |result: Result<(String, u8), TupleError>| result.unwrap_err();
    let key = |value: &dyn Fn() -> Result<Vec<u8>, TupleError>| value().unwrap();
    let expected = "an integer";
    assert_eq!(
        error(unpack(&key(&|| pack(&("a", "b"))))),
        TupleError::UnexpectedKind { offset: 3, expected, found: Kind::String }
    );
    assert_eq!(
        error(unpack(&key(&|| pack(&("a",))))),
        TupleError::MissingElement { offset: 3, expected }
    );
    assert_eq!(
        error(unpack(&key(&|| pack(&("a", 1, 2))))),
        TupleError::ExtraElements { offset: 5 }
    );
    for value in [-1, 256] {
        let out_of_range = TupleError::IntegerOutOfRange { offset: 3, expected: "u8" };
        assert_eq!(error(unpack(&key(&|| pack(&("a", value))))), out_of_range);
    }
    let out_of_range = TupleError::IntegerOutOfRange { offset: 0, expected: "i64" };
    assert_eq!(unpack::<i64>(&pack(&u128::MAX).unwrap()), Err(out_of_range));
    let wrong_length = TupleError::WrongLength { offset: 0, expected: 3, found: 2 };
    assert_eq!(unpack::<[u8; 3]>(b"\x01ab\0"), Err(wrong_length));
    let nested: Result<((u8,), u8), _> = unpack(&pack(&((1, 2), 3)).unwrap());
    assert_eq!(nested, Err(TupleError::ExtraElements { offset: 3 }));
}

#[test]
fn malformed_bytes_are_errors_with_their_place() {
    use Kind::*;
    let cases: &[(&[u8], TupleError)] = &[
        (b"\x14\x01ab", TupleError::Truncated { offset: 1, kind: Bytes }),
        (b"\x02a\x00\xff", TupleError::Truncated { offset: 0, kind: String }),
        (b"\x02\xff\x00", TupleError::InvalidUtf8 { offset: 0 }),
        (b"\x05\x14", TupleError::Truncated { offset: 0, kind: Tuple }),
        (b"\x05\x05\x00", TupleError::Truncated { offset: 0, kind: Tuple }),
        (b"\x17\x01\x02", TupleError::Truncated { offset: 0, kind: Int }),
        (b"\x0c\x01", TupleError::Truncated { offset: 0, kind: Int }),
        (b"\x1d", TupleError::Truncated { offset: 0, kind: Int }),
        (b"\x1d\x02\x01", TupleError::Truncated { offset: 0, kind: Int }),
        (b"\x0b\x00\x01", TupleError::Truncated { offset: 0, kind: Int }),
        (b"\x20\x01", TupleError::Truncated { offset: 0, kind: Float }),
        (b"\x21\x01", TupleError::Truncated { offset: 0, kind: Double }),
        (b"\x30\x01", TupleError::Truncated { offset: 0, kind: Uuid }),
        (b"\x33\x01", TupleError::Truncated { offset: 0, kind: Versionstamp }),
        (b"\x14\xff", TupleError::UnknownCode { offset: 1, code: 0xff }),
        (b"\x03", TupleError::UnknownCode { offset: 0, code: 3 }),
        (b"\x05\x05\x25", TupleError::UnknownCode { offset: 2, code: 0x25 }),
    ];
    for (bytes, expected) in cases {
        assert_eq!(super::Tuple::unpack(bytes).as_ref(), Err(expected), "{bytes:02x?}");
    }
    // Longer forms than necessary are read, as everywhere.
    assert_eq!(unpack::<u8>(b"\x17\0\0\x07"), Ok(7));
    assert_eq!(unpack::<i8>(b"\x13\xff"), Ok(0));
    assert_eq!(unpack::<i8>(&[&[0x0b, !20][..], &[0xff; 19], &[0xf8]].concat()), Ok(-7));
}

#[test]
fn depth_is_bounded_in_both_directions() {
    let nested = |depth: usize| {
        let inside =
            (0..depth).fold(Element::Null, |element, _| Element::Tuple(Tuple::from(vec![element])));
        Tuple::from(vec![inside])
    };
    let deepest = nested(NESTING_MAX);
    let packed = pack(&deepest).unwrap();
    assert_eq!(Tuple::unpack(&packed).unwrap(), deepest);
    assert_eq!(pack(&nested(NESTING_MAX + 1)), Err(TupleError::TooDeep));
    let packed = [&[5; NESTING_MAX + 1][..], &[0; NESTING_MAX + 1]].concat();
    assert_eq!(Tuple::unpack(&packed), Err(TupleError::TooDeep));
    assert_eq!(Tuple::unpack(&[5; 100_000]), Err(TupleError::TooDeep));
}

#[test]
fn one_versionstamp_is_filled_in() {
    let stamp = Versionstamp::incomplete;
    let (key, offset) = pack_with_versionstamp(&("a", (stamp(1), 2))).unwrap();
    assert_eq!(offset, 5);
    let complete = crate::Versionstamp { commit_version: Version(9), batch_index: 1 };
    let mut committed = key.clone();
    committed[5..15].copy_from_slice(&complete.to_bytes());
    let (_, (found, _)): (String, (Versionstamp, u8)) = unpack(&committed).unwrap();
    assert_eq!(found, stamp(1).completed(complete));
    assert!(unpack::<(String, (Versionstamp, u8))>(&key).unwrap().1.0 == stamp(1));

    assert_eq!(pack(&("a", stamp(1))), Err(TupleError::IncompleteVersionstamp));
    assert_eq!(pack_with_versionstamp(&(found, 1)), Err(TupleError::NoIncompleteVersionstamp));
    assert_eq!(
        pack_with_versionstamp(&(stamp(1), (stamp(1),))),
        Err(TupleError::SeveralIncompleteVersionstamps)
    );
    let mut bytes = b"prefix".to_vec();
    pack_into(&(1, stamp(1)), &mut bytes).unwrap_err();
    assert_eq!(bytes, b"prefix");
}

#[test]
fn order_is_total_where_floats_have_none() {
    let sorted = [
        Element::Double(-f64::NAN),
        Element::Double(f64::NEG_INFINITY),
        Element::Double(-1.0),
        Element::Double(-0.0),
        Element::Double(0.0),
        Element::Double(f64::MIN_POSITIVE),
        Element::Double(f64::INFINITY),
        Element::Double(f64::NAN),
    ];
    assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(sorted[7], sorted[7].clone());
    assert!(Element::Float(1.0) < Element::Double(-1.0));
    assert_eq!(Element::Int(7), Element::BigInt(BigInt::from(7)));
}

#[test]
fn an_error_passes_through_a_transaction() {
    let error = crate::Error::from(pack(&Versionstamp::incomplete(0)).unwrap_err());
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(error.detail().contains("pack_with_versionstamp"), "{error}");
    assert!(TupleError::TooDeep.as_error().is_none());
}

#[test]
fn things_are_shown_as_they_would_be_written() {
    let stamp = Versionstamp::complete(
        crate::Versionstamp { commit_version: Version(1), batch_index: 2 },
        3,
    );
    let all = crate::tuple::tuple![
        None::<u8>,
        b"\xff",
        "a\"",
        crate::tuple::tuple![1],
        -7,
        BigInt::negative(&[1; 17]).unwrap(),
        1.5f32,
        2.0,
        true,
        Uuid([1; 16]),
        stamp,
        Versionstamp::incomplete(4)
    ];
    assert_eq!(
        all.to_string(),
        "(null, b\"\\xff\", \"a\\\"\", (1,), -7, -0x0101010101010101010101010101010101, 1.5f32, 2.0, \
         true, 01010101-0101-0101-0101-010101010101, versionstamp 00000000000000010002:3, versionstamp ?:4)"
    );
    for wrong in
        ["", "g7e55044-10b1-426f-9247-bb680e5fe0c8", "67e55044-10b1-426f-9247-bb680e5fe0c", "é"]
    {
        assert_eq!(wrong.parse::<Uuid>(), Err(ParseUuidError), "{wrong}");
    }
    assert!("+7e5504410b1426f9247bb680e5fe0c8".parse::<Uuid>().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = Tuple::unpack(&bytes);
        let _ = unpack::<(String, Option<u8>, (f64, Vec<u8>))>(&bytes);
    }

    #[test]
    fn pairs_sort_as_their_bytes(
        a in any::<(i128, String, Vec<u8>)>(),
        b in any::<(i128, String, Vec<u8>)>(),
    ) {
        prop_assert_eq!(a.cmp(&b), pack(&a).unwrap().cmp(&pack(&b).unwrap()));
        prop_assert_eq!(unpack::<(i128, String, Vec<u8>)>(&pack(&a).unwrap()).unwrap(), a);
    }
}
