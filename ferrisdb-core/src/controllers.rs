//! The controllers of a cluster, as a process or client knows them, and which of them leads.
//!
//! ```text
//!   given at the start     c1 c2                    from the command line
//!   learnt since           c1 c2 c4                 the cluster's state says who is a member now
//!   leader()               asks all of them at once: the first that leads, or knows who does
//! ```
//!
//! One list per process and cluster, shared by all who talk to controllers.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;

use crate::{
    error::{Error, ErrorCode, Result, Stage},
    id::{Address, Endpoint},
    limits,
    service::{
        Client,
        controller::{ControllerMember, ControllerService, Leader},
    },
    transport::{self, Network},
};

/// The controllers. Clones are the same list.
#[derive(Clone, Debug)]
pub struct Controllers {
    inner: Arc<Inner>,
}

struct Inner {
    network: Network,
    /// Where to begin when those that were learnt do not answer.
    given: Mutex<Vec<Address>>,
    learnt: Mutex<Vec<Address>>,
    /// Connections, kept as long as they work: while there is no leader everybody asks all the time.
    clients: Mutex<BTreeMap<Address, Client<ControllerService>>>,
}

impl Controllers {
    /// The controllers at these addresses; any one of them that runs is enough to find the others.
    pub fn new(network: Network, given: Vec<Address>) -> Controllers {
        let inner = Inner {
            network,
            given: Mutex::new(given),
            learnt: Mutex::default(),
            clients: Mutex::default(),
        };
        Controllers { inner: Arc::new(inner) }
    }

    /// Begins at these addresses from now on: those that were given before have moved.
    pub fn give(&self, addresses: Vec<Address>) {
        *self.inner.given.lock() = addresses;
    }

    /// All addresses that are known, the given ones first.
    pub fn addresses(&self) -> Vec<Address> {
        let mut all = self.inner.given.lock().clone();
        all.extend(self.inner.learnt.lock().iter().cloned());
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|address| seen.insert(address.clone()));
        all
    }

    /// Learns who is a member now.
    pub fn learn(&self, members: &[ControllerMember]) {
        let addresses: Vec<_> = members.iter().map(|member| member.address.clone()).collect();
        *self.inner.learnt.lock() = addresses;
    }

    /// The leader, with a connection to it: whoever of all says first that it leads, otherwise whom they name.
    ///
    /// All are asked at once. The one that led last is no better than the others: who asks has just met an error.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotLeader`] if none of those that answer leads or knows who does, or what made the last of
    /// them silent.
    pub async fn leader(&self) -> Result<(Address, Client<ControllerService>)> {
        let mut error = Error::new(ErrorCode::NotLeader, Stage::Control, "no controller leads");
        let mut named = Vec::new();
        let addresses = self.addresses();
        let mut asked: FuturesUnordered<_> = addresses.iter().map(|a| self.ask(a)).collect();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok((leader, client, at)) => {
                    self.learn(&leader.controllers);
                    match leader.address {
                        Some(address) if address == at => return Ok((at, client)),
                        Some(address) => named.push(address),
                        None => {}
                    }
                }
                Err(failed) => error = failed,
            }
        }
        // Those that were asked have answered for themselves.
        named.retain(|address| !addresses.contains(address));
        for address in named {
            match self.confirm(&address).await {
                Ok(found) => return Ok(found),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    /// What one controller says of who leads; for status.
    ///
    /// # Errors
    ///
    /// Why it did not answer.
    pub async fn ask_one(&self, address: &Address) -> Result<Leader> {
        self.ask(address).await.map(|(leader, ..)| leader)
    }

    async fn confirm(&self, address: &Address) -> Result<(Address, Client<ControllerService>)> {
        let (leader, client, at) = self.ask(address).await?;
        if leader.address.as_ref() == Some(address) {
            self.learn(&leader.controllers);
            return Ok((at, client));
        }
        let detail = format!("{address} does not lead the controllers");
        Err(Error::new(ErrorCode::NotLeader, Stage::Control, detail))
    }

    async fn ask(&self, address: &Address) -> Result<(Leader, Client<ControllerService>, Address)> {
        let known = self.inner.clients.lock().remove(address);
        let asked = async {
            let client = match known {
                Some(client) => client,
                None => {
                    let endpoint = Endpoint::of_process(address.clone());
                    self.inner.network.connect::<ControllerService>(&endpoint).await?
                }
            };
            let leader = transport::call(limits::LEADER_ANSWER_MAX, Stage::Control, |context| {
                client.leader(context)
            });
            Ok::<_, Error>((leader.await??, client))
        };
        // The connection counts, too: a machine that has gone does not refuse it.
        let (leader, client) =
            crate::runtime::timeout(limits::LEADER_ANSWER_MAX, Stage::Control, asked)
                .await
                .and_then(|answer| answer)
                .map_err(|error| error.at(address))?;
        self.inner.clients.lock().insert(address.clone(), client.clone());
        Ok((leader, client, address.clone()))
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {:?}", self.given.lock(), self.learnt.lock())
    }
}
