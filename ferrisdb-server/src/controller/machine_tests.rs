//! Scenarios of the controller's machine. Effects are answered by hand, so that every interleaving can be told.

use std::time::Duration;

use ferrisdb_core::{
    ClusterId, Error, ErrorCode, KeyRange, Stage, id::Address, service::controller::Progress,
};

use super::*;

/// A controller with a clock that the test moves.
struct World {
    controller: Controller,
    now: Instant,
    effects: Vec<Effect>,
    persisted: ClusterRecord,
}

const COORDINATOR: u128 = 1;
const LOGS: [u128; 3] = [11, 12, 13];
const STORAGE: u128 = 21;

fn settings() -> ControllerSettings {
    ControllerSettings { logs: 3, log_replication: 2, ..ControllerSettings::default() }
}

fn members() -> CoordinatorMembers {
    let endpoint = |instance| Endpoint { address: Address::new("c:1"), instance };
    CoordinatorMembers {
        sequencer: endpoint(1),
        proxies: vec![endpoint(2)],
        resolvers: vec![(KeyRange::new("", b"\xff\xff"), endpoint(3))],
    }
}

impl World {
    fn new() -> World {
        World::from(ClusterRecord::new(ClusterId(9)))
    }

    fn from(mut record: ClusterRecord) -> World {
        record.starts += 1;
        let now = ferrisdb_core::runtime::now();
        let controller = Controller::new(settings(), record.clone(), now);
        World { controller, now, effects: Vec::new(), persisted: record }
    }

    fn heartbeat(&mut self, process: u128, incarnation: u64, hosted: &[u64], durable: u64) {
        let class = match process {
            COORDINATOR => ProcessClass::Coordinator,
            STORAGE => ProcessClass::Storage,
            _ => ProcessClass::Log,
        };
        let heartbeat = Heartbeat {
            process: ProcessId(process),
            incarnation,
            class,
            worker: Endpoint { address: Address::new(format!("p{process}:1")), instance: 5 },
            hosted_generations: hosted.iter().copied().map(Generation).collect(),
            progress: Progress { durable_version: Version(durable), ..Progress::default() },
        };
        self.controller.on_heartbeat(heartbeat, self.now, &mut self.effects);
    }

    /// Everybody is alive and hosts `hosted`.
    fn all_alive(&mut self, hosted: &[u64]) {
        self.heartbeat(COORDINATOR, 1, hosted, 0);
        LOGS.iter().for_each(|&log| self.heartbeat(log, 1, hosted, 0));
        self.heartbeat(STORAGE, 1, &[], 0);
    }

    fn step(&mut self, input: Input) {
        self.controller.step(input, self.now, &mut self.effects);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Writes what is to be written and reports it.
    fn persist(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Persist { sequence, record } = effect {
                self.persisted = *record;
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

    /// Answers the locks: `None` for a log that cannot be reached.
    fn answer_locks(&mut self, durable: [Option<u64>; 3]) {
        let locks = self.taken(|effect| match effect {
            Effect::Lock { generation, index, .. } => Some((*generation, *index)),
            _ => None,
        });
        assert_eq!(locks.len(), 3);
        for (generation, index) in locks {
            let reply = |durable| LockReply {
                durable_version: Version(durable),
                known_committed_version: Version(0),
            };
            let down = || Error::new(ErrorCode::Unreachable, Stage::Connect, "down");
            let result = durable[index].map(reply).ok_or_else(down);
            self.step(Input::Locked { generation, index, result });
        }
    }

    /// Answers the recruitments of logs; returns what they were asked for.
    fn recruit_logs(&mut self) -> Vec<RecruitLog> {
        let recruits = self.taken(|effect| match effect {
            Effect::RecruitLog { process, request, .. } => Some((*process, request.clone())),
            _ => None,
        });
        for (process, request) in &recruits {
            let address = Address::new(format!("p{}:1", process.0));
            let result = Ok(Endpoint { address, instance: 100 + request.generation.0 });
            let generation = request.generation;
            self.step(Input::LogRecruited { generation, process: *process, result });
        }
        recruits.into_iter().map(|(_, request)| request).collect()
    }

    fn recruit_coordinator(&mut self) -> RecruitCoordinator {
        let mut recruits = self.taken(|effect| match effect {
            Effect::RecruitCoordinator { request, .. } => Some(RecruitCoordinator::clone(request)),
            _ => None,
        });
        let request = recruits.pop().expect("a coordinator is recruited");
        let generation = request.generation;
        self.step(Input::CoordinatorRecruited { generation, result: Ok(members()) });
        request
    }

    fn phase(&self) -> Phase {
        self.controller.state().phase
    }

    /// A cluster in its first generation.
    fn active() -> World {
        let mut world = World::new();
        world.all_alive(&[]);
        world.persist();
        world.recruit_logs();
        world.recruit_coordinator();
        world.persist();
        assert_eq!(world.phase(), Phase::Active);
        world.all_alive(&[1]);
        world.effects.clear();
        world
    }
}

fn waiting_reason(phase: Phase) -> String {
    match phase {
        Phase::Waiting { reason } => reason,
        other => panic!("not waiting: {other:?}"),
    }
}

#[test]
fn a_new_cluster_waits_for_its_processes_and_says_for_which() {
    let mut world = World::new();
    world.heartbeat(LOGS[0], 1, &[], 0);
    let reason = waiting_reason(world.phase());
    assert!(reason.contains("coordinator processes (0 of 1"), "{reason}");
    assert!(reason.contains("log processes (1 of 3"), "{reason}");
    assert!(reason.contains("storage processes (0 of 1"), "{reason}");
}

#[test]
fn nothing_happens_for_a_generation_before_it_is_on_disk() {
    let mut world = World::new();
    world.all_alive(&[]);
    let acts = |effect: &Effect| !matches!(effect, Effect::Persist { .. } | Effect::Publish(_));
    assert!(!world.effects.iter().any(acts), "{:?}", world.effects);
    world.persist();
    assert_eq!(world.persisted.generation, Generation(1));
    assert_eq!(world.recruit_logs().len(), 3);
    let request = world.recruit_coordinator();
    assert_eq!(request.recovery_version, Version(0));
    assert_eq!(request.first_version, Version(limits::RECOVERY_VERSION_JUMP));
    assert!(matches!(world.phase(), Phase::Recovering { .. }), "not before it is on disk");
    world.persist();
    assert_eq!(world.phase(), Phase::Active);
    assert_eq!(world.persisted.shards.len(), 1);
}

#[test]
fn a_lost_coordinator_is_replaced_at_the_least_durable_version() {
    let mut world = World::active();
    world.pass(Duration::from_millis(10));
    world.heartbeat(COORDINATOR, 2, &[], 0);
    world.persist();
    assert_eq!(world.persisted.generation, Generation(2));
    assert_eq!(world.persisted.active, None);
    world.answer_locks([Some(100_000_500), Some(100_000_400), Some(100_000_900)]);
    let asked = world.recruit_logs();
    assert!(asked.iter().all(|log| log.begin_version == Version(100_000_400)), "{asked:?}");
    let request = world.recruit_coordinator();
    assert_eq!(request.first_version, Version(200_000_400));
    world.persist();
    let state = world.controller.state();
    assert_eq!(state.phase, Phase::Active);
    let ends: Vec<_> = state.log_sets.iter().map(|set| set.end_version).collect();
    assert_eq!(ends, [Some(Version(100_000_400)), None]);
}

#[test]
fn locks_of_all_but_k_minus_one_logs_suffice_and_fewer_do_not() {
    let mut world = World::active();
    world.heartbeat(COORDINATOR, 2, &[], 0);
    world.persist();
    // Three logs, two copies: two locks are needed.
    world.answer_locks([Some(7), None, None]);
    let reason = waiting_reason(world.phase());
    assert!(
        reason.contains("locked 1 of the 3 logs") && reason.contains("2 are needed"),
        "{reason}"
    );
    world.pass(Duration::from_secs(1));
    world.heartbeat(COORDINATOR, 2, &[], 0);
    LOGS.iter().for_each(|&log| world.heartbeat(log, 1, &[1], 0));
    world.persist();
    assert_eq!(world.persisted.generation, Generation(3));
    world.answer_locks([Some(7), Some(9), None]);
    assert_eq!(world.recruit_logs().len(), 3);
}

#[test]
fn a_silent_member_fails_after_the_timeout_and_not_before() {
    let mut world = World::active();
    let generation = |world: &World| world.controller.state().generation;
    world.pass(Duration::from_millis(999));
    world.step(Input::Tick);
    assert_eq!(generation(&world), Generation(1));
    world.heartbeat(COORDINATOR, 1, &[1], 0);
    world.heartbeat(LOGS[0], 1, &[1], 0);
    world.heartbeat(LOGS[1], 1, &[1], 0);
    world.pass(Duration::from_millis(1));
    world.step(Input::Tick);
    let reason = waiting_reason(world.phase());
    assert!(reason.contains("log processes (2 of 3"), "{reason}");
    world.heartbeat(LOGS[2], 2, &[1], 0);
    assert_eq!(generation(&world), Generation(2));
}

#[test]
fn a_member_that_no_longer_hosts_its_generation_has_failed() {
    let mut world = World::active();
    // Soon after the activation this may be an old heartbeat.
    world.heartbeat(COORDINATOR, 1, &[], 0);
    assert_eq!(world.phase(), Phase::Active);
    world.pass(Duration::from_millis(900));
    world.all_alive(&[1]);
    world.pass(Duration::from_millis(200));
    world.heartbeat(COORDINATOR, 1, &[], 0);
    assert!(matches!(world.phase(), Phase::Recovering { .. }));
}

#[test]
fn answers_of_an_earlier_attempt_are_ignored() {
    let mut world = World::active();
    world.heartbeat(COORDINATOR, 2, &[], 0);
    world.persist();
    world.answer_locks([Some(5), Some(5), Some(5)]);
    world.recruit_logs();
    let late = Generation(2);
    let down = Error::new(ErrorCode::Unreachable, Stage::Control, "down");
    world.step(Input::CoordinatorRecruited { generation: late, result: Err(down) });
    world.pass(Duration::from_secs(1));
    world.heartbeat(COORDINATOR, 2, &[], 0);
    LOGS.iter().for_each(|&log| world.heartbeat(log, 1, &[1], 0));
    world.persist();
    world.answer_locks([Some(5), Some(5), Some(5)]);
    world.recruit_logs();
    world.step(Input::CoordinatorRecruited { generation: late, result: Ok(members()) });
    assert!(matches!(world.phase(), Phase::Recovering { .. }), "an answer for generation 2");
    assert_eq!(world.recruit_coordinator().generation, Generation(3));
}

#[test]
fn a_restarted_controller_adopts_a_healthy_generation() {
    let world = World::active();
    let before = world.controller.state();
    let mut world = World::from(world.persisted);
    let after = world.controller.state();
    assert_eq!((after.generation, after.phase), (before.generation, Phase::Active));
    assert!(after.revision > before.revision);
    world.all_alive(&[1]);
    world.pass(Duration::from_millis(500));
    world.step(Input::Tick);
    assert_eq!(world.phase(), Phase::Active);
    assert_eq!(world.controller.state().generation, Generation(1));
}

#[test]
fn a_restarted_controller_notices_what_failed_meanwhile() {
    let mut world = World::from(World::active().persisted);
    world.heartbeat(COORDINATOR, 1, &[1], 0);
    world.pass(Duration::from_secs(1));
    world.step(Input::Tick);
    assert!(matches!(world.phase(), Phase::Waiting { .. }));
}

#[test]
fn an_old_log_set_is_dropped_once_storage_has_it() {
    let mut world = World::active();
    world.heartbeat(COORDINATOR, 2, &[], 0);
    world.persist();
    world.answer_locks([Some(50), Some(50), Some(50)]);
    world.recruit_logs();
    world.recruit_coordinator();
    world.persist();
    world.heartbeat(STORAGE, 1, &[], 49);
    assert_eq!(world.controller.state().log_sets.len(), 2);
    world.heartbeat(STORAGE, 1, &[], 50);
    assert_eq!(world.controller.state().log_sets.len(), 1);
    world.persist();
    assert_eq!(world.persisted.log_sets.len(), 1);
}

#[test]
fn a_storage_server_is_followed_to_its_new_address() {
    let mut world = World::active();
    let heartbeat = Heartbeat {
        worker: Endpoint { address: Address::new("elsewhere:1"), instance: 5 },
        ..world.controller.registry.last(ProcessId(STORAGE)).unwrap().clone()
    };
    world.controller.on_heartbeat(heartbeat, world.now, &mut world.effects);
    world.persist();
    let server = &world.persisted.storage_servers[0];
    assert_eq!(server.endpoint.address, Address::new("elsewhere:1"));
    assert_eq!(world.phase(), Phase::Active);
}
