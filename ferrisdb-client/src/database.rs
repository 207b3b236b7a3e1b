//! The handle of a database.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use ferrisdb_core::{
    Error, ErrorCode, Result, Stage,
    id::{Address, ClusterId},
    limits,
    runtime::{self, Task},
    service::controller::Status,
    transport::Network,
};
#[cfg(feature = "embedded")]
use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::{
    cluster::Cluster,
    cluster_file::Connection,
    exactly_once::AcknowledgedIds,
    options::{Priority, Settings, TransactionOption, TransactionOptions},
    retry::{self, AsError},
    status_json::Readings,
    transaction::Transaction,
    watch::Watches,
};

/// How long closing a handle may take over what is not necessary.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// After how long without an answer a cluster file is read again, when a handle is made.
const REREAD_AFTER: Duration = Duration::from_secs(2);
/// How often to look whether the controllers that are known still answer.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A database. Clones are the same handle, and share its connections and caches.
///
/// All work happens on the tokio runtime in which the handle was made; there are no threads behind it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
/// # let database = ferrisdb_client::Database::memory().await?;
/// let same = database.clone();
/// same.run_transaction(|transaction| async move { transaction.set("k", "v") }).await?;
/// assert_eq!(database.transaction().get("k").await?, Some("v".into()));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

/// What all clones and transactions of a handle share.
struct Inner {
    /// First, so that its tasks end first.
    watches: Watches,
    cluster: Arc<Cluster>,
    connection: Connection,
    /// What each transaction begins with.
    defaults: RwLock<TransactionOptions>,
    /// Reads the cluster file again whenever nobody answers.
    _rereading: Option<Task>,
    acknowledged_ids: AcknowledgedIds,
    /// What the status among the special keys compares with.
    readings: Readings,
    /// The servers, if they run inside this process for this handle alone.
    #[cfg(feature = "embedded")]
    embedded: Mutex<Option<ferrisdb_server::host::Embedded>>,
}

impl Database {
    /// Connects to a cluster by its controllers, `host:port[,host:port...]`, or by the line of a cluster file,
    /// `description:id@host:port,...`. One controller that answers is enough.
    ///
    /// ```no_run
    /// # async fn example() -> ferrisdb_client::Result<()> {
    /// # use ferrisdb_client::Database;
    /// let database = Database::connect("10.0.0.1:4500,10.0.0.2:4500,10.0.0.3:4500").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::ConnectionStringInvalid`] for a list that is not of that form; otherwise why no controller
    /// answered within ten seconds.
    pub async fn connect(controllers: &str) -> Result<Database> {
        Self::connect_to(controllers.parse()?, Settings::default()).await
    }

    /// Connects to the cluster of a cluster file; of the one that is found where one is looked for, if no path is given: see
    /// [`Connection::find`].
    ///
    /// The file is read again whenever no controller answers that knows a leader, for as long as the handle lives: controllers may
    /// have moved while this process slept.
    ///
    /// ```no_run
    /// # async fn example() -> ferrisdb_client::Result<()> {
    /// # use ferrisdb_client::Database;
    /// let database = Database::connect_by_file(None).await?;
    /// let other = Database::connect_by_file(Some("/etc/ferrisdb/test.cluster".as_ref())).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Connection::read`]; why no controller answered within ten seconds.
    pub async fn connect_by_file(path: Option<&Path>) -> Result<Database> {
        let read = || path.map_or_else(Connection::find, Connection::read);
        let settings = Settings::default();
        let deadline = runtime::now() + settings.connect_limit;
        let mut connection = read()?;
        loop {
            let left = deadline.saturating_duration_since(runtime::now());
            let connect_limit = left.min(REREAD_AFTER);
            let patient = Settings { connect_limit, ..settings.clone() };
            match Self::connect_to(connection.clone(), patient).await {
                Err(_) if runtime::now() < deadline => connection = read().unwrap_or(connection),
                result => return result,
            }
        }
    }

    /// Connects with settings of the caller's to a cluster that is described as in a cluster file.
    ///
    /// ```no_run
    /// # async fn example() -> ferrisdb_client::Result<()> {
    /// # use ferrisdb_client::Database;
    /// use ferrisdb_client::{Connection, Settings};
    /// let settings = Settings { read_limit: std::time::Duration::from_secs(1), ..Settings::default() };
    /// let database = Database::connect_to(Connection::find()?, settings).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Why no controller answered within [`Settings::connect_limit`].
    pub async fn connect_to(connection: Connection, settings: Settings) -> Result<Database> {
        let database = Self::connect_lazily(connection, settings)?;
        database.cluster().connected().await?;
        Ok(database)
    }

    /// A handle that does not wait until anybody answers: whatever is asked for waits instead, and fails if that takes too
    /// long.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// use ferrisdb_client::{Database, Settings};
    /// // Nobody listens there; that is found out by whoever asks for something.
    /// let database = Database::connect_lazily("127.0.0.1:1".parse()?, Settings::default())?;
    /// let transaction = database.transaction();
    /// transaction.set("k", "v")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::WrongCluster`] for an id that contradicts what is known.
    pub fn connect_lazily(connection: Connection, settings: Settings) -> Result<Database> {
        let network = Network::new();
        network.stay_awake(settings.stay_awake);
        Self::on_network(network, connection, settings)
    }

    fn on_network(
        network: Network,
        connection: Connection,
        settings: Settings,
    ) -> Result<Database> {
        if let Some(id) = connection.cluster_id() {
            network.join(id)?;
        }
        check_watches_max(settings.watches_max)?;
        let (watches_max, defaults) = (settings.watches_max, settings.defaults.clone());
        let cluster = Arc::new(Cluster::new(network, connection.addresses.clone(), settings));
        let rereading = connection.path.as_ref().map(|path| {
            let (path, connection, cluster) =
                (path.clone(), connection.clone(), Arc::clone(&cluster));
            runtime::keep_running("following the cluster file", move || {
                reread(path.clone(), connection.clone(), Arc::clone(&cluster))
            })
        });
        let inner = Inner {
            watches: Watches::new(Arc::clone(&cluster), watches_max),
            cluster,
            connection,
            defaults: RwLock::new(defaults),
            _rereading: rereading,
            acknowledged_ids: AcknowledgedIds::default(),
            readings: Readings::default(),
            #[cfg(feature = "embedded")]
            embedded: Mutex::default(),
        };
        Ok(Database { inner: Arc::new(inner) })
    }

    /// Connects over a network of the caller's: in process, or simulated.
    ///
    /// # Errors
    ///
    /// Why no controller answered.
    pub async fn connect_with(network: Network, controllers: Vec<Address>) -> Result<Database> {
        Self::connect_with_settings(network, controllers, Settings::default()).await
    }

    /// Connects with settings of the caller's.
    ///
    /// # Errors
    ///
    /// Why no controller answered within [`Settings::connect_limit`]; [`ErrorCode::InvalidArgument`] for a setting out of
    /// its bounds.
    pub async fn connect_with_settings(
        network: Network,
        controllers: Vec<Address>,
        settings: Settings,
    ) -> Result<Database> {
        let database = Self::on_network(network, Connection::to(controllers), settings)?;
        database.cluster().connected().await?;
        Ok(database)
    }

    /// How the cluster is reached, as it was given.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// println!("connected to {}", database.connection());
    /// # Ok(()) }
    /// ```
    pub fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    /// An option that every transaction of this handle begins with from now on, and begins with again when it is reset.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// use ferrisdb_client::TransactionOption;
    /// database.set_default(TransactionOption::Timeout(std::time::Duration::from_secs(10)))?;
    /// database.set_default(TransactionOption::ReadOnly)?;
    /// assert!(database.transaction().set("k", "v").is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] for a value that the option does not take.
    pub fn set_default(&self, option: TransactionOption) -> Result<()> {
        self.inner.defaults.write().set(option)
    }

    /// How many [watches](crate::Watch) may wait at a time from now on; those that wait already stay.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// database.set_watches_max(0)?;
    /// assert!(database.transaction().watch("k").await.is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] for more than [`limits::WATCHES_MAX`].
    pub fn set_watches_max(&self, watches_max: usize) -> Result<()> {
        check_watches_max(watches_max)?;
        self.inner.watches.set_max(watches_max);
        Ok(())
    }

    /// The id that the cluster has given itself.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// assert_eq!(database.cluster_id().await?.to_string().len(), 32);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Why no controller answered.
    pub async fn cluster_id(&self) -> Result<ClusterId> {
        let limit = self.settings().connect_limit;
        Ok(self.cluster().state_after(0, limit).await?.cluster_id)
    }

    /// A new transaction. Nothing is sent before its first read or its commit.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// let transaction = database.transaction();
    /// transaction.set("k", "v")?;
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    /// Runs a transaction: calls `body`, commits what it did, and starts over as long as an error says that
    /// this may help. Takes effect exactly once, or not at all if an error is returned.
    ///
    /// The body may run several times, so it should not change anything but the transaction. When it
    /// returns an error that holds no retryable FerrisDB error the transaction is given up and the error
    /// returned.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// use ferrisdb_client::Error;
    /// let visits = database
    ///     .run_transaction(|transaction| async move {
    ///         let visits = transaction.get("visits").await?.map_or(0, |value| value.len());
    ///         transaction.set("visits", vec![b'|'; visits + 1])?;
    ///         Ok::<_, Error>(visits + 1)
    ///     })
    ///     .await?;
    /// assert_eq!(visits, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What the body returned, an error that a retry does not help, or the last one when a limit of time or
    /// retries was reached. [`ErrorCode::CommitUnknownResult`] if such a limit was reached before the fate
    /// of an attempt was found out (I-6), or if that took longer than the cluster remembers it: ten minutes
    /// at least.
    pub async fn run_transaction<T, E, F, Fut>(&self, body: F) -> Result<T, E>
    where
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error> + AsError,
    {
        retry::run(self, body).await
    }

    /// What an operator wants to know, from the first controller that answers.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// let status = database.status().await?;
    /// println!("{:?}, {} processes", status.cluster.phase, status.processes.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Why the last controller did not answer.
    pub async fn status(&self) -> Result<Status> {
        self.cluster().status().await
    }

    /// Ends the use of the database, and clears what it has left there to find out about its commits. If it is embedded, its servers are stopped cleanly; whatever other clones
    /// and transactions still ask for fails then. Connections end when the last of those is gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// database.run_transaction(|transaction| async move { transaction.add("visits", 1) }).await?;
    /// database.close().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// None so far.
    pub async fn close(self) -> Result<()> {
        let cleared = runtime::timeout(CLOSE_LIMIT, Stage::Client, self.clear_records()).await;
        if let Err(error) = cleared.and_then(|cleared| cleared) {
            tracing::debug!(%error, "records of idempotency ids are left to the sweeper");
        }
        #[cfg(feature = "embedded")]
        {
            // Taken out under the lock, stopped after it.
            let embedded = self.inner.embedded.lock().take();
            if let Some(embedded) = embedded {
                let detail = "the database was closed";
                let closed = Error::new(ErrorCode::ShuttingDown, Stage::Client, detail);
                self.watches().close(&closed);
                embedded.shut_down().await;
            }
        }
        Ok(())
    }

    /// Clears the records of committed transactions that no later one has cleared along with its work.
    async fn clear_records(&self) -> Result<()> {
        let Some((mut request, clearing)) = self.acknowledged_ids().clear_all() else {
            return Ok(());
        };
        request.read_version = match self.cluster().recent_version() {
            Some(version) => version,
            None => self.cluster().read_version(Priority::Default).await?,
        };
        self.cluster().commit(request, &AtomicBool::new(false)).await?;
        clearing.done();
        Ok(())
    }

    /// Keeps the servers running as long as the handle lives.
    #[cfg(feature = "embedded")]
    pub(crate) fn keep_running(&self, embedded: ferrisdb_server::host::Embedded) {
        *self.inner.embedded.lock() = Some(embedded);
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.inner.watches
    }

    pub(crate) fn defaults(&self) -> TransactionOptions {
        self.inner.defaults.read().clone()
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.inner.cluster.settings()
    }

    pub(crate) fn readings(&self) -> &Readings {
        &self.inner.readings
    }

    pub(crate) fn acknowledged_ids(&self) -> &AcknowledgedIds {
        &self.inner.acknowledged_ids
    }
}

fn check_watches_max(watches_max: usize) -> Result<()> {
    if watches_max <= limits::WATCHES_MAX {
        return Ok(());
    }
    let detail = format!("{watches_max} watches, at most {}", limits::WATCHES_MAX);
    Err(Error::new(ErrorCode::InvalidArgument, Stage::Client, detail))
}

/// Reads the cluster file whenever the controllers that are known do not answer: the operator may have corrected it, or all of
/// them may have moved while this process slept.
async fn reread(path: PathBuf, mut connection: Connection, cluster: Arc<Cluster>) {
    let mut last_error = None;
    loop {
        runtime::sleep(LOOK_EVERY).await;
        if !cluster.controllers().is_lost() {
            continue;
        }
        let read = path.clone();
        let found = runtime::blocking(move || Connection::read(read)).await;
        match found {
            Ok(found) if found != connection => {
                tracing::info!(%found, path = %path.display(), "the cluster file has changed");
                cluster.controllers().give(found.addresses.clone());
                connection = found;
                last_error = None;
            }
            Ok(_) => last_error = None,
            // Said once, not all the time that nobody answers.
            Err(error) if last_error.as_ref() != Some(&error) => {
                tracing::warn!(%error, "the cluster file cannot be read again");
                last_error = Some(error);
            }
            Err(_) => {}
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Database")
    }
}
