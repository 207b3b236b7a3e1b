//! The version that is read, and the reads. The special keys of tracing are answered here, all others by the client.

use std::sync::Arc;

use ferrisdb_client::{Key, KeyRange, KeySelector, RangePage, Transaction as Client};
use ferrisdb_core::limits;

use super::{
    RangeRequest, Transaction,
    long_keys::{shortened, shortened_bound},
    number_of,
    pending::AtCommit,
    range_request::query_of,
};
use crate::{
    errors::{self, Code},
    mapped::Mapper,
    promise::{Output, Promise},
    special,
};

/// The version that is read.
impl<P: Promise> Transaction<P> {
    /// Reads at this version.
    pub fn set_read_version(&self, version: i64) {
        let positive = u64::try_from(version).ok().filter(|version| *version > 0);
        let Some(version) = positive else { return self.defer(errors::VERSION_INVALID) };
        let _ = self.change(|client| client.set_read_version(ferrisdb_client::Version(version)));
    }

    /// The version that is read. To ask for it is no misuse at any time, but after one there is none.
    pub fn read_version(&self) -> Arc<P> {
        if self.state.lock().is_poisoned {
            return P::ready(self.usable().and(Err(errors::USED_DURING_COMMIT)));
        }
        self.run(AtCommit::LeftAlone, async |client: Client| {
            client.read_version().await.map(of_version)
        })
    }
}

/// Reads.
impl<P: Promise> Transaction<P> {
    /// Reads a key.
    pub fn get(&self, key: &[u8], snapshot: bool) -> Arc<P> {
        if special::is_special(key)
            && let Some(value) = self.state.lock().tracing().get(key)
        {
            return P::ready(Ok(Output::Value(value)));
        }
        // Nobody can have written it.
        if key.len() > limits::KEY_BYTES_MAX {
            return P::ready(self.open().map(|_| Output::Value(None)));
        }
        let (key, is_special) = (Key::copy_from(key), special::is_special(key));
        self.run(at_commit(is_special), async move |client: Client| {
            let value = match snapshot {
                true => client.snapshot().get(key).await,
                false => client.get(key).await,
            };
            value.map(Output::Value)
        })
    }

    /// The key that a selector names.
    pub fn get_key(&self, selector: KeySelector, snapshot: bool) -> Arc<P> {
        let selector = shortened(selector);
        self.run(AtCommit::WaitedFor, async move |client: Client| {
            let key = match snapshot {
                true => client.snapshot().get_key(selector).await,
                false => client.get_key(selector).await,
            };
            key.map(Output::Key)
        })
    }

    /// Reads a part of a range.
    pub fn get_range(&self, request: RangeRequest) -> Arc<P> {
        let (snapshot, query) = match query_of(request) {
            Ok(query) => query,
            Err(code) => return self.refuse_range(code),
        };
        let is_special = special::is_special(&query.begin.key);
        if is_special
            && let Some(range) = query.plain_range()
            && let Some(mut rows) = self.state.lock().tracing().get_range(&range)
        {
            if query.reverse {
                rows.reverse();
            }
            let count = rows.len();
            rows.truncate(query.rows_max.unwrap_or(count));
            let more = rows.len() < count;
            return P::ready(Ok(Output::Rows(RangePage { rows, more })));
        }
        self.run(at_commit(is_special), async move |client: Client| {
            let page = match snapshot {
                true => client.snapshot().get_range_page(query).await,
                false => client.get_range_page(query).await,
            };
            page.map(Output::Rows)
        })
    }

    /// A range read that makes no sense: a wrong limit is found out in the transaction, everything else before it is looked at.
    fn refuse_range(&self, code: Code) -> Arc<P> {
        P::ready(match code {
            errors::RANGE_LIMITS_INVALID => self.open().and(Err(code)),
            _ => Err(code),
        })
    }

    /// Reads a part of a range, and for every row of it the range that the mapper makes of the row.
    pub fn get_mapped_range(&self, request: RangeRequest, mapper: &[u8]) -> Arc<P> {
        let prepared = match request.snapshot {
            true => Err(errors::UNSUPPORTED_OPERATION),
            false => query_of(request).and_then(|(_, query)| Ok((query, Mapper::parse(mapper)?))),
        };
        let (query, mapper) = match prepared {
            Ok(prepared) => prepared,
            Err(code) => return P::ready(self.usable().and(Err(code))),
        };
        self.run_raw(AtCommit::WaitedFor, async move |client: Client| {
            let mapped = client.get_mapped_range(query, move |row| mapper.range(row)).await;
            let page = mapped.map_err(|error| errors::number_of(&error))??;
            Ok(Output::MappedRows { rows: page.rows, more: page.more })
        })
    }

    /// Watches a key.
    pub fn watch(&self, key: &[u8]) -> Arc<P> {
        let client = match self.usable() {
            Ok(client) => client,
            Err(code) => return P::ready(Err(code)),
        };
        let key = Key::copy_from(key);
        // It outlives the transaction once that is committed; before, the client lets it fail with it.
        let future = P::start(async move {
            let watch = client.watch(key).await.map_err(|error| errors::number_of(&error))?;
            drop(client);
            watch.await.map(|()| Output::Void).map_err(|error| errors::number_of(&error))
        });
        self.look_for_misuse(&future);
        future
    }

    /// Who holds a key.
    pub fn addresses_for_key(&self, key: &[u8]) -> Arc<P> {
        let key = Key::copy_from(key);
        self.run(AtCommit::WaitedFor, async move |client: Client| {
            let addresses = client.addresses_for_key(key).await;
            addresses.map(Output::Strings)
        })
    }

    /// About how many bytes a range has.
    pub fn estimated_range_size(&self, begin: &[u8], end: &[u8]) -> Arc<P> {
        let range = KeyRange { begin: shortened_bound(begin), end: shortened_bound(end) };
        self.run(AtCommit::LeftAlone, async move |client: Client| {
            let size = client.estimated_range_size(range).await;
            size.map(|size| Output::Int64(i64::try_from(size).unwrap_or(i64::MAX)))
        })
    }

    /// Keys that divide a range into parts of about so many bytes; at most so many between its ends, if that is more than zero.
    pub fn range_split_points(
        &self,
        begin: &[u8],
        end: &[u8],
        chunk_bytes: i64,
        limit: i32,
    ) -> Arc<P> {
        let range = KeyRange { begin: shortened_bound(begin), end: shortened_bound(end) };
        let Some(chunk_bytes) = u64::try_from(chunk_bytes).ok().filter(|bytes| *bytes > 0) else {
            return P::ready(self.usable().and(Err(errors::CLIENT_INVALID_OPERATION)));
        };
        let points_max = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        self.run(AtCommit::LeftAlone, async move |client: Client| {
            let points = client.range_split_points(range, chunk_bytes, points_max).await;
            points.map(Output::Keys)
        })
    }
}

fn of_version(version: ferrisdb_client::Version) -> Output {
    Output::Int64(number_of(version))
}

/// A commit waits for the reads of data, not for those of special keys.
fn at_commit(is_special: bool) -> AtCommit {
    match is_special {
        true => AtCommit::LeftAlone,
        false => AtCommit::WaitedFor,
    }
}
