//! `FDBTransaction`: the client's transaction, with C's rules of when errors show up.
//!
//! ```text
//!   set, clear, ...       cannot fail: the first error is kept ...
//!   get, commit, ...      ... and every future from then on has it, until a reset or on_error
//!   reset, on_error,      futures that are pending fail with transaction_cancelled
//!   cancel, destroy
//!   misuse while the      used_during_commit, and the commit fails with it, too, and so does on_error: only a reset
//!   commit is under way   helps (unless the option says otherwise)
//! ```
//!
//! - `options.rs`, `reads.rs`, `writes.rs`, `conflicts.rs`, `commit.rs`, `stamps.rs`, `costs.rs`: what programs call
//! - `range_request.rs`, `long_keys.rs`: what C says, in the client's words
//! - `pending.rs`, `misuse.rs`: what the rules above are made of
//!
//! Start with [`Transaction::get`], then [`Transaction::commit`].

use std::{
    future::Future as Work,
    sync::{Arc, Weak},
};

use ferrisdb_client::{Error, Transaction as Client};
use parking_lot::Mutex;

use crate::{
    database::{DatabaseOptions, Defaults},
    errors::{self, Code},
    promise::{Ended, Output, Promise},
    size::Written,
    special::Tracing,
};
pub use conflicts::ConflictRangeType;
use pending::{AtCommit, Pending};
pub use range_request::RangeRequest;

mod commit;
mod conflicts;
mod costs;
mod long_keys;
mod misuse;
mod options;
mod pending;
mod range_request;
mod reads;
mod stamps;
mod writes;

/// `FDBTransaction`, whose results are of the kind `P`.
#[derive(Debug)]
pub struct Transaction<P> {
    /// Or why there is no database.
    client: Result<Client, Code>,
    database: Arc<DatabaseOptions>,
    state: Mutex<State<P>>,
}

#[derive(Debug)]
struct State<P> {
    /// The first error of a call that cannot fail.
    deferred: Option<Code>,
    /// The transaction was used during its commit.
    is_poisoned: bool,
    may_write_special_keys: bool,
    defaults: Defaults,
    tags: Vec<Vec<u8>>,
    tracing: Option<Tracing>,
    /// The commit before the present state, of programs for which a commit resets.
    committed_version: Option<i64>,
    /// What fails when the transaction is reset, the reads that a commit waits for among them.
    pending: Vec<Pending<P>>,
    /// Who waits for the versionstamp: they hear of it before whoever waits for the commit.
    stamps: Vec<Weak<P>>,
    written: Written,
}

impl<P> Default for State<P> {
    fn default() -> State<P> {
        State {
            deferred: None,
            is_poisoned: false,
            may_write_special_keys: false,
            defaults: Defaults::default(),
            tags: Vec::new(),
            tracing: None,
            committed_version: None,
            pending: Vec::new(),
            stamps: Vec::new(),
            written: Written::default(),
        }
    }
}

/// The life of a transaction.
impl<P: Promise> Transaction<P> {
    /// A new transaction of a handle with these options; or one that says in each result why there is no database.
    pub fn new(
        client: Result<ferrisdb_client::Database, Code>,
        database: Arc<DatabaseOptions>,
    ) -> Arc<Transaction<P>> {
        let client = client.map(|client| client.transaction());
        let transaction = Transaction { client, database, state: Mutex::default() };
        transaction.apply_defaults();
        Arc::new(transaction)
    }

    /// Fails what is pending, and drops the transaction unless a commit still needs it.
    pub fn destroy(self: Arc<Self>) {
        self.fail_pending();
    }

    /// Gives up: everything fails from now on, until a reset.
    pub fn cancel(&self) {
        if let Ok(client) = &self.client {
            client.cancel();
        }
        self.fail_pending();
    }

    /// Forgets everything.
    pub fn reset(&self) {
        if let Ok(client) = &self.client {
            client.reset();
        }
        self.begin_again();
    }

    /// After an error: makes the transaction ready to be tried again, if that may help.
    pub fn on_error(&self, code: Code) -> Arc<P> {
        if self.state.lock().is_poisoned {
            return P::ready(Err(errors::USED_DURING_COMMIT));
        }
        let client = match &self.client {
            Ok(client) => client.clone(),
            Err(_) => return P::ready(Err(code)),
        };
        let error = errors::as_error(code);
        let stand_in = error.code();
        // That nothing has failed is no reason to try again: the transaction ends as with any other error of that kind.
        let code = if code == errors::SUCCESS { errors::CLIENT_INVALID_OPERATION } else { code };
        // Its first step resets the transaction.
        let future = P::start(async move {
            match client.on_error(error).await {
                Ok(()) => Ok(Output::Void),
                Err(last) if last.code() == stand_in => Err(code),
                Err(last) => Err(errors::number_of(&last)),
            }
        });
        self.begin_again();
        self.remember(&future, AtCommit::LeftAlone);
        future
    }

    /// The transaction was reset.
    fn begin_again(&self) {
        self.fail_pending();
        *self.state.lock() = State::default();
        self.apply_defaults();
    }
}

/// How all of them work.
impl<P: Promise> Transaction<P> {
    /// The client's transaction, unless an error was deferred.
    fn usable(&self) -> Result<Client, Code> {
        let deferred = self.state.lock().deferred;
        match deferred {
            Some(code) => Err(code),
            None => self.client.clone(),
        }
    }

    /// As [`Transaction::usable`], if an operation may begin now.
    fn open(&self) -> Result<Client, Code> {
        let client = self.usable()?;
        let open = client.check_open().map_err(|error| errors::number_of(&error));
        if open == Err(errors::USED_DURING_COMMIT) {
            self.note_misuse();
        }
        open.map(|()| client)
    }

    /// Begins an operation; its errors are the client's.
    fn run<W>(&self, at_commit: AtCommit, work: impl FnOnce(Client) -> W + Send + 'static) -> Arc<P>
    where
        W: Work<Output = ferrisdb_client::Result<Output>> + Send + 'static,
    {
        self.run_raw(at_commit, move |client| {
            let work = work(client);
            async move { work.await.map_err(|error: Error| errors::number_of(&error)) }
        })
    }

    /// Begins an operation.
    fn run_raw<W>(&self, at_commit: AtCommit, work: impl FnOnce(Client) -> W) -> Arc<P>
    where
        W: Work<Output = Ended> + Send + 'static,
    {
        let client = match self.usable() {
            Ok(client) => client,
            Err(code) => return P::ready(Err(code)),
        };
        let future = P::start(work(client));
        self.look_for_misuse(&future);
        self.remember(&future, at_commit);
        future
    }

    fn defer(&self, code: Code) {
        self.state.lock().deferred.get_or_insert(code);
    }
}

impl<P> State<P> {
    fn tracing(&mut self) -> &mut Tracing {
        self.tracing.get_or_insert_with(Tracing::random)
    }
}

fn number_of(version: ferrisdb_client::Version) -> i64 {
    i64::try_from(version.0).unwrap_or(i64::MAX)
}
