//! Tuples as FoundationDB's Python package packs them: `tests/data/tuple_vectors.txt`, which
//! `tests/tools/tuple_vectors.py` writes (and explains).

#![expect(clippy::unwrap_used, reason = "a test")]

use ferrisdb_client::tuple::{
    BigInt, Decoder, Element, Encoder, Tuple, TupleError, TuplePack, TupleUnpack, Uuid,
    Versionstamp, pack, pack_with_versionstamp, unpack,
};
use serde_json::Value as Json;

struct Vector {
    packed: Vec<u8>,
    tuple: Tuple,
    /// Of the incomplete versionstamp.
    offset: Option<u32>,
}

fn vectors() -> Vec<Vector> {
    let lines = include_str!("data/tuple_vectors.txt").lines();
    let vectors: Vec<Vector> = lines
        .map(|line| {
            let line: Json = serde_json::from_str(line).unwrap();
            Vector {
                packed: bytes(&line[0]),
                tuple: tuple(&line[1]),
                offset: line[2].as_u64().map(|offset| offset as u32),
            }
        })
        .collect();
    assert!(vectors.len() >= 2500, "{}", vectors.len());
    vectors
}

fn bytes(hex: &Json) -> Vec<u8> {
    bytes_of(hex.as_str().unwrap())
}

fn bytes_of(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0, "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn tuple(json: &Json) -> Tuple {
    json.as_array().unwrap().iter().map(element).collect()
}

fn element(json: &Json) -> Element {
    match json {
        Json::Null => Element::Null,
        Json::Bool(value) => Element::Bool(*value),
        Json::String(text) => Element::String(text.clone()),
        Json::Array(_) => Element::Tuple(tuple(json)),
        Json::Object(object) => {
            let (kind, hex) = object.iter().next().unwrap();
            let hex = hex.as_str().unwrap();
            match kind.as_str() {
                "b" => Element::Bytes(bytes_of(hex)),
                "i" => integer(hex),
                "f" => Element::Float(f32::from_bits(u32::from_str_radix(hex, 16).unwrap())),
                "d" => Element::Double(f64::from_bits(u64::from_str_radix(hex, 16).unwrap())),
                "u" => Element::Uuid(Uuid(bytes_of(hex).try_into().unwrap())),
                "v" => {
                    let bytes = bytes_of(hex).try_into().unwrap();
                    Element::Versionstamp(Versionstamp::from_bytes(bytes))
                }
                _ => panic!("{kind}"),
            }
        }
        Json::Number(_) => panic!("{json}"),
    }
}

fn integer(hex: &str) -> Element {
    if let Ok(value) = i128::from_str_radix(hex, 16) {
        return Element::Int(value);
    }
    let digits = hex.trim_start_matches('-');
    let magnitude = bytes_of(&format!("{}{digits}", if digits.len() % 2 == 1 { "0" } else { "" }));
    Element::BigInt(match hex.starts_with('-') {
        true => BigInt::negative(&magnitude).unwrap(),
        false => BigInt::positive(&magnitude).unwrap(),
    })
}

#[test]
fn every_tuple_is_packed_as_the_reference_does_it() {
    for Vector { packed, tuple, offset } in vectors() {
        let found = match offset {
            None => pack(&tuple).map(|packed| (packed, None)),
            Some(_) => pack_with_versionstamp(&tuple).map(|(packed, at)| (packed, Some(at))),
        };
        assert_eq!(found, Ok((packed, offset)), "{tuple}");
        assert_eq!(tuple.has_incomplete_versionstamp(), offset.is_some());
        let refused = match offset {
            None => pack_with_versionstamp(&tuple).unwrap_err(),
            Some(_) => pack(&tuple).unwrap_err(),
        };
        let expected = match offset {
            None => TupleError::NoIncompleteVersionstamp,
            Some(_) => TupleError::IncompleteVersionstamp,
        };
        assert_eq!(refused, expected, "{tuple}");
    }
}

#[test]
fn every_packed_tuple_is_unpacked_as_it_was() {
    for Vector { packed, tuple, .. } in vectors() {
        let found = Tuple::unpack(&packed).unwrap();
        assert_eq!(found, tuple);
        // The same bits, and the smaller of the two types for integers.
        assert_eq!(format!("{found:?}"), format!("{tuple:?}"));
    }
}

#[test]
fn tuples_are_ordered_as_their_bytes() {
    let mut by_bytes = vectors();
    by_bytes.sort_by(|a, b| a.packed.cmp(&b.packed));
    for pair in by_bytes.windows(2) {
        assert!(pair[0].tuple < pair[1].tuple, "{} {}", pair[0].tuple, pair[1].tuple);
    }
    let mut by_tuple = vectors();
    by_tuple.sort_by(|a, b| a.tuple.cmp(&b.tuple));
    let packed = |vectors: &[Vector]| vectors.iter().map(|v| v.packed.clone()).collect::<Vec<_>>();
    assert!(packed(&by_bytes) == packed(&by_tuple));
    // Elements as well, without what stands before them.
    let mut elements: Vec<Element> = by_tuple.into_iter().flat_map(|v| v.tuple).collect();
    elements.sort();
    let packed_in_any_case = |element: &Element| match pack(element) {
        Ok(packed) => packed,
        Err(_) => pack_with_versionstamp(element).map(|(packed, _)| packed).unwrap_or_default(),
    };
    let packed: Vec<_> =
        elements.iter().map(packed_in_any_case).filter(|p| !p.is_empty()).collect();
    assert!(packed.is_sorted());
}

#[test]
fn cut_and_changed_bytes_are_an_error_or_another_tuple() {
    for Vector { packed, .. } in vectors().into_iter().step_by(7).filter(|v| v.packed.len() < 200) {
        for end in 0..packed.len() {
            let _ = Tuple::unpack(&packed[..end]);
        }
        for at in 0..packed.len() {
            for byte in [0, 1, 5, 0x0b, 0x14, 0x1d, 0x33, 0xff] {
                let mut changed = packed.clone();
                changed[at] = byte;
                let Ok(tuple) = Tuple::unpack(&changed) else { continue };
                // What was read can be written; not necessarily in the same form, see the next test.
                let packed = pack(&tuple).or_else(|_| pack_with_versionstamp(&tuple).map(|p| p.0));
                if let Ok(packed) = packed {
                    assert_eq!(Tuple::unpack(&packed).unwrap(), tuple);
                }
            }
        }
    }
}

#[test]
fn two_integers_have_a_form_of_their_own_in_the_reference() {
    // The Python binding takes 2^64-1 for an integer of more than eight bytes; the bindings of Java, Go and C++
    // do not, and neither does the specification. We write as those, and read both.
    let value = i128::from(u64::MAX);
    let python = [&[0x1d, 8][..], &[0xff; 8]].concat();
    let others = [&[0x1c][..], &[0xff; 8]].concat();
    assert_eq!(pack(&value).unwrap(), others);
    assert_eq!(unpack::<i128>(&python), Ok(value));
    assert_eq!(unpack::<u64>(&others), Ok(u64::MAX));
    let python = [&[0x0b, !8][..], &[0; 8]].concat();
    let others = [&[0x0c][..], &[0; 8]].concat();
    assert_eq!(pack(&-value).unwrap(), others);
    assert_eq!(unpack::<i128>(&python), Ok(-value));
    assert_eq!(unpack::<i128>(&others), Ok(-value));
}

/// A type that contains nothing but itself, perhaps.
#[derive(Debug)]
struct Endless(Option<Box<Endless>>);

impl TuplePack for Endless {
    fn pack_to(&self, encoder: &mut Encoder) -> Result<(), TupleError> {
        self.0.pack_to(encoder)
    }
}

impl TupleUnpack for Endless {
    fn unpack_from(decoder: &mut Decoder<'_>) -> Result<Endless, TupleError> {
        Option::unpack_from(decoder).map(Endless)
    }
}

#[test]
fn no_type_reads_for_ever() {
    assert_eq!(unpack::<Endless>(b"\x14").unwrap_err(), TupleError::TooDeep);
}
