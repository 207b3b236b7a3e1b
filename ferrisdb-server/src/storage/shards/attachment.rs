//! The shards of a storage server as bytes, beside the engine's data.
//!
//! ```text
//!   varint 1       the format
//!   varint tag     varint count, then so many ranges in key order:
//!     begin end              each a varint length, then the bytes
//!     1 since copied_to      joining: varint version, key as above, varint count, varint tags: the sources
//!     2                      member
//! ```

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use ferrisdb_core::{
    Key, KeyRange, Tag, Version,
    mutation::{get_varint, put_varint},
};

use super::{
    Holdings,
    holdings::{Holding, Joining, Role},
};

const FORMAT: u64 = 1;
const JOINING: u64 = 1;
const MEMBER: u64 = 2;

pub(super) fn encode(tag: Tag, holdings: &Holdings) -> Bytes {
    let mut out = BytesMut::new();
    put_varint(&mut out, FORMAT);
    put_varint(&mut out, u64::from(tag.0));
    put_varint(&mut out, holdings.0.len() as u64);
    for Holding { range, role } in &holdings.0 {
        put_key(&mut out, &range.begin);
        put_key(&mut out, &range.end);
        match role {
            Role::Joining(Joining { since, sources, copied_to }) => {
                put_varint(&mut out, JOINING);
                put_varint(&mut out, since.0);
                put_key(&mut out, copied_to);
                put_varint(&mut out, sources.len() as u64);
                sources.iter().for_each(|source| put_varint(&mut out, u64::from(source.0)));
            }
            Role::Member => put_varint(&mut out, MEMBER),
        }
    }
    out.freeze()
}

/// `None` for what [`encode`] cannot have written.
pub(super) fn decode(mut rest: Bytes) -> Option<(Tag, Holdings)> {
    let rest = &mut rest;
    if get_varint(rest)? != FORMAT {
        return None;
    }
    let tag = get_tag(rest)?;
    let count = get_varint(rest)?;
    let holdings: Option<Vec<Holding>> = (0..count).map(|_| get_holding(rest)).collect();
    let holdings = holdings.filter(|_| !rest.has_remaining())?;
    let in_order = holdings.windows(2).all(|pair| pair[0].range.end <= pair[1].range.begin);
    in_order.then_some((tag, Holdings(holdings)))
}

fn get_holding(rest: &mut Bytes) -> Option<Holding> {
    let range = KeyRange { begin: get_key(rest)?, end: get_key(rest)? };
    let role = match get_varint(rest)? {
        JOINING => {
            let since = Version(get_varint(rest)?);
            let copied_to = get_key(rest)?;
            let count = get_varint(rest)?;
            let sources: Option<_> = (0..count).map(|_| get_tag(rest)).collect();
            if copied_to < range.begin || copied_to > range.end {
                return None;
            }
            Role::Joining(Joining { since, sources: sources?, copied_to })
        }
        MEMBER => Role::Member,
        _ => return None,
    };
    (!range.is_empty()).then_some(Holding { range, role })
}

fn put_key(out: &mut BytesMut, key: &Key) {
    put_varint(out, key.len() as u64);
    out.put_slice(key);
}

fn get_key(rest: &mut Bytes) -> Option<Key> {
    let length = usize::try_from(get_varint(rest)?).ok()?;
    // A copy: what is kept for long must not keep the rest alive.
    (length <= rest.len()).then(|| Key::copy_from(&rest.split_to(length)))
}

fn get_tag(rest: &mut Bytes) -> Option<Tag> {
    Some(Tag(u32::try_from(get_varint(rest)?).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holdings() -> Holdings {
        let joining =
            Joining { since: Version(300), sources: vec![Tag(1), Tag(200)], copied_to: "k".into() };
        Holdings(vec![
            Holding { range: KeyRange::new("", "g"), role: Role::Member },
            Holding { range: KeyRange::new("g", "p"), role: Role::Joining(joining) },
        ])
    }

    #[test]
    fn golden_bytes() {
        let encoded = encode(Tag(7), &holdings());
        let golden = b"\x01\x07\x02\x00\x01g\x02\x01g\x01p\x01\xac\x02\x01k\x02\x01\xc8\x01";
        assert_eq!(encoded[..], golden[..]);
        assert_eq!(decode(encoded), Some((Tag(7), holdings())));
    }

    #[test]
    fn a_torn_attachment_is_refused() {
        let encoded = encode(Tag(7), &holdings());
        for length in 0..encoded.len() {
            assert_eq!(decode(encoded.slice(..length)), None, "{length} bytes");
        }
        let longer = [&encoded[..], b"\0"].concat();
        assert_eq!(decode(longer.into()), None);
    }

    proptest! {
        #[test]
        fn garbage_is_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode([&[1], &bytes[..]].concat().into());
        }
    }
}
