//! What operators ask for, as methods of the database.
//!
//! ```text
//!   configure   redundancy triple          a third copy of everything, in a third zone
//!   exclude     10.0.0.7:4502              its data and its roles go elsewhere; then it can be stopped
//!   include     10.0.0.7:4502              it is used again
//!   controllers add 10.0.0.9:4500          one more member of the group that decides all this
//! ```
//!
//! A command is done when the controllers remember it: no failure undoes it then. Carrying it out takes longer, and
//! goes on without the caller; [`Database::status`] says how far it is.
//!
//! Every command says how things shall be, not how to change them, so giving one twice does no harm. That is
//! why a command is given again when the leader of the controllers changes under it.

use std::{collections::BTreeSet, time::Duration};

use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Result, Stage,
    id::Address,
    limits, runtime,
    service::controller::{
        Command, ConfigurationChange, ControllerMember, ControllerService, Leader, ProcessSelector,
    },
    transport::{self, Network},
};

use crate::database::Database;

/// How long to wait before a command is given to the next leader.
const PAUSE: Duration = Duration::from_millis(100);

impl Database {
    /// Changes the configuration, as far as `change` says.
    ///
    /// ```no_run
    /// # use ferrisdb_client::{ConfigurationChange, Database, Error, Redundancy};
    /// # async fn example(database: Database) -> Result<(), Error> {
    /// let redundancy = Some(Redundancy::Triple);
    /// database.configure(ConfigurationChange { redundancy, ..Default::default() }).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotSatisfiable`] if there are not enough processes in different zones for it, or
    /// [`ErrorCode::InvalidArgument`]: nothing is changed then; [`ErrorCode::Unavailable`] if a controller has just begun to lead and
    /// may not have heard of all processes: ask again. Otherwise as [`Database::administer`].
    pub async fn configure(&self, change: ConfigurationChange) -> Result<()> {
        self.administer(Command::Configure(change)).await
    }

    /// Has data and roles of these processes go elsewhere, for good. They can be stopped when the status
    /// shows no shard, no log and no role on them any more.
    ///
    /// ```no_run
    /// # async fn example(database: ferrisdb_client::Database) -> ferrisdb_client::Result<()> {
    /// use ferrisdb_client::{Address, ProcessSelector};
    /// database.exclude(vec![ProcessSelector::Address(Address::new("10.0.0.7:4502"))]).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotSatisfiable`] if too few would be left, [`ErrorCode::InvalidArgument`] for a process that
    /// nobody knows: nothing is changed then; [`ErrorCode::Unavailable`] if a controller has just begun to lead and may not have heard
    /// of all processes: ask again. Otherwise as [`Database::administer`].
    pub async fn exclude(&self, processes: Vec<ProcessSelector>) -> Result<()> {
        self.administer(Command::Exclude(processes)).await
    }

    /// Takes excluded processes back.
    ///
    /// ```no_run
    /// # async fn example(database: ferrisdb_client::Database) -> ferrisdb_client::Result<()> {
    /// use ferrisdb_client::{Address, ProcessSelector};
    /// database.include(vec![ProcessSelector::Address(Address::new("10.0.0.7:4502"))]).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] for a process that nobody knows. Otherwise as [`Database::administer`].
    pub async fn include(&self, processes: Vec<ProcessSelector>) -> Result<()> {
        self.administer(Command::Include(processes)).await
    }

    /// Makes a controller, which runs already, a member of the group. Returns when it has caught up.
    ///
    /// ```no_run
    /// # async fn example(database: ferrisdb_client::Database) -> ferrisdb_client::Result<()> {
    /// # use ferrisdb_client::Address;
    /// database.add_controller(Address::new("10.0.0.9:4500")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] if it is a member already, or why it could not be reached.
    pub async fn add_controller(&self, address: Address) -> Result<()> {
        self.administer(Command::AddController(address)).await
    }

    /// Removes a controller from the group, whether it runs or not.
    ///
    /// ```no_run
    /// # async fn example(database: ferrisdb_client::Database) -> ferrisdb_client::Result<()> {
    /// # use ferrisdb_client::Address;
    /// database.remove_controller(Address::new("10.0.0.9:4500")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] if it is no member, [`ErrorCode::NotSatisfiable`] if it is the only one.
    pub async fn remove_controller(&self, address: Address) -> Result<()> {
        self.administer(Command::RemoveController(address)).await
    }

    /// Gives the controllers a command. Returns when they remember it; carrying it out takes longer.
    ///
    /// ```no_run
    /// # async fn example(database: ferrisdb_client::Database) -> ferrisdb_client::Result<()> {
    /// # use ferrisdb_client::{Address, Command};
    /// database.administer(Command::AddController(Address::new("10.0.0.9:4500"))).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Why it was refused. [`ErrorCode::NotLeader`], [`ErrorCode::Unreachable`] or [`ErrorCode::TooBusy`] if no leader was found
    /// that has taken it, in the time of [`crate::Settings::connect_limit`]; [`ErrorCode::TimedOut`] if one has it and does not answer:
    /// then it may or may not be remembered, and giving it again is safe.
    pub async fn administer(&self, command: Command) -> Result<()> {
        let deadline = runtime::now() + self.settings().connect_limit;
        loop {
            let Err(error) = self.cluster().administer(command.clone()).await else {
                return Ok(());
            };
            // Another one may lead by then; or there is room again, in this process or at the controllers.
            let may_work_soon = matches!(
                error.code(),
                ErrorCode::NotLeader | ErrorCode::Unreachable | ErrorCode::TooBusy
            );
            if !may_work_soon || runtime::now() >= deadline {
                return Err(error);
            }
            runtime::sleep(runtime::jitter(PAUSE)).await;
        }
    }

    /// Asks every controller that is known who leads. See [`ask_controllers`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> ferrisdb_client::Result<()> {
    /// # let database = ferrisdb_client::Database::memory().await?;
    /// for answer in database.ask_controllers().await {
    ///     println!("{}: {:?}", answer.address, answer.answer.map(|leader| leader.address));
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn ask_controllers(&self) -> Vec<ControllerAnswer> {
        let cluster = self.cluster();
        ask_controllers(cluster.network(), &cluster.controllers().addresses()).await
    }
}

/// What a controller says of who leads.
#[derive(Clone, Debug)]
pub struct ControllerAnswer {
    /// The controller.
    pub address: Address,
    /// Its answer, or why there is none.
    pub answer: Result<Leader>,
}

/// Asks the controllers at these addresses, and those that they name, who leads; in the order of their
/// addresses. For the case that no database can be connected to, because nobody leads.
///
/// ```no_run
/// # async fn example() -> ferrisdb_client::Result<()> {
/// use ferrisdb_client::{Address, Network, ask_controllers};
/// for answer in ask_controllers(&Network::new(), &[Address::new("10.0.0.1:4500")]).await {
///     println!("{}: {}", answer.address, if answer.answer.is_ok() { "answers" } else { "is silent" });
/// }
/// # Ok(()) }
/// ```
pub async fn ask_controllers(network: &Network, addresses: &[Address]) -> Vec<ControllerAnswer> {
    let mut answers: Vec<ControllerAnswer> = Vec::new();
    let mut known: BTreeSet<Address> = BTreeSet::new();
    let mut next: BTreeSet<Address> = addresses.iter().cloned().collect();
    // Whoever is named by somebody is asked, too; two rounds unless the group is just being changed.
    while !next.is_empty() {
        let asked = next.iter().map(|address| ask(network, address));
        let found = futures::future::join_all(asked).await;
        known.append(&mut next);
        for leader in found.iter().filter_map(|answer| answer.answer.as_ref().ok()) {
            let members =
                leader.controllers.iter().map(|member: &ControllerMember| &member.address);
            let named = members.chain(&leader.address);
            next.extend(named.filter(|address| !known.contains(*address)).cloned());
        }
        answers.extend(found);
    }
    answers.sort_by(|one, other| one.address.cmp(&other.address));
    answers
}

async fn ask(network: &Network, address: &Address) -> ControllerAnswer {
    let asked = async {
        let endpoint = Endpoint::of_process(address.clone());
        let client = network.connect::<ControllerService>(&endpoint).await?;
        transport::call(limits::LEADER_ANSWER_MAX, Stage::Control, |context| client.leader(context))
            .await?
    };
    // The connection counts, too: a machine that has gone does not refuse it.
    let answer = runtime::timeout(limits::LEADER_ANSWER_MAX, Stage::Control, asked).await;
    let answer = answer.and_then(|answer| answer).map_err(|error: Error| error.at(address));
    ControllerAnswer { address: address.clone(), answer }
}
