//! `#[derive(TuplePack, TupleUnpack)]`, as a user writes it.

#![cfg(feature = "derive")]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::fmt::Debug;

use ferrisdb_client::{
    Subspace,
    tuple::{self, TupleError, TuplePack, TupleUnpack, Uuid},
};

#[derive(TuplePack, TupleUnpack, Clone, Debug, PartialEq)]
struct UserId(u64);

#[derive(TuplePack, TupleUnpack, Clone, Debug, PartialEq)]
struct Point(f64, f64);

#[derive(TuplePack, TupleUnpack, Clone, Debug, PartialEq)]
struct Marker;

#[derive(TuplePack, TupleUnpack, Clone, Debug, PartialEq)]
struct Visit {
    user: UserId,
    at: Point,
    r#type: Option<String>,
    marker: Marker,
    id: Uuid,
}

#[derive(TuplePack, TupleUnpack, Debug, PartialEq)]
struct Generic<T, const N: usize>
where
    T: Clone,
{
    first: T,
    others: [T; N],
}

/// What is borrowed can only be packed.
#[derive(TuplePack)]
struct Borrowed<'a> {
    name: &'a str,
    data: &'a [u8],
}

#[derive(TuplePack, TupleUnpack, Debug, PartialEq)]
struct List {
    value: u8,
    next: Option<Box<List>>,
}

fn same<A: TuplePack + TupleUnpack + PartialEq + Debug>(value: A, plain: &impl TuplePack) {
    let packed = tuple::pack(&value).unwrap();
    assert_eq!(packed, tuple::pack(plain).unwrap());
    assert_eq!(tuple::unpack::<A>(&packed).unwrap(), value);
}

#[test]
fn structs_are_tuples_and_newtypes_what_they_hold() {
    same(UserId(7), &7);
    same(Point(1.0, 2.0), &(1.0, 2.0));
    same(Marker, &());
    let visit = Visit {
        user: UserId(7),
        at: Point(1.0, 2.0),
        r#type: None,
        marker: Marker,
        id: Uuid([7; 16]),
    };
    let plain = (7, (1.0, 2.0), None::<String>, (), Uuid([7; 16]));
    same(visit.clone(), &plain);
    same((visit, 1), &(plain, 1));
    same(Generic { first: 1u16, others: [2, 3] }, &(1, (2, 3)));
    same(Generic { first: 1u8, others: [2, 3] }, &(1, b"\x02\x03"));
    let borrowed = Borrowed { name: "a", data: b"b" };
    assert_eq!(tuple::pack(&borrowed), tuple::pack(&("a", b"b")));
    same(
        List { value: 1, next: Some(Box::new(List { value: 2, next: None })) },
        &(1, (2, None::<u8>)),
    );
}

#[test]
fn a_struct_is_a_key_of_a_subspace() {
    let visits = Subspace::from_prefix("v");
    let key = visits.pack(&Point(1.0, 2.0)).unwrap();
    assert_eq!(visits.unpack::<Point>(&key).unwrap(), Point(1.0, 2.0));
    let error = visits.unpack::<Marker>(&key).unwrap_err();
    assert_eq!(error, TupleError::ExtraElements { offset: 1 });
}

#[test]
fn endless_lists_end_with_an_error() {
    let mut bytes = vec![0x15, 1];
    for _ in 0..5000 {
        bytes.extend([0x05, 0x15, 1]);
    }
    assert_eq!(tuple::unpack::<List>(&bytes), Err(TupleError::TooDeep));
}
