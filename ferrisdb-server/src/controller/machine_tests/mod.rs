//! Scenarios of the controller's machine. Effects are answered by hand, so that every interleaving can be told.
//!
//! | file | tells |
//! |---|---|
//! | `recovery` | what a recovery waits for, which versions it keeps |
//! | `failures` | which processes have failed, and how soon |
//! | `recruitment` | who gets a role, and when a better choice is worth a new generation |
//! | `leadership` | how a new leader goes on with the record of the last one |
//! | `shard_map`, `storage_servers` | how the map is followed; servers that move, join or are lost |
//! | `commands`, `forced` | what operators ask for; a controller that goes on alone |
//!
//! This file holds what they share. Start with [`World`].

mod commands;
mod failures;
mod forced;
mod leadership;
mod recovery;
mod recruitment;
mod shard_map;
mod storage_servers;

use std::time::Duration;

use ferrisdb_core::{
    ClusterId, Error, ErrorCode, ProcessId, Stage,
    service::controller::{Command, Phase, ProcessSelector, Progress, StorageReport},
};

use super::*;
use crate::controller::cluster_record::tests::configuration;

/// A controller with a clock that the test moves.
struct World {
    /// The register's: how many records were agreed on.
    register_revision: u64,
    controller: Controller,
    now: Instant,
    effects: Vec<Effect>,
    persisted: ClusterRecord,
}

const COORDINATOR: u128 = 1;
const LOGS: [u128; 3] = [11, 12, 13];
const STORAGE: [u128; 3] = [21, 22, 23];

/// Double, with three logs: two locks are needed of three.
fn settings() -> ControllerSettings {
    ControllerSettings {
        configuration: configuration(),
        storage_servers: 2,
        ..ControllerSettings::default()
    }
}

fn heartbeat(process: u128, incarnation: u64, hosted: &[u64]) -> Heartbeat {
    let class = match process {
        ..10 => ProcessClass::Coordinator,
        10..20 => ProcessClass::Log,
        _ => ProcessClass::Storage,
    };
    Heartbeat {
        process: ProcessId(process),
        incarnation,
        class,
        // The last digit is the machine.
        zone: format!("machine-{}", process % 10),
        worker: Endpoint { address: Address::new(format!("p{process}:1")), instance: 5 },
        hosted_generations: hosted.iter().copied().map(Generation).collect(),
        kept_generations: Vec::new(),
        trouble: None,
        accused: Vec::new(),
        progress: Progress::default(),
        storage: None,
    }
}

/// A storage server that has `tag`, and is done with so many versions.
fn storage_heartbeat(process: u128, tag: u32, durable: u64) -> Heartbeat {
    Heartbeat {
        progress: Progress { durable_version: Version(durable), ..Progress::default() },
        storage: Some(StorageReport { tag: Some(Tag(tag)), ..StorageReport::default() }),
        ..heartbeat(process, 1, &[])
    }
}

impl World {
    fn new() -> World {
        World::from(ClusterRecord::new(ClusterId(9), configuration()))
    }

    fn from(mut record: ClusterRecord) -> World {
        let register_revision = 100 * u64::from(record.reigns);
        record.reigns += 1;
        let now = ferrisdb_core::runtime::now();
        let controller = Controller::new(settings(), record.clone(), register_revision, now);
        World { controller, now, effects: Vec::new(), persisted: record, register_revision }
    }

    fn hear(&mut self, heartbeat: Heartbeat) {
        self.controller.on_heartbeat(heartbeat, self.now, &mut self.effects);
    }

    fn all_logs(&mut self, hosted: &[u64]) {
        LOGS.iter().for_each(|&log| self.hear(heartbeat(log, 1, hosted)));
    }

    /// Coordinator and logs are alive and host `hosted`; so are two storage servers.
    fn all_alive(&mut self, hosted: &[u64]) {
        STORAGE[..2].iter().for_each(|&storage| self.hear(heartbeat(storage, 1, &[])));
        self.hear(heartbeat(COORDINATOR, 1, hosted));
        self.all_logs(hosted);
    }

    fn step(&mut self, input: Input) {
        self.controller.step(input, self.now, &mut self.effects);
    }

    /// Time passes. The controller looks now and then, or it would be the one that stood still.
    fn pass(&mut self, milliseconds: u64) {
        const TICK: u64 = 100;
        for _ in 0..milliseconds / TICK {
            self.now += Duration::from_millis(TICK);
            self.controller.registry.look(self.now);
        }
        self.now += Duration::from_millis(milliseconds % TICK);
    }

    /// Agrees on what is to be agreed on and reports it.
    fn persist(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Persist { sequence, record } = effect {
                self.persisted = *record;
                self.register_revision += 1;
                self.step(Input::Persisted { sequence });
            } else {
                self.effects.push(effect);
            }
        }
    }

    fn taken<T>(&mut self, pick: impl Fn(&Effect) -> Option<T>) -> Vec<T> {
        let taken = self.effects.iter().filter_map(&pick).collect();
        self.effects.retain(|effect| pick(effect).is_none());
        taken
    }

    /// Answers the locks, in order: durable and known committed; `None` for a log that cannot be reached.
    fn answer_locks(&mut self, answers: [Option<(u64, u64)>; 3]) {
        let locks = self.taken(|effect| match effect {
            Effect::Lock { index, request, .. } => Some((*index, *request)),
            _ => None,
        });
        assert_eq!(locks.len(), 3);
        for (index, request) in locks {
            let reply = |(durable, known)| LockReply {
                durable_version: Version(durable),
                known_committed_version: Version(known),
                metadata: Vec::new(),
            };
            let down = || Error::new(ErrorCode::Unreachable, Stage::Connect, "down");
            let result = answers[index].map(reply).ok_or_else(down);
            self.step(Input::Locked { generation: request.generation, index, result });
        }
    }

    /// Answers all recruitments; returns what was asked for.
    fn recruit(&mut self) -> Vec<Recruitment> {
        let asked = self.taken(|effect| match effect {
            Effect::Recruit { generation, slot, worker, request } => {
                Some((*generation, *slot, worker.clone(), request.clone()))
            }
            _ => None,
        });
        for (generation, slot, worker, _) in &asked {
            let instance = 100 + generation.0;
            let result = Ok(Endpoint { address: worker.address.clone(), instance });
            self.step(Input::Recruited { generation: *generation, slot: *slot, result });
        }
        asked.into_iter().map(|(_, _, _, request)| request).collect()
    }

    /// Answers all questions whether processes reach each other: none of `broken` reaches any of `broken`.
    fn prove(&mut self, broken: &[u128]) {
        let asked = self.taken(|effect| match effect {
            Effect::Prove { number, member, workers } => {
                Some((*number, member.clone(), workers.clone()))
            }
            _ => None,
        });
        assert!(!asked.is_empty(), "nobody is asked");
        let is_broken = |worker: &Endpoint| {
            broken.iter().any(|process| worker.address.0 == format!("p{process}:1"))
        };
        for (number, member, workers) in asked {
            let unreached = match is_broken(&member.worker) {
                true => workers.into_iter().filter(is_broken).collect(),
                false => Vec::new(),
            };
            let process = member.process;
            self.step(Input::Proved { number, process, result: Ok(unreached) });
        }
    }

    fn recruit_logs(&mut self) -> Vec<RecruitLog> {
        let logs = self.recruit().into_iter().filter_map(|request| match request {
            Recruitment::Log(log) => Some(log),
            _ => None,
        });
        logs.collect()
    }

    fn recruit_proxies(&mut self) -> Vec<RecruitProxy> {
        let proxies = self.recruit().into_iter().map(|request| match request {
            Recruitment::Proxy(proxy) => *proxy,
            other => panic!("not a proxy: {other:?}"),
        });
        proxies.collect()
    }

    /// Takes a recovery that has its locks to its end.
    fn finish(&mut self) {
        assert!(!self.recruit_logs().is_empty());
        assert!(!self.recruit_proxies().is_empty());
        self.persist();
        assert_eq!(self.phase(), Phase::Active);
    }

    fn phase(&self) -> Phase {
        self.controller.state().phase
    }

    fn generation(&self) -> u64 {
        self.controller.state().generation.0
    }

    fn reason(&self) -> String {
        match self.phase() {
            Phase::Waiting { reason } => reason,
            other => panic!("not waiting: {other:?}"),
        }
    }

    /// A cluster in its first generation, some time after it began.
    fn active() -> World {
        let mut world = World::new();
        world.all_alive(&[]);
        world.persist();
        world.finish();
        world.pass(600);
        world.all_alive(&[1]);
        world.storage_alive(100);
        world.effects.clear();
        world
    }

    fn storage_alive(&mut self, durable: u64) {
        for (tag, &storage) in (0..).zip(&STORAGE[..2]) {
            self.hear(storage_heartbeat(storage, tag, durable));
        }
    }

    /// The coordinator has restarted.
    fn lose_coordinator(&mut self) {
        self.hear(heartbeat(COORDINATOR, 2, &[]));
        self.persist();
    }
}

/// What an operator asks for, and how it is answered: the error as text.
fn command(world: &mut World, command: Command) -> Result<(), String> {
    let now = world.now;
    let taken = world.controller.on_command(&command, 77, now, &mut world.effects);
    taken.map_err(|error| format!("{}: {}", error.code(), error.detail()))
}
