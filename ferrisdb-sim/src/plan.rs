//! What a cluster of a run looks like: its shape and its settings, drawn from the seed or given by a scenario.
//!
//! Settings that change behaviour are drawn, too, most of the time: sizes so small that every bound is met within
//! seconds, timeouts so short that they fire, and the defaults now and then. A bug that needs a full segment,
//! a full window or an impatient proxy does not have to wait for a large run.

use std::time::Duration;

use ferrisdb_core::{
    Key, limits,
    service::controller::{Configuration, Redundancy},
};
use ferrisdb_server::{
    controller::ControllerSettings,
    coordinator::{CoordinatorSettings, proxy::ProxySettings},
    log::LogSettings,
    storage::StorageSettings,
};
use serde::Deserialize;

use crate::dice::Dice;

/// How many nodes of each kind a cluster has.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    /// How many copies of everything.
    pub redundancy: Redundancy,
    /// Members of the group of controllers.
    pub controllers: u32,
    /// Processes for sequencer, proxies and resolvers.
    pub coordinators: u32,
    /// Logs, each of which gets every batch.
    pub logs: u32,
    /// Further processes that could be logs.
    pub spare_logs: u32,
    /// Storage servers; the keyspace is spread over them.
    pub storage: u32,
    /// Over how many zones each kind of process is spread, one after the other; no fewer than copies.
    pub zones: u32,
    /// Proxies in each generation.
    pub proxies: u32,
    /// Resolvers in each generation.
    pub resolvers: u32,
    /// Whether the network between them is a good one, whatever the run has drawn.
    pub calm_network: bool,
    /// How many bytes a second the disks of logs take at best; any number, if none is given.
    pub log_bytes_per_second: Option<u64>,
}

impl Topology {
    /// One of each.
    pub fn smallest() -> Topology {
        Topology {
            redundancy: Redundancy::Single,
            controllers: 1,
            coordinators: 1,
            logs: 1,
            spare_logs: 0,
            storage: 1,
            zones: 1,
            proxies: 1,
            resolvers: 1,
            calm_network: false,
            log_bytes_per_second: None,
        }
    }

    /// The zone of the n-th process of a kind.
    pub fn zone(&self, number: u32) -> u32 {
        (number - 1) % self.zones + 1
    }

    /// In how many zones there are processes of a kind of which there are `count`, without the n-th.
    pub fn zones_without(&self, number: u32, count: u32) -> u32 {
        let mut zones: Vec<u32> =
            (1..=count).filter(|other| *other != number).map(|other| self.zone(other)).collect();
        zones.sort_unstable();
        zones.dedup();
        zones.len() as u32
    }
}

/// What a scenario says of the cluster; the rest is drawn.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSpec {
    /// `single`, `double` or `triple`.
    pub redundancy: Option<String>,
    /// See [`Topology::controllers`].
    pub controllers: Option<u32>,
    /// See [`Topology::coordinators`].
    pub coordinators: Option<u32>,
    /// See [`Topology::logs`].
    pub logs: Option<u32>,
    /// See [`Topology::spare_logs`].
    pub spare_logs: Option<u32>,
    /// See [`Topology::storage`].
    pub storage: Option<u32>,
    /// See [`Topology::zones`].
    pub zones: Option<u32>,
    /// See [`Topology::proxies`].
    pub proxies: Option<u32>,
    /// See [`Topology::resolvers`].
    pub resolvers: Option<u32>,
    /// Settings as an operator would find them, instead of drawn ones.
    pub default_settings: bool,
    /// See [`Topology::calm_network`].
    pub calm_network: bool,
    /// See [`Topology::log_bytes_per_second`].
    pub log_bytes_per_second: Option<u64>,
    /// How long a transaction may last, for workloads that count on it: resolvers and storage servers keep exactly so much.
    pub window_ms: Option<u64>,
    /// How long a segment of a log is, for workloads that count segments.
    pub segment_bytes: Option<u64>,
}

impl ClusterSpec {
    /// Settings that the scenario names.
    pub fn fix(&self, settings: &mut RoleSettings) {
        if let Some(window) = self.window_ms {
            settings.set_window(window * limits::VERSIONS_PER_SECOND / 1_000);
            settings.storage.window_bytes_max = settings.storage.window_bytes_max.max(64 << 20);
        }
        if let Some(bytes) = self.segment_bytes {
            settings.log.segment_bytes = bytes;
            settings.log.extend_bytes = settings.log.extend_bytes.min(bytes);
        }
    }

    /// The shape of the cluster.
    ///
    /// # Errors
    ///
    /// If the redundancy is not one.
    pub fn topology(&self, dice: &mut Dice) -> anyhow::Result<Topology> {
        let drawn = dice.pick(&Redundancy::ALL);
        let redundancy = match &self.redundancy {
            Some(name) => Redundancy::ALL
                .iter()
                .copied()
                .find(|redundancy| redundancy.to_string() == *name)
                .ok_or_else(|| anyhow::anyhow!("{name} is no redundancy"))?,
            None => drawn,
        };
        let copies = redundancy.copies();
        // Everything is drawn, also what is not used, so that naming one number does not change the others.
        let controllers = dice.pick(&[1, 3, 3, 5]);
        let coordinators = dice.between(1, 3) as u32;
        let logs = copies + dice.below(2) as u32;
        let spare_logs = dice.below(2) as u32;
        let storage = copies + dice.below(3) as u32;
        let proxies = dice.between(1, 3) as u32;
        let resolvers = dice.between(1, 3) as u32;
        // As a rule a zone for each process of a kind.
        let zones = dice.pick(&[u32::MAX, u32::MAX, copies, copies + 1]);
        Ok(Topology {
            redundancy,
            controllers: self.controllers.unwrap_or(controllers),
            coordinators: self.coordinators.unwrap_or(coordinators),
            logs: self.logs.unwrap_or(logs),
            spare_logs: self.spare_logs.unwrap_or(spare_logs),
            storage: self.storage.unwrap_or(storage),
            zones: self.zones.unwrap_or(zones).max(copies),
            proxies: self.proxies.unwrap_or(proxies),
            resolvers: self.resolvers.unwrap_or(resolvers),
            calm_network: self.calm_network,
            log_bytes_per_second: self.log_bytes_per_second,
        })
    }
}

/// What the processes of a cluster are told when they start.
#[derive(Clone, Debug)]
pub struct RoleSettings {
    /// Each controller.
    pub controller: ControllerSettings,
    /// Each coordinator.
    pub coordinator: CoordinatorSettings,
    /// Each log.
    pub log: LogSettings,
    /// Each storage server.
    pub storage: StorageSettings,
    /// Each client.
    pub client: ferrisdb_client::Settings,
}

impl RoleSettings {
    /// The defaults, for a cluster of this shape.
    pub fn defaults(topology: &Topology) -> RoleSettings {
        RoleSettings {
            controller: ControllerSettings {
                configuration: Configuration {
                    redundancy: topology.redundancy,
                    logs: topology.logs,
                    proxies: topology.proxies,
                    resolvers: topology.resolvers,
                    storage_replace_after_ms: 10_000,
                },
                storage_servers: topology.storage,
                shard_boundaries: Vec::new(),
                resolver_boundaries: Vec::new(),
                ..ControllerSettings::default()
            },
            coordinator: CoordinatorSettings::default(),
            log: LogSettings::default(),
            storage: StorageSettings::default(),
            client: ferrisdb_client::Settings::default(),
        }
    }

    /// Drawn ones. Each setting keeps its default every second time, so that combinations vary.
    pub fn drawn(topology: &Topology, dice: &mut Dice) -> RoleSettings {
        let mut settings = RoleSettings::defaults(topology);
        let kib = 1024;
        let log = &mut settings.log;
        draw(dice, &mut log.segment_bytes, |dice| dice.magnitude(4 * kib, 1024 * kib));
        draw(dice, &mut log.extend_bytes, |dice| dice.magnitude(1, 64 * kib));
        draw(dice, &mut log.memory_bytes_max, |dice| dice.magnitude(kib, 1024 * kib) as usize);
        draw(dice, &mut log.index_spacing_bytes, |dice| dice.magnitude(64, 16 * kib));
        draw(dice, &mut log.index_entries_max, |dice| dice.magnitude(2, 1_000) as usize);
        draw(dice, &mut log.early_pushes_max, |dice| dice.magnitude(2, 64) as usize);
        draw(dice, &mut log.early_bytes_max, |dice| dice.magnitude(64, 1024 * kib) as usize);
        draw(dice, &mut log.unsynced_bytes_max, |dice| dice.magnitude(64, 1024 * kib) as usize);
        draw(dice, &mut log.waiting_peeks_max, |dice| dice.magnitude(4, 64) as usize);

        // Short ones are left behind often within a run.
        let mut window = limits::WINDOW_VERSIONS;
        draw(dice, &mut window, |dice| limits::WINDOW_VERSIONS * dice.between(3, 10) / 10);
        settings.set_window(window);
        let storage = &mut settings.storage;
        // Never shorter than that of resolvers, or clients that did nothing wrong are too slow.
        draw(dice, &mut storage.window_versions, |dice| window * dice.between(4, 7) / 4);
        draw(dice, &mut storage.window_bytes_max, |dice| {
            dice.magnitude(512 * kib, 65_536 * kib) as usize
        });
        draw(dice, &mut storage.flush_interval, |dice| milliseconds(dice.magnitude(5, 2_000)));
        draw(dice, &mut storage.flush_bytes, |dice| dice.magnitude(kib, 1024 * kib) as usize);
        draw(dice, &mut storage.future_version_wait, |dice| milliseconds(dice.between(5, 2_000)));
        draw(dice, &mut storage.peek_bytes, |dice| dice.magnitude(64, 1024 * kib) as u32);
        draw(dice, &mut storage.peek_wait, |dice| milliseconds(dice.magnitude(5, 1_000)));
        draw(dice, &mut storage.page_bytes, |dice| dice.magnitude(64, 64 * kib) as u32);
        // So few rows that nearly every range read has to be continued.
        let read_limits = &mut storage.read_limits;
        draw(dice, &mut read_limits.looked_at_max, |dice| dice.magnitude(2, 2_000) as usize);
        draw(dice, &mut read_limits.looked_at_inline_max, |dice| dice.magnitude(1, 200) as usize);

        let proxy: &mut ProxySettings = &mut settings.coordinator.proxy;
        draw(dice, &mut proxy.batches_in_flight_max, |dice| dice.between(1, 16) as usize);
        draw(dice, &mut proxy.read_version_rounds_max, |dice| dice.between(1, 8) as usize);
        draw(dice, &mut proxy.call_limit, |dice| milliseconds(dice.between(400, 4_000)));
        draw(dice, &mut proxy.waiting_bytes_max, |dice| {
            dice.magnitude(16 * kib, 65_536 * kib) as usize
        });
        let resolver = &mut settings.coordinator.resolver;
        draw(dice, &mut resolver.waiting_max, |dice| dice.magnitude(1, 64) as usize);
        draw(dice, &mut resolver.waiting_bytes_max, |dice| dice.magnitude(64, 1024 * kib) as usize);

        let controller = &mut settings.controller;
        draw(dice, &mut controller.failure_timeout, |dice| milliseconds(dice.between(300, 3_000)));
        draw(dice, &mut controller.idempotency_lifetime, |dice| {
            Duration::from_secs(dice.between(20, 120))
        });
        let patience = &mut controller.configuration.storage_replace_after_ms;
        draw(dice, patience, |dice| dice.between(1_000, 20_000));

        let client = &mut settings.client;
        for limit in
            [&mut client.read_version_limit, &mut client.read_limit, &mut client.commit_limit]
        {
            draw(dice, limit, |dice| milliseconds(dice.magnitude(250, 20_000)));
        }
        // A client that gives up before a server does never learns why.
        let server_waits = settings.storage.future_version_wait;
        client.read_limit = client.read_limit.max(server_waits * 2 + Duration::from_secs(1));
        settings
    }

    /// Has resolvers and storage servers keep so many versions, and versions of an idle database go on accordingly.
    fn set_window(&mut self, versions: u64) {
        let share = |whole: u64| whole * versions / limits::WINDOW_VERSIONS;
        self.storage.window_versions = versions;
        self.coordinator.resolver.window_versions = versions;
        self.coordinator.versions_ahead_max = share(limits::VERSIONS_AHEAD_MAX);
        let idle_us = share(limits::IDLE_BATCH_AFTER.as_micros() as u64);
        self.coordinator.proxy.idle_batch_after = Duration::from_micros(idle_us);
    }

    /// Cuts the keyspace into shards, at these keys.
    pub fn cut_at(&mut self, boundaries: Vec<Key>) {
        self.controller.shard_boundaries = boundaries;
    }

    /// Cuts the keyspace for the resolvers, at these keys.
    pub fn cut_resolvers_at(&mut self, boundaries: Vec<Key>) {
        self.controller.resolver_boundaries = boundaries;
    }
}

fn draw<T>(dice: &mut Dice, setting: &mut T, other: impl FnOnce(&mut Dice) -> T) {
    // Both are drawn in any case: what follows in the stream does not depend on the answer.
    let other = other(dice);
    if dice.one_in(2) {
        *setting = other;
    }
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}
