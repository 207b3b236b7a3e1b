//! The state file of an instance: the little that must outlive a restart and is not a batch.
//!
//! Replaced as a whole whenever the log is locked or gives up segments. The contents of its envelope:
//!
//! ```text
//!   0   u64  instance
//!   8   u64  generation
//!   16  u64  begin_version
//!   24  u64  locked_generation          pushes of older generations are refused (I-8)
//!   32  u64  first_segment              segments before this one were given up
//!   40  u8   1 if retired: the directory is being removed
//!   41       u32 tag, u64 version: the last message of a tag in the segments given up
//! ```

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrisdb_core::{Generation, Tag, Version};

use super::envelope::{self, Damage, Kind};

/// The name of the file in the instance's directory.
pub(super) const FILE_NAME: &str = "state";

/// What outlives a restart besides the batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The number under which the instance is reached, drawn when it was recruited. Not zero.
    pub instance: u64,
    /// The generation whose pushes it takes.
    pub generation: Generation,
    /// The first push comes after this version.
    pub begin_version: Version,
    /// Pushes of generations before this one are refused. The own generation, if the log is not locked.
    pub locked_generation: Generation,
    /// The oldest segment there is.
    pub first_segment: u64,
    /// The last message of each tag in the segments before.
    pub dropped: BTreeMap<Tag, Version>,
    /// Whether the instance is being removed.
    pub retired: bool,
}

impl State {
    /// The state of a new instance.
    pub(super) fn new(instance: u64, generation: Generation, begin_version: Version) -> State {
        State {
            instance,
            generation,
            begin_version,
            locked_generation: generation,
            first_segment: 0,
            dropped: BTreeMap::new(),
            retired: false,
        }
    }

    /// The contents of the file.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        envelope::seal(Kind::State, &mut out, |out| {
            out.put_u64_le(self.instance);
            out.put_u64_le(self.generation.0);
            out.put_u64_le(self.begin_version.0);
            out.put_u64_le(self.locked_generation.0);
            out.put_u64_le(self.first_segment);
            out.put_u8(u8::from(self.retired));
            for (tag, version) in &self.dropped {
                out.put_u32_le(tag.0);
                out.put_u64_le(version.0);
            }
        });
        out.freeze()
    }

    /// The inverse of [`State::encode`].
    pub(super) fn decode(bytes: &Bytes) -> Result<State, Damage> {
        let contents = envelope::unseal(Kind::State, bytes)?;
        decode_contents(contents).ok_or_else(|| Damage::Nonsense("expected a state".to_owned()))
    }
}

fn decode_contents(mut rest: Bytes) -> Option<State> {
    let mut state = State {
        instance: rest.try_get_u64_le().ok()?,
        generation: Generation(rest.try_get_u64_le().ok()?),
        begin_version: Version(rest.try_get_u64_le().ok()?),
        locked_generation: Generation(rest.try_get_u64_le().ok()?),
        first_segment: rest.try_get_u64_le().ok()?,
        retired: match rest.try_get_u8().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        },
        dropped: BTreeMap::new(),
    };
    while !rest.is_empty() {
        let tag = Tag(rest.try_get_u32_le().ok()?);
        state.dropped.insert(tag, Version(rest.try_get_u64_le().ok()?));
    }
    let is_sound = state.instance != 0 && state.locked_generation >= state.generation;
    is_sound.then_some(state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> State {
        State {
            instance: 0x55,
            generation: Generation(17),
            begin_version: Version(300),
            locked_generation: Generation(18),
            first_segment: 2,
            dropped: BTreeMap::from([(Tag(4), Version(290))]),
            retired: false,
        }
    }

    #[test]
    fn golden_bytes() {
        let golden = [
            b"FLst".as_slice(),
            &[0x0e, 0x71, 0x3d, 0x0c], // checksum
            &[1, 0, 0, 0, 53, 0, 0, 0],
            &[0x55, 0, 0, 0, 0, 0, 0, 0],
            &[17, 0, 0, 0, 0, 0, 0, 0],
            &[0x2c, 1, 0, 0, 0, 0, 0, 0],
            &[18, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[0],
            &[4, 0, 0, 0, 0x22, 1, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(example().encode()[..], golden[..]);
    }

    proptest! {
        #[test]
        fn round_trip(
            tags in prop::collection::btree_map(any::<u32>(), any::<u64>(), 0..5),
            retired: bool,
        ) {
            let dropped = tags.into_iter().map(|(tag, version)| (Tag(tag), Version(version)));
            let state = State { dropped: dropped.collect(), retired, ..example() };
            prop_assert_eq!(State::decode(&state.encode()), Ok(state));
        }

        #[test]
        fn garbage_is_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode_contents(Bytes::from(bytes));
        }
    }
}
