//! A range read, as C asks for it, and the query that the client makes of it: limits and modes become limits.

use ferrisdb_client::{KeySelector, RangeQuery, StreamingMode};

use super::long_keys::shortened;
use crate::errors::{self, Code};

/// Bytes of the pages of an iteration, by its number.
const ITERATION_BYTES: [usize; 10] =
    [4_096, 6_144, 9_216, 13_824, 20_736, 31_104, 46_656, 69_984, 80_000, 120_000];

/// A range read, as C asks for it.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// Where the range begins.
    pub begin: KeySelector,
    /// Where it ends.
    pub end: KeySelector,
    /// Most rows; zero for no limit.
    pub limit: i32,
    /// Most bytes, about; zero for no limit.
    pub target_bytes: i32,
    /// `FDBStreamingMode`.
    pub mode: i32,
    /// Counts the parts that are asked for in the iterator mode, from 1 on.
    pub iteration: i32,
    /// Whether no conflict is wanted.
    pub snapshot: bool,
    /// Whether to begin at the end.
    pub reverse: bool,
}

/// The query of a request, and whether it is a snapshot read.
pub(super) fn query_of(request: RangeRequest) -> Result<(bool, RangeQuery), Code> {
    let unlimited = |number: i32| match number {
        0 | -1 => Ok(None),
        ..-1 => Err(errors::RANGE_LIMITS_INVALID),
        1.. => Ok(usize::try_from(number).ok()),
    };
    let rows_max = unlimited(request.limit)?;
    let target_bytes = unlimited(request.target_bytes)?;
    let mode_bytes = match request.mode {
        -2 => Some(80_000),
        -1 => {
            let part = usize::try_from(request.iteration).ok().and_then(|part| part.checked_sub(1));
            let part = part.ok_or(errors::CLIENT_INVALID_OPERATION)?;
            Some(ITERATION_BYTES[part.min(ITERATION_BYTES.len() - 1)])
        }
        0 if rows_max.is_none() && target_bytes.is_none() => {
            return Err(errors::EXACT_MODE_WITHOUT_LIMITS);
        }
        0 => None,
        1 => Some(256),
        2 => Some(1_000),
        3 => Some(4_096),
        4 => Some(80_000),
        _ => return Err(errors::CLIENT_INVALID_OPERATION),
    };
    let mut query = RangeQuery::between(shortened(request.begin), shortened(request.end));
    query.rows_max = rows_max;
    query.bytes_max = mode_bytes.into_iter().chain(target_bytes).min();
    query.reverse = request.reverse;
    // The limits say it all.
    query.mode = StreamingMode::WantAll;
    // A range that ends before it begins has no rows. Its keys have to be legal all the same.
    if query.plain_range().is_some_and(|range| range.begin > range.end) {
        query.end = query.begin.clone();
    }
    Ok((request.snapshot, query))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mode: i32, iteration: i32, limit: i32, target_bytes: i32) -> RangeRequest {
        RangeRequest {
            begin: KeySelector::first_greater_or_equal("a"),
            end: KeySelector::first_greater_or_equal("b"),
            limit,
            target_bytes,
            mode,
            iteration,
            snapshot: false,
            reverse: false,
        }
    }

    #[test]
    fn limits_and_modes_become_limits() {
        let limits = |mode, iteration, limit, target_bytes| {
            let (_, query) = query_of(request(mode, iteration, limit, target_bytes))?;
            Ok((query.rows_max, query.bytes_max))
        };
        assert_eq!(limits(-1, 1, 0, 0), Ok((None, Some(4_096))));
        assert_eq!(limits(-1, 1_000, 5, 0), Ok((Some(5), Some(120_000))));
        assert_eq!(limits(-1, 0, 0, 0), Err(errors::CLIENT_INVALID_OPERATION));
        assert_eq!(limits(0, 0, 0, 0), Err(errors::EXACT_MODE_WITHOUT_LIMITS));
        assert_eq!(limits(0, 0, 7, 0), Ok((Some(7), None)));
        assert_eq!(limits(-2, 0, -1, 100), Ok((None, Some(100))));
        assert_eq!(limits(-2, 0, -2, 0), Err(errors::RANGE_LIMITS_INVALID));
        assert_eq!(limits(5, 0, 0, 0), Err(errors::CLIENT_INVALID_OPERATION));
    }

    #[test]
    fn an_inverted_range_is_empty() {
        let mut inverted = request(-2, 0, 0, 0);
        std::mem::swap(&mut inverted.begin, &mut inverted.end);
        let (_, query) = query_of(inverted).unwrap();
        assert!(query.plain_range().unwrap().is_empty());
    }
}
