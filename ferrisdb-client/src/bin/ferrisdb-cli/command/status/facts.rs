//! What follows from a status, in the terms in which people ask: pure functions, without a judgement.
//!
//! ```text
//!   is this process alive, what is still on it        Facts::is_alive, Facts::uses_of
//!   how many copies of a shard can be read            Facts::members_alive
//!   can the database be read, can it be written       Facts::availability
//!   is the cluster what its configuration says        Facts::unsettled
//! ```

use std::collections::BTreeMap;

use ferrisdb_client::{Status, Version};
use ferrisdb_core::{
    Shard,
    id::{Address, ProcessId, Tag},
    limits::VERSIONS_PER_SECOND,
    service::controller::{
        LogSet, Phase, ProcessClass, ProcessSelector, ProcessStatus, StorageServer, is_selected,
    },
};

/// A status, made ready for looking up.
pub(crate) struct Facts<'a> {
    pub(crate) status: &'a Status,
    processes: BTreeMap<ProcessId, &'a ProcessStatus>,
    servers: BTreeMap<Tag, &'a StorageServer>,
}

/// Whether the database can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Availability {
    /// Whether a generation is active: without one there are no read versions and no commits.
    pub(crate) is_active: bool,
    /// How many shards have no living member.
    pub(crate) shards_unreadable: usize,
    /// How many shards have no member of which it is known that it lives, and one of which nothing is known yet.
    pub(crate) shards_unknown: usize,
}

/// What is excluded, and what is still on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Excluded {
    /// As the operator has named it.
    pub(crate) selector: ProcessSelector,
    pub(crate) name: String,
    /// Empty when it is drained.
    pub(crate) uses: Vec<String>,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(status: &'a Status) -> Facts<'a> {
        let processes = status.processes.iter().map(|p| (p.heartbeat.process, p));
        let servers = status.cluster.storage_servers.iter().map(|server| (server.tag, server));
        Facts { status, processes: processes.collect(), servers: servers.collect() }
    }

    pub(crate) fn shards(&self) -> &'a [Shard] {
        self.status.cluster.shards.shards()
    }

    pub(crate) fn process(&self, process: ProcessId) -> Option<&'a ProcessStatus> {
        self.processes.get(&process).copied()
    }

    pub(crate) fn server(&self, tag: Tag) -> Option<&'a StorageServer> {
        self.servers.get(&tag).copied()
    }

    pub(crate) fn is_alive(&self, process: ProcessId) -> bool {
        self.process(process).is_some_and(|process| process.alive)
    }

    pub(crate) fn is_excluded(&self, process: ProcessId) -> bool {
        let server = || {
            let mut servers = self.status.cluster.storage_servers.iter();
            servers.find(|server| server.process == process).map(|s| &s.endpoint.address)
        };
        let heard = self.process(process).map(|process| &process.heartbeat.worker.address);
        // Whoever was not heard may be meant by its identity.
        let nowhere = Address::new("");
        let at = heard.or_else(server).unwrap_or(&nowhere);
        is_selected(&self.status.cluster.excluded, process, at)
    }

    pub(crate) fn server_is_alive(&self, tag: Tag) -> bool {
        self.server(tag).is_some_and(|server| self.is_alive(server.process))
    }

    /// How many of a shard's members are alive.
    pub(crate) fn members_alive(&self, shard: &Shard) -> usize {
        shard.teams.team.iter().filter(|tag| self.server_is_alive(**tag)).count()
    }

    /// Whether the controller leads for so short a time that whoever it has not heard of may well be alive.
    pub(crate) fn is_early(&self) -> bool {
        self.status.leads_for_ms < self.status.failure_timeout_ms
    }

    /// Whether nothing can be said of a process yet.
    pub(crate) fn is_unknown(&self, process: ProcessId) -> bool {
        self.is_early() && self.process(process).is_none()
    }

    /// Whether nothing can be said of some member of a shard yet.
    pub(crate) fn has_unknown_member(&self, shard: &Shard) -> bool {
        let servers = shard.teams.team.iter().filter_map(|tag| self.server(*tag));
        servers.into_iter().any(|server| self.is_unknown(server.process))
    }

    /// How many copies of everything there should be.
    pub(crate) fn copies(&self) -> usize {
        let configuration = self.status.cluster.configuration.as_ref();
        configuration.map_or(1, |configuration| configuration.redundancy.copies() as usize)
    }

    /// How many members a shard should have: whoever it has, and no fewer than the configuration says.
    pub(crate) fn members_wanted(&self, shard: &Shard) -> usize {
        shard.teams.team.len().max(self.copies())
    }

    /// "log process at host:4501 (zone a)".
    pub(crate) fn name(&self, process: ProcessId) -> String {
        if let Some(known) = self.process(process) {
            let heartbeat = &known.heartbeat;
            let (class, address) = (heartbeat.class, &heartbeat.worker.address);
            return format!("{class} process at {address} (zone {})", heartbeat.zone);
        }
        let servers = &self.status.cluster.storage_servers;
        if let Some(server) = servers.iter().find(|server| server.process == process) {
            return format!(
                "storage process at {} (zone {})",
                server.endpoint.address, server.zone
            );
        }
        let mut logs = self.status.cluster.log_sets.iter().flat_map(|set| &set.logs);
        match logs.find(|log| log.process == process) {
            Some(log) => format!("log process at {}", log.endpoint.address),
            None => format!("process {process}"),
        }
    }

    /// Processes that keep data, and of which this leader of the controllers has never heard.
    pub(crate) fn unheard(&self) -> Vec<ProcessId> {
        let cluster = &self.status.cluster;
        let servers = cluster.storage_servers.iter().map(|server| server.process);
        let logs = cluster.log_sets.iter().flat_map(|set| &set.logs).map(|log| log.process);
        let mut unheard: Vec<ProcessId> =
            servers.chain(logs).filter(|process| self.process(*process).is_none()).collect();
        unheard.sort_unstable();
        unheard.dedup();
        unheard
    }

    /// The living processes of a class that may be recruited.
    pub(crate) fn usable(&self, class: ProcessClass) -> impl Iterator<Item = &'a ProcessStatus> {
        self.status.processes.iter().filter(move |process| {
            let heartbeat = &process.heartbeat;
            heartbeat.class == class && process.alive && !self.is_excluded(heartbeat.process)
        })
    }

    /// All zones that a process has named, in order.
    pub(crate) fn zones(&self) -> Vec<&'a str> {
        let mut zones: Vec<&str> =
            self.status.processes.iter().map(|process| process.heartbeat.zone.as_str()).collect();
        zones.sort_unstable();
        zones.dedup();
        zones
    }

    /// The newest version that any process has reported.
    pub(crate) fn newest_version(&self) -> Version {
        let versions = self.status.processes.iter().map(|p| p.heartbeat.progress.version);
        versions.max().unwrap_or(Version::ZERO)
    }

    /// How far a process is behind the newest version that is known, in versions. A coordinator is not behind
    /// anything: it is the one that goes ahead. Neither is a log: a commit waits for all of them.
    pub(crate) fn lag(&self, process: &ProcessStatus) -> Option<u64> {
        let heartbeat = &process.heartbeat;
        let is_behind = heartbeat.class == ProcessClass::Storage;
        let lag = self.newest_version().0.saturating_sub(heartbeat.progress.version.0);
        is_behind.then_some(lag)
    }

    pub(crate) fn availability(&self) -> Availability {
        let unreadable = self.shards().iter().filter(|shard| self.members_alive(shard) == 0);
        let (unknown, unreadable): (Vec<_>, Vec<_>) =
            unreadable.partition(|shard| self.has_unknown_member(shard));
        Availability {
            is_active: self.status.cluster.phase == Phase::Active,
            shards_unreadable: unreadable.len(),
            shards_unknown: unknown.len(),
        }
    }

    /// The tags whose messages in a log set are still needed.
    pub(crate) fn tags_needed(&self, set: &'a LogSet) -> impl Iterator<Item = Tag> + '_ {
        self.servers.values().map(|server| server.tag).filter(|tag| {
            // A set that has ended is not needed by a server that has all of it on its own disk.
            set.end_version.is_none_or(|end| self.durable_version(*tag) < end)
        })
    }

    fn durable_version(&self, tag: Tag) -> Version {
        let known = self.server(tag).and_then(|server| self.process(server.process));
        let heartbeat = known.map(|process| &process.heartbeat);
        // What it says of another tag's data is about another life.
        let same = heartbeat.filter(|heartbeat| {
            heartbeat.storage.as_ref().is_some_and(|report| report.tag == Some(tag))
        });
        same.map_or(Version::ZERO, |heartbeat| heartbeat.progress.durable_version)
    }

    /// What a process keeps or does for the cluster: empty when it can be stopped for good.
    pub(crate) fn uses_of(&self, process: ProcessId) -> Vec<String> {
        let cluster = &self.status.cluster;
        let mut uses = Vec::new();
        for server in cluster.storage_servers.iter().filter(|server| server.process == process) {
            let is_named = |shard: &&Shard| shard.teams.all().any(|tag| tag == server.tag);
            let count = self.shards().iter().filter(is_named).count();
            if count > 0 {
                let shards = plural(count, "shard", "shards");
                uses.push(format!("{shards} (storage {})", server.tag));
            }
        }
        for set in &cluster.log_sets {
            if set.logs.iter().any(|log| log.process == process) {
                uses.push(format!("a log of generation {}", set.generation));
            }
        }
        let at = self.process(process).map(|process| &process.heartbeat.worker.address);
        if let (Some(coordinator), Some(at)) = (&cluster.coordinator, at) {
            let is_at = |address: &Address| address == at;
            if is_at(&coordinator.sequencer.address) {
                uses.push("the sequencer".to_owned());
            }
            let proxies = coordinator.proxies.iter().filter(|proxy| is_at(&proxy.address)).count();
            let resolvers = coordinator.resolvers.iter().filter(|(_, r)| is_at(&r.address)).count();
            let counts = [(proxies, "proxy", "proxies"), (resolvers, "resolver", "resolvers")];
            for (count, one, many) in counts.into_iter().filter(|(count, ..)| *count > 0) {
                uses.push(plural(count, one, many));
            }
        }
        uses
    }

    pub(crate) fn excluded(&self) -> Vec<Excluded> {
        let excluded = |selector: &ProcessSelector| {
            let mut meant = self.selected(std::slice::from_ref(selector));
            if let ProcessSelector::Process(process) = selector
                && meant.is_empty()
            {
                meant.push(*process);
            }
            let names: Vec<String> = meant.iter().map(|process| self.name(*process)).collect();
            let name = match names.is_empty() {
                true => "nobody at present".to_owned(),
                false => names.join(", "),
            };
            let uses = meant.iter().flat_map(|process| self.uses_of(*process)).collect();
            Excluded { selector: selector.clone(), name, uses }
        };
        self.status.cluster.excluded.iter().map(excluded).collect()
    }

    /// The known processes that are meant.
    fn selected(&self, selectors: &[ProcessSelector]) -> Vec<ProcessId> {
        let heard = self
            .status
            .processes
            .iter()
            .map(|process| (process.heartbeat.process, &process.heartbeat.worker.address));
        let stored = self.status.cluster.storage_servers.iter();
        let stored = stored.map(|server| (server.process, &server.endpoint.address));
        let meant =
            heard.chain(stored).filter(|(process, at)| is_selected(selectors, *process, at));
        let mut meant: Vec<ProcessId> = meant.map(|(process, _)| process).collect();
        meant.sort_unstable();
        meant.dedup();
        meant
    }

    /// What is still on the processes that are meant, for people; empty when they are drained.
    pub(crate) fn undrained(&self, selectors: &[ProcessSelector]) -> Vec<String> {
        let meant = self.selected(selectors);
        let left = meant.into_iter().filter_map(|process| {
            let uses = self.uses_of(process);
            (!uses.is_empty()).then(|| format!("{} has {}", self.name(process), uses.join(", ")))
        });
        left.collect()
    }

    /// In what the live generation differs from the configuration, for people.
    pub(crate) fn shape_differences(&self) -> Vec<String> {
        let cluster = &self.status.cluster;
        let (Some(configuration), Some(set), Some(coordinator)) =
            (&cluster.configuration, cluster.log_sets.last(), &cluster.coordinator)
        else {
            return Vec::new();
        };
        // More than there are processes cannot be had; that is no difference that goes away by waiting.
        let logs =
            (configuration.logs_wanted() as usize).min(self.usable(ProcessClass::Log).count());
        let resolvers = coordinator.resolvers.len();
        let numbers = [
            ("copies in its logs", set.replication as usize, self.copies()),
            ("logs", set.logs.len(), logs),
            ("proxies", coordinator.proxies.len(), configuration.proxies.max(1) as usize),
            ("resolvers", resolvers, configuration.resolvers.max(1) as usize),
        ];
        let differ = numbers.into_iter().filter(|(_, is, wanted)| is != wanted);
        differ.map(|(what, is, wanted)| format!("{is} of {wanted} {what}")).collect()
    }

    /// What is left to be done until the cluster is what its configuration says, for people.
    pub(crate) fn unsettled(&self) -> Vec<String> {
        let mut left = Vec::new();
        match &self.status.cluster.phase {
            Phase::Active => {}
            Phase::Waiting { reason } => left.push(reason.clone()),
            Phase::Recovering { step } => left.push(format!("a recovery: {step}")),
        }
        let shape = self.shape_differences();
        left.extend(shape.into_iter().map(|difference| format!("the generation has {difference}")));
        let wrong = |shard: &&Shard| {
            shard.teams.team.len() != self.copies() || !shard.teams.joining.is_empty()
        };
        let count = self.shards().iter().filter(wrong).count();
        if count > 0 {
            let (all, copies) = (self.shards().len(), self.copies());
            left.push(format!("{count} of {all} shards on their way to {copies} copies"));
        }
        left.extend(self.status.stuck.iter().map(|stuck| format!("stuck: {stuck}")));
        left.extend(self.status.repairs.iter().cloned());
        left
    }
}

/// "1 copy", "2 copies".
pub(crate) fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Versions as the seconds in which they pass.
pub(crate) fn seconds(versions: u64) -> f64 {
    versions as f64 / VERSIONS_PER_SECOND as f64
}

/// A duration as people say it: "0.4 s", "61 s", "12 min", "5 h".
pub(crate) fn spoken(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{:.1} s", ms as f64 / 1000.0),
        10_000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}
