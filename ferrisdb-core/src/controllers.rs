//! The controllers of a cluster, as a process or client knows them, and which of them leads.
//!
//! ```text
//!   given at the start     c1 c2                    from the command line, or a cluster file
//!   learnt since           c1 c2 c4                 the newest state says who is a member now
//!   former                 c3                       was given or learnt once
//!   leader()               asks all of them at once: the first that leads, or knows who does
//!   to_follow()            the members; everybody who was ever known while none of the members is in touch with a leader
//! ```
//!
//! One list per process and cluster, shared by all who talk to controllers. A process that slept while all controllers were
//! replaced finds its way back by what it knew before, or by what its file says now: [`Controllers::is_lost`] tells it to look.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    error::{Error, ErrorCode, Result, Stage},
    id::{Address, Endpoint},
    limits,
    runtime::{self, Instant},
    service::{
        Client,
        controller::{ControllerMember, ControllerService, Leader},
    },
    transport::{self, Network},
};

/// After so long without a word of a member that hears from a leader, everybody else is asked as well.
pub const LOST_AFTER: Duration = Duration::from_secs(2);
/// How many former addresses are remembered.
const FORMER_MAX: usize = 64;

/// The controllers. Clones are the same list.
#[derive(Clone, Debug)]
pub struct Controllers {
    inner: Arc<Inner>,
}

struct Inner {
    network: Network,
    known: Mutex<Known>,
    changed: Notify,
    /// Connections, kept as long as they work: while there is no leader everybody asks all the time.
    clients: Mutex<BTreeMap<Address, Client<ControllerService>>>,
}

/// The addresses, and who has answered.
struct Known {
    /// Where to begin.
    given: Vec<Address>,
    learnt: Vec<Address>,
    /// The newest last.
    former: VecDeque<Address>,
    /// When each was in touch with the leader last.
    heard: BTreeMap<Address, Instant>,
    since: Instant,
}

impl Known {
    /// Remembers addresses that are about to be replaced.
    fn keep(&mut self, addresses: Vec<Address>) {
        for address in addresses {
            self.former.retain(|former| *former != address);
            self.former.push_back(address);
        }
        while self.former.len() > FORMER_MAX {
            self.former.pop_front();
        }
    }

    fn members(&self) -> &[Address] {
        if self.learnt.is_empty() { &self.given } else { &self.learnt }
    }

    fn is_lost(&self, now: Instant) -> bool {
        let heard = self.members().iter().filter_map(|member| self.heard.get(member));
        let last = heard.max().copied().unwrap_or(self.since).max(self.since);
        now.saturating_duration_since(last) >= LOST_AFTER
    }

    /// All addresses, the given ones first.
    fn all(&self) -> Vec<Address> {
        let all = self.given.iter().chain(&self.learnt).chain(self.former.iter().rev());
        distinct(all.cloned())
    }
}

fn distinct(addresses: impl Iterator<Item = Address>) -> Vec<Address> {
    let mut seen = BTreeSet::new();
    addresses.filter(|address| seen.insert(address.clone())).collect()
}

impl Controllers {
    /// The controllers at these addresses; any one of them that runs is enough to find the others.
    pub fn new(network: Network, given: Vec<Address>) -> Controllers {
        let known = Known {
            given,
            learnt: Vec::new(),
            former: VecDeque::new(),
            heard: BTreeMap::new(),
            since: runtime::now(),
        };
        let inner = Inner {
            network,
            known: Mutex::new(known),
            changed: Notify::new(),
            clients: Mutex::default(),
        };
        Controllers { inner: Arc::new(inner) }
    }

    /// Begins at these addresses from now on: those that were given before have moved.
    pub fn give(&self, addresses: Vec<Address>) {
        {
            let mut known = self.inner.known.lock();
            let replaced = std::mem::replace(&mut known.given, addresses);
            known.keep(replaced);
        }
        self.inner.changed.notify_waiters();
    }

    /// All addresses that are known, the given ones first; former ones only while none of the others knows a leader.
    pub fn addresses(&self) -> Vec<Address> {
        let known = self.inner.known.lock();
        if known.is_lost(runtime::now()) {
            return known.all();
        }
        distinct(known.given.iter().chain(&known.learnt).cloned())
    }

    /// Whom to ask for news of the cluster: the members, or everybody while those are out of touch.
    pub fn to_follow(&self) -> Vec<Address> {
        let known = self.inner.known.lock();
        if known.is_lost(runtime::now()) { known.all() } else { known.members().to_vec() }
    }

    /// The members, as far as they are known.
    pub fn members(&self) -> Vec<Address> {
        self.inner.known.lock().members().to_vec()
    }

    /// Waits until other addresses are known than before.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// Whether no member has been in touch with a leader for a while: whoever has a file to go by reads it again.
    pub fn is_lost(&self) -> bool {
        self.inner.known.lock().is_lost(runtime::now())
    }

    /// A controller has answered that leads or hears from the leader.
    pub fn heard(&self, address: &Address) {
        let now = runtime::now();
        let mut known = self.inner.known.lock();
        match known.heard.get_mut(address) {
            Some(heard) => *heard = now,
            None => {
                known.heard.insert(address.clone(), now);
            }
        }
    }

    /// Learns who is a member now, from the newest state or from the leader itself: others may be members no more, and not
    /// know it.
    pub fn learn(&self, members: &[ControllerMember]) {
        let addresses: Vec<_> = members.iter().map(|member| member.address.clone()).collect();
        {
            let mut known = self.inner.known.lock();
            if known.learnt == addresses || addresses.is_empty() {
                return;
            }
            known.heard.retain(|address, _| addresses.contains(address));
            let replaced = std::mem::replace(&mut known.learnt, addresses);
            known.keep(replaced);
            // The new ones get a moment to answer.
            known.since = runtime::now();
        }
        self.inner.changed.notify_waiters();
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
                Ok((leader, client, at)) => match leader.address {
                    Some(address) if address == at => {
                        self.learn(&leader.controllers);
                        self.heard(&at);
                        return Ok((at, client));
                    }
                    Some(address) => named.push(address),
                    None => {}
                },
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
            self.heard(address);
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
                None => self.connect(address).await?,
            };
            let leader = transport::call(limits::LEADER_ANSWER_MAX, Stage::Control, |context| {
                client.leader(context)
            });
            Ok::<_, Error>((leader.await??, client))
        };
        // The connection counts, too: a machine that has gone does not refuse it.
        let (leader, client) = runtime::timeout(limits::LEADER_ANSWER_MAX, Stage::Control, asked)
            .await
            .and_then(|answer| answer)
            .map_err(|error| error.at(address))?;
        self.inner.clients.lock().insert(address.clone(), client.clone());
        Ok((leader, client, address.clone()))
    }

    /// A new connection to a controller.
    ///
    /// # Errors
    ///
    /// What [`Network::connect`] says.
    pub async fn connect(&self, address: &Address) -> Result<Client<ControllerService>> {
        let endpoint = Endpoint::of_process(address.clone());
        self.inner.network.connect::<ControllerService>(&endpoint).await
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.known.lock();
        write!(f, "{:?}, {:?}", known.given, known.learnt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(names: &[&str]) -> Vec<Address> {
        names.iter().map(|name| Address::new(*name)).collect()
    }

    fn members(names: &[&str]) -> Vec<ControllerMember> {
        (1..)
            .zip(addresses(names))
            .map(|(node, address)| ControllerMember { node, address })
            .collect()
    }

    /// As if so much time had passed.
    fn pass(controllers: &Controllers, time: Duration) {
        let mut known = controllers.inner.known.lock();
        known.since -= time;
        known.heard.values_mut().for_each(|heard| *heard -= time);
    }

    #[test]
    fn members_are_followed_and_everybody_when_none_of_them_is_in_touch() {
        let controllers = Controllers::new(Network::new(), addresses(&["a", "b"]));
        assert_eq!(controllers.to_follow(), addresses(&["a", "b"]));
        controllers.learn(&members(&["b", "c"]));
        controllers.learn(&members(&["c", "d"]));
        assert_eq!(controllers.to_follow(), addresses(&["c", "d"]));
        pass(&controllers, LOST_AFTER);
        assert!(controllers.is_lost());
        assert_eq!(controllers.to_follow(), addresses(&["a", "b", "c", "d"]));
        controllers.heard(&Address::new("d"));
        assert_eq!(controllers.to_follow(), addresses(&["c", "d"]));
        // A former one that still runs is no sign of the members.
        pass(&controllers, LOST_AFTER);
        controllers.heard(&Address::new("b"));
        assert!(controllers.is_lost());
    }

    #[test]
    fn new_addresses_replace_those_that_were_given_and_none_is_forgotten() {
        let controllers = Controllers::new(Network::new(), addresses(&["a"]));
        controllers.give(addresses(&["x"]));
        assert_eq!(controllers.addresses(), addresses(&["x"]));
        pass(&controllers, LOST_AFTER);
        assert_eq!(controllers.addresses(), addresses(&["x", "a"]));
        for number in 0..2 * FORMER_MAX {
            controllers.give(addresses(&[&format!("{number}")]));
        }
        assert_eq!(controllers.addresses().len(), FORMER_MAX + 1);
    }
}
