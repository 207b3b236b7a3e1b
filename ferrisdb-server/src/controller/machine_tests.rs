//! Scenarios of the controller's machine. Effects are answered by hand, so that every interleaving can be told.

use std::time::Duration;

use ferrisdb_core::{
    ClusterId, Error, ErrorCode, ProcessId, Stage,
    mutation::Encoder,
    service::controller::{
        Command, ConfigurationChange, Phase, ProcessSelector, Progress, Redundancy, StorageReport,
    },
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

#[test]
fn a_new_cluster_waits_for_its_processes_and_says_for_which() {
    let mut world = World::new();
    world.hear(heartbeat(LOGS[0], 1, &[]));
    let reason = world.reason();
    assert!(reason.contains("log processes in 2 zones (1 are alive"), "{reason}");
    assert!(reason.contains("a coordinator process"), "{reason}");
    world.hear(heartbeat(COORDINATOR, 1, &[]));
    world.hear(heartbeat(LOGS[1], 1, &[]));
    assert!(world.reason().contains("2 of 3 can be used"), "{}", world.reason());
    world.hear(heartbeat(LOGS[2], 1, &[]));
    assert!(world.reason().contains("storage processes (0 of 2"), "{}", world.reason());
}

#[test]
fn nothing_happens_for_a_generation_before_it_is_agreed_on() {
    let mut world = World::new();
    world.all_alive(&[]);
    let acts = |effect: &Effect| !matches!(effect, Effect::Persist { .. } | Effect::Publish(_));
    assert!(!world.effects.iter().any(acts), "{:?}", world.effects);
    world.persist();
    assert_eq!(world.persisted.generation, Generation(1));
    assert_eq!(world.recruit_logs().len(), 3);
    let proxies = world.recruit_proxies();
    assert_eq!(proxies[0].recruitment.recovery_version, Version(0));
    assert_eq!(proxies[0].log_set.replication, 2);
    assert!(matches!(world.phase(), Phase::Recovering { .. }), "not before it is agreed on");
    world.persist();
    assert_eq!(world.phase(), Phase::Active);
    assert_eq!(world.persisted.shards.shards()[0].teams, Teams::of([Tag(0), Tag(1)]));
}

#[test]
fn a_recovery_keeps_what_all_answers_have_and_copies_what_may_be_missing_elsewhere() {
    let mut world = World::active();
    world.lose_coordinator();
    assert_eq!(world.persisted.generation, Generation(2));
    assert_eq!(world.persisted.active, None);
    // Two answers suffice; the third is not waited for.
    world.answer_locks([Some((500, 300)), Some((400, 320)), None]);
    let logs = world.recruit_logs();
    assert_eq!(logs.len(), 3);
    for log in &logs {
        assert_eq!(log.recruitment.recovery_version, Version(400));
        assert_eq!(log.begin_version, Version(320));
        // Copied may be from the third as well, which has been sent the lock.
        assert_eq!(log.sources.logs.len(), 3);
    }
    let proxies = world.recruit_proxies();
    assert_eq!(proxies[0].log_set.recovery_version, Version(400));
    world.persist();
    let state = world.controller.state();
    assert_eq!(state.phase, Phase::Active);
    let sets: Vec<_> = state
        .log_sets
        .iter()
        .map(|set| (set.begin_version.0, set.end_version.map(|end| end.0)))
        .collect();
    assert_eq!(sets, [(0, Some(400)), (320, None)]);
    let report = world.controller.status(world.now, Address::new("c")).last_recovery.unwrap();
    assert!(report.reason.contains("coordinator at p1:1: restarted"), "{report:?}");
}

#[test]
fn a_log_with_an_old_disk_is_left_out_of_a_recovery() {
    let mut world = World::active();
    world.lose_coordinator();
    // 320 is known to be on every log, so the first one has forgotten something: its answer does not count.
    world.answer_locks([Some((200, 150)), Some((400, 320)), Some((410, 300))]);
    let logs = world.recruit_logs();
    assert_eq!(logs[0].recruitment.recovery_version, Version(400));
    assert_eq!(logs[0].sources.logs.len(), 2);

    let mut world = World::active();
    world.lose_coordinator();
    world.answer_locks([Some((400, 320)), Some((200, 150)), None]);
    let reason = world.reason();
    assert!(reason.contains("its disk is an old one") && reason.contains("320"), "{reason}");

    // What the controller has seen itself counts, too.
    let mut world = World::active();
    world.step(Input::Committed(Version(350)));
    world.lose_coordinator();
    world.answer_locks([Some((340, 310)), Some((340, 310)), Some((400, 310))]);
    let reason = world.reason();
    assert!(reason.contains("locked 1 of the 3 logs") && reason.contains("350"), "{reason}");
}

#[test]
fn too_few_locks_are_not_enough_and_status_says_so() {
    let mut world = World::active();
    world.lose_coordinator();
    world.answer_locks([Some((7, 0)), None, None]);
    let reason = world.reason();
    assert!(
        reason.contains("locked 1 of the 3 logs")
            && reason.contains("one of the logs at p13:1 and p12:1 is needed"),
        "{reason}"
    );
    world.pass(100);
    world.lose_coordinator();
    assert_eq!(world.persisted.generation, Generation(3), "the next attempt is another generation");
    world.answer_locks([Some((7, 0)), None, Some((9, 0))]);
    world.finish();
}

#[test]
fn a_silent_member_fails_after_the_timeout_and_not_before() {
    let mut world = World::active();
    world.pass(999);
    world.step(Input::Tick);
    assert_eq!(world.generation(), 1);
    world.hear(heartbeat(COORDINATOR, 1, &[1]));
    world.hear(heartbeat(LOGS[0], 1, &[1]));
    world.hear(heartbeat(LOGS[1], 1, &[1]));
    world.pass(1);
    world.step(Input::Tick);
    assert_eq!(world.generation(), 2, "it goes on with the two logs that are left");
    world.persist();
    world.answer_locks([Some((7, 0)), Some((7, 0)), None]);
    assert_eq!(world.recruit_logs().len(), 2);
}

#[test]
fn a_lost_connection_counts_at_once() {
    let mut world = World::active();
    world.step(Input::Lost { process: ProcessId(LOGS[0]), incarnation: 7 });
    assert_eq!(world.generation(), 1, "that was another life of it");
    world.step(Input::Lost { process: ProcessId(LOGS[0]), incarnation: 1 });
    assert_eq!(world.generation(), 2);
}

#[test]
fn a_member_in_trouble_has_failed_and_is_not_recruited() {
    let mut world = World::active();
    let trouble = Some("the disk is full".to_owned());
    world.hear(Heartbeat { trouble, ..heartbeat(LOGS[0], 1, &[1]) });
    assert_eq!(world.generation(), 2);
    world.persist();
    world.answer_locks([None, Some((7, 0)), Some((7, 0))]);
    assert_eq!(world.recruit_logs().len(), 2);
}

#[test]
fn who_dies_in_the_middle_of_a_recovery_does_not_hold_it_up() {
    let mut world = World::active();
    world.lose_coordinator();
    world.answer_locks([Some((5, 0)), Some((5, 0)), Some((5, 0))]);
    assert!(matches!(world.phase(), Phase::Recovering { .. }));
    world.step(Input::Lost { process: ProcessId(LOGS[2]), incarnation: 1 });
    assert!(world.reason().contains("failed meanwhile"), "{}", world.reason());
    world.pass(20);
    world.lose_coordinator();
    world.effects.retain(|effect| !matches!(effect, Effect::Recruit { .. }));
    world.answer_locks([Some((5, 0)), Some((5, 0)), None]);
    assert_eq!(world.recruit_logs().len(), 2);
}

#[test]
fn a_generation_with_too_few_logs_is_replaced_when_there_are_more_for_a_while() {
    let mut world = World::active();
    world.step(Input::Lost { process: ProcessId(LOGS[2]), incarnation: 1 });
    world.persist();
    world.answer_locks([Some((5, 0)), Some((5, 0)), None]);
    world.finish();
    let alive = |world: &mut World, generation: u64| {
        world.hear(heartbeat(COORDINATOR, 1, &[generation]));
        world.hear(heartbeat(LOGS[0], 1, &[generation]));
        world.hear(heartbeat(LOGS[1], 1, &[generation]));
        world.hear(heartbeat(LOGS[2], 2, &[]));
    };
    for _ in 0..9 {
        world.pass(500);
        alive(&mut world, 2);
        assert_eq!(world.generation(), 2);
    }
    for _ in 0..3 {
        world.pass(500);
        alive(&mut world, 2);
    }
    assert_eq!(world.generation(), 2, "not before it is proved that it can be had");
    world.prove(&[]);
    assert_eq!(world.generation(), 3);
}

#[test]
fn a_healthy_generation_is_not_ended_for_one_that_cannot_be_had() {
    let mut world = World::active();
    world.step(Input::Lost { process: ProcessId(LOGS[2]), incarnation: 1 });
    world.persist();
    world.answer_locks([Some((5, 0)), Some((5, 0)), None]);
    world.finish();
    let broken = [COORDINATOR, LOGS[2]];
    let mut asked = 0;
    for _ in 0..100 {
        world.pass(500);
        world.hear(heartbeat(COORDINATOR, 1, &[2]));
        world.hear(heartbeat(LOGS[0], 1, &[2]));
        world.hear(heartbeat(LOGS[1], 1, &[2]));
        world.hear(heartbeat(LOGS[2], 2, &[]));
        if world.effects.iter().any(|effect| matches!(effect, Effect::Prove { .. })) {
            world.prove(&broken);
            asked += 1;
            let status = world.controller.status(world.now, Address::new("c"));
            let pair = (Address::new("p1:1"), Address::new("p13:1"));
            assert!(status.unreached.contains(&pair), "status names the two: {status:?}");
        }
        assert_eq!(world.generation(), 2);
    }
    assert!((2..20).contains(&asked), "asked {asked} times in 50 s");
}

/// The coordinators 1 and 2 and the logs 11 to 13 live; 2 is on the machine of log 12.
fn two_coordinators() -> World {
    let mut world = World::new();
    world.hear(heartbeat(2, 1, &[]));
    world.all_alive(&[]);
    world.persist();
    world.finish();
    world.pass(600);
    world.hear(heartbeat(2, 1, &[1]));
    world.all_alive(&[1]);
    world.storage_alive(100);
    world.effects.clear();
    world
}

#[test]
fn an_attempt_that_failed_because_two_do_not_reach_each_other_is_followed_by_one_without_them() {
    let mut world = two_coordinators();
    world.lose_coordinator();
    world.answer_locks([Some((7, 0)), Some((7, 0)), Some((7, 0))]);
    assert_eq!(world.recruit_logs().len(), 3);
    let error = Error::new(ErrorCode::TimedOut, Stage::Connect, "").at("p13:1#7");
    let generation = Generation(2);
    world.step(Input::Recruited { generation, slot: Slot::Proxy(0), result: Err(error) });
    assert!(world.reason().contains("p13:1"), "{}", world.reason());
    world.effects.clear();
    world.pass(100);
    world.step(Input::Tick);
    assert_eq!(world.generation(), 2, "the next one is proved first");
    // It is the machine of the coordinator that nobody there reaches: the other one is left.
    world.prove(&[COORDINATOR, LOGS[0], LOGS[1]]);
    if world.generation() == 2 {
        world.prove(&[COORDINATOR, LOGS[0], LOGS[1]]);
    }
    assert_eq!(world.generation(), 3);
    world.persist();
    world.answer_locks([Some((7, 0)), Some((7, 0)), Some((7, 0))]);
    world.finish();
}

#[test]
fn logs_in_fewer_zones_than_are_wanted_are_not_waited_for() {
    let mut world = World::new();
    STORAGE[..2].iter().for_each(|&storage| world.hear(heartbeat(storage, 1, &[])));
    world.hear(heartbeat(COORDINATOR, 1, &[]));
    for log in LOGS {
        let zone = if log == LOGS[1] { "b" } else { "a" };
        world.hear(Heartbeat { zone: zone.into(), ..heartbeat(log, 1, &[]) });
    }
    world.persist();
    assert_eq!(world.recruit_logs().len(), 2, "two copies are in two zones, and no third log fits");
}

#[test]
fn the_loss_of_a_zone_with_two_of_four_logs_is_survived() {
    let mut world = World::active();
    let set = world.controller.record.log_sets.last_mut().unwrap();
    // Two zones by turns, as they are recruited.
    set.logs.push(set.logs[1].clone());
    world.lose_coordinator();
    world.effects.clear();
    let reply = || LockReply {
        durable_version: Version(7),
        known_committed_version: Version(0),
        metadata: Vec::new(),
    };
    let down = || Error::new(ErrorCode::Unreachable, Stage::Connect, "down");
    for (index, result) in [(0, Err(down())), (1, Ok(reply())), (2, Err(down())), (3, Ok(reply()))]
    {
        let generation = Generation(2);
        world.step(Input::Locked { generation, index, result });
    }
    let logs = world.recruit_logs();
    assert_eq!(logs[0].sources.logs.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 3]);
    assert!(logs[0].sources.copy_groups().has_member_of_each(|index| index % 2 == 1));
}

#[test]
fn a_member_that_no_longer_hosts_its_generation_has_failed() {
    let mut world = World::active();
    world.hear(heartbeat(COORDINATOR, 1, &[]));
    assert!(matches!(world.phase(), Phase::Recovering { .. }));
}

#[test]
fn answers_of_an_earlier_attempt_are_ignored() {
    let mut world = World::active();
    world.lose_coordinator();
    world.answer_locks([Some((5, 0)), Some((5, 0)), Some((5, 0))]);
    let late = Generation(2);
    let down = Error::new(ErrorCode::Unreachable, Stage::Control, "down");
    world.step(Input::Recruited { generation: late, slot: Slot::Sequencer, result: Err(down) });
    world.effects.retain(|effect| !matches!(effect, Effect::Recruit { .. }));
    world.pass(1_000);
    world.all_logs(&[1]);
    world.lose_coordinator();
    world.answer_locks([Some((5, 0)), Some((5, 0)), Some((5, 0))]);
    world.recruit_logs();
    let result = Ok(Endpoint { address: Address::new("p1:1"), instance: 1 });
    world.step(Input::Recruited { generation: late, slot: Slot::Proxy(0), result });
    assert!(matches!(world.phase(), Phase::Recovering { .. }), "an answer for generation 2");
    assert_eq!(world.recruit_proxies()[0].recruitment.generation, Generation(3));
}

/// What a follower tells is never ahead of what the leader has agreed on, and not behind what the leader tells next.
#[test]
fn a_record_tells_the_same_state_as_the_leader_that_wrote_it() {
    let world = World::active();
    let led = world.controller.state();
    let told = state_of_record(&world.persisted, world.register_revision, led.controllers.clone());
    assert!(told.revision < led.revision, "{} {}", told.revision, led.revision);
    assert_eq!(record_of_revision(led.revision), world.register_revision);
    assert_eq!(ClusterState { revision: led.revision, ..told }, led);

    // A generation that is begun is not taken for the one before.
    let mut world = world;
    world.lose_coordinator();
    let told = state_of_record(&world.persisted, world.register_revision, Vec::new());
    assert!(told.revision > led.revision);
    assert!(matches!(told.phase, Phase::Recovering { .. }), "{:?}", told.phase);
    assert_eq!((told.generation, told.coordinator), (Generation(2), None));
}

#[test]
fn a_new_leader_adopts_a_healthy_generation() {
    let world = World::active();
    let before = world.controller.state();
    let mut world = World::from(world.persisted);
    let mut first = Vec::new();
    world.controller.begin(Vec::new(), &mut first);
    assert!(
        matches!(&first[..], [Effect::Persist { .. }, Effect::Publish(_), Effect::Watch(members)]
        if members.len() == 4)
    );
    let after = world.controller.state();
    assert_eq!((after.generation, after.phase), (before.generation, Phase::Active));
    assert!(after.revision > before.revision);
    world.pass(500);
    world.all_alive(&[1]);
    world.pass(600);
    world.step(Input::Tick);
    assert_eq!((world.phase(), world.generation()), (Phase::Active, 1));
}

#[test]
fn a_new_leader_notices_what_failed_meanwhile() {
    let mut world = World::from(World::active().persisted);
    world.hear(heartbeat(COORDINATOR, 1, &[1]));
    world.step(Input::Lost { process: ProcessId(LOGS[0]), incarnation: 1 });
    assert!(matches!(world.phase(), Phase::Waiting { .. }));
    // Not at once with whoever comes first: the others may be about to be heard.
    world.hear(heartbeat(LOGS[1], 1, &[1]));
    world.hear(heartbeat(LOGS[2], 1, &[1]));
    assert!(world.reason().contains("2 of 3 can be used"), "{}", world.reason());
    world.pass(250);
    world.step(Input::Tick);
    assert_eq!(world.generation(), 2);
}

#[test]
fn an_old_log_set_is_dropped_once_storage_has_it() {
    let mut world = World::active();
    world.lose_coordinator();
    world.answer_locks([Some((200_000_000, 0)), Some((200_000_000, 0)), None]);
    world.finish();
    world.storage_alive(199_999_999);
    assert_eq!(world.controller.state().log_sets.len(), 2);
    world.hear(storage_heartbeat(STORAGE[0], 0, 200_000_000));
    world.hear(storage_heartbeat(STORAGE[1], 7, 200_000_000));
    assert_eq!(world.controller.state().log_sets.len(), 2, "it speaks of another tag's data");
    world.hear(storage_heartbeat(STORAGE[1], 1, 200_000_000));
    assert_eq!(world.controller.state().log_sets.len(), 1);
    world.persist();
    assert_eq!(world.persisted.log_sets.len(), 1);
}

#[test]
fn a_storage_server_is_followed_to_its_new_address() {
    let mut world = World::active();
    let heartbeat = Heartbeat {
        worker: Endpoint { address: Address::new("elsewhere:1"), instance: 5 },
        ..world.controller.registry.last(ProcessId(STORAGE[0])).unwrap().clone()
    };
    world.hear(heartbeat);
    world.persist();
    let server = &world.persisted.storage_servers[0];
    assert_eq!(server.endpoint.address, Address::new("elsewhere:1"));
    assert_eq!(world.phase(), Phase::Active);
}

// The shard map.

fn shard_map_message(begin: &str, teams: &Teams) -> bytes::Bytes {
    let mut encoder = Encoder::default();
    let key = shard::key_servers_key(&begin.into());
    encoder.push(&Mutation::Set { key, value: teams.to_value() });
    encoder.finish()
}

#[test]
fn the_map_is_followed_up_to_what_is_known_to_be_committed() {
    let mut world = World::active();
    let joining = Teams { joining: vec![Tag(2)], ..Teams::of([Tag(0), Tag(1)]) };
    let reply = PeekReply {
        messages: vec![(Version(150_000_000), shard_map_message("", &joining))],
        through_version: Version(160_000_000),
        known_committed_version: Version(140_000_000),
        popped_version: Version(0),
        locked: false,
    };
    let input = |after, reply: &PeekReply| Input::Metadata {
        generation: Generation(1),
        after_version: Version(after),
        reply: reply.clone(),
    };
    world.step(input(0, &reply));
    assert_eq!(world.controller.metadata_version(), Version(140_000_000));
    assert_eq!(world.controller.state().shards.shards()[0].teams.joining, []);
    world.step(Input::Committed(Version(155_000_000)));
    world.step(input(0, &reply));
    assert_eq!(world.controller.metadata_version(), Version(140_000_000), "of another question");
    world.step(input(140_000_000, &reply));
    assert_eq!(world.controller.metadata_version(), Version(155_000_000));
    assert_eq!(world.controller.state().shards.shards()[0].teams, joining);
    let popped = world.taken(|effect| match effect {
        Effect::PopMetadata { logs, through_version } => Some((logs.len(), *through_version)),
        _ => None,
    });
    assert_eq!(popped, [(3, Version(155_000_000))]);
}

#[test]
fn logs_are_told_again_and_again_what_they_may_forget_of_the_map() {
    let mut world = World::active();
    world.lose_coordinator();
    // The recovery finds a change of the map, and copies it to the new logs: nobody reads it there.
    let teams = Teams::of([Tag(1), Tag(0)]);
    for index in 0..3 {
        let result = Ok(LockReply {
            durable_version: Version(40),
            known_committed_version: Version(20),
            metadata: vec![(Version(30), shard_map_message("", &teams))],
        });
        world.step(Input::Locked { generation: Generation(2), index, result });
    }
    world.finish();
    let mut popped = Vec::new();
    for _ in 0..24 {
        world.pass(500);
        world.all_logs(&[2]);
        world.hear(heartbeat(COORDINATOR, 2, &[2]));
        world.step(Input::Tick);
        popped.extend(world.taken(|effect| match effect {
            Effect::PopMetadata { logs, through_version } => {
                Some((logs[0].instance, logs.len(), *through_version))
            }
            _ => None,
        }));
    }
    assert!(popped.len() >= 2, "{popped:?}");
    assert!(popped.iter().all(|told| *told == (102, 3, Version(40))), "{popped:?}");
}

#[test]
fn a_recovery_takes_the_tail_of_the_map_from_the_locks() {
    let mut world = World::active();
    world.lose_coordinator();
    let joining = Teams { joining: vec![Tag(2)], ..Teams::of([Tag(0), Tag(1)]) };
    let later = Teams::of([Tag(0), Tag(2)]);
    let reply = |durable| LockReply {
        durable_version: Version(durable),
        known_committed_version: Version(0),
        metadata: vec![
            (Version(30), shard_map_message("", &joining)),
            (Version(40), shard_map_message("", &later)),
        ],
    };
    for (index, durable) in [(0, 40), (1, 35)] {
        let result = Ok(reply(durable));
        world.step(Input::Locked { generation: Generation(2), index, result });
    }
    // Version 40 is not on every log: it never was acknowledged, and is gone.
    world.recruit_logs();
    let proxies = world.recruit_proxies();
    assert_eq!(proxies[0].shards.shards()[0].teams, joining);
    world.persist();
    assert_eq!(world.persisted.shards.shards()[0].teams, joining);
    assert_eq!(world.persisted.metadata_version, Version(35));
}

#[test]
fn a_new_storage_server_joins_and_one_that_is_gone_for_long_is_replaced_by_it() {
    let mut world = World::active();
    world.hear(Heartbeat {
        storage: Some(StorageReport::default()),
        ..heartbeat(STORAGE[2], 1, &[])
    });
    world.step(Input::Tick);
    world.persist();
    let server = world.persisted.storage_servers[2].clone();
    assert_eq!((server.tag, server.process.0), (Tag(2), STORAGE[2]));
    assert_eq!(world.controller.state().next_tag, Tag(3));
    assert!(!world.controller.wants_relocation(world.now), "nobody is missing");

    let live = |world: &mut World| {
        world.hear(heartbeat(COORDINATOR, 1, &[1]));
        world.all_logs(&[1]);
        world.hear(storage_heartbeat(STORAGE[0], 0, 0));
        world.hear(storage_heartbeat(STORAGE[2], 2, 0));
        world.step(Input::Tick);
    };
    for _ in 0..20 {
        world.pass(500);
        live(&mut world);
    }
    assert!(world.controller.wants_relocation(world.now));
    assert_eq!(
        world.controller.relocation(Version(1), world.now),
        None,
        "the map is not known there"
    );
    let request = world.controller.relocation(Version(0), world.now).unwrap();
    request.check(Stage::Commit).unwrap();
    let joining = Teams { joining: vec![Tag(2)], ..Teams::of([Tag(0), Tag(1)]) };
    let (_, teams) = shard_map_change(&request.mutations[0]).unwrap();
    assert_eq!(teams, joining);

    // Once no shard names it, the lost server goes, and with it what the logs keep for it.
    world.controller.record.shards.set(&Key::MIN, Teams::of([Tag(0), Tag(2)]));
    world.step(Input::Tick);
    world.persist();
    let state = world.controller.state();
    assert!(state.is_removed(Tag(1)) && !state.is_removed(Tag(2)) && !state.is_removed(Tag(3)));
}

#[test]
fn a_controller_that_stood_still_replaces_nobody() {
    let mut world = World::active();
    world.hear(storage_heartbeat(STORAGE[2], 2, 0));
    world.now += Duration::from_secs(24 * 3_600);
    world.step(Input::Tick);
    assert_eq!(world.generation(), 1);
    assert!(!world.controller.wants_relocation(world.now));
    world.pass(999);
    world.step(Input::Tick);
    assert_eq!(world.phase(), Phase::Active);
    world.pass(1);
    world.step(Input::Tick);
    let reason = world.reason();
    assert!(reason.contains("0 are alive"), "who stays silent has failed, all the same: {reason}");
}

// Commands.

fn command(world: &mut World, command: Command) -> Result<(), String> {
    let now = world.now;
    let taken = world.controller.on_command(&command, 77, now, &mut world.effects);
    taken.map_err(|error| format!("{}: {}", error.code(), error.detail()))
}

fn redundancy(redundancy: Redundancy) -> Command {
    let change =
        ConfigurationChange { redundancy: Some(redundancy), ..ConfigurationChange::default() };
    Command::Configure(change)
}

#[test]
fn a_configuration_that_cannot_be_had_is_refused() {
    let mut world = World::active();
    let refused = command(&mut world, redundancy(Redundancy::Triple)).unwrap_err();
    assert!(
        refused.contains("triple needs storage processes in 3 zones, there are 2"),
        "{refused}"
    );
    let none = Command::Configure(ConfigurationChange {
        proxies: Some(0),
        ..ConfigurationChange::default()
    });
    assert!(command(&mut world, none).unwrap_err().contains("proxies = 0"));
    assert!(world.effects.is_empty());
    world.hear(storage_heartbeat(STORAGE[2], 2, 0));
    world.effects.clear();
    command(&mut world, redundancy(Redundancy::Triple)).unwrap();
    assert!(matches!(
        &world.effects[..],
        [Effect::Persist { .. }, Effect::Publish(_), Effect::Answer(77), ..]
    ));
    world.prove(&[]);
    assert_eq!(world.generation(), 2, "the logs follow the configuration");
    assert_eq!(world.controller.record.configuration.logs_wanted(), 3);
}

#[test]
fn an_excluded_process_loses_its_roles() {
    let mut world = World::active();
    let log = || vec![ProcessSelector::Address(Address::new("p11:1"))];
    let unknown = vec![ProcessSelector::Process(ProcessId(99))];
    assert!(command(&mut world, Command::Exclude(unknown)).unwrap_err().contains("there is no"));
    let both =
        vec![ProcessSelector::Process(ProcessId(11)), ProcessSelector::Process(ProcessId(12))];
    let refused = command(&mut world, Command::Exclude(both)).unwrap_err();
    assert!(refused.contains("log processes in 2 zones, there are 1"), "{refused}");
    command(&mut world, Command::Exclude(log())).unwrap();
    world.prove(&[]);
    assert_eq!(world.generation(), 2);
    world.persist();
    world.answer_locks([Some((5, 0)), Some((5, 0)), None]);
    assert_eq!(world.recruit_logs().len(), 2);
    assert_eq!(world.controller.state().excluded, log());
    // Taken back by its identity, although its address was excluded.
    let same = vec![ProcessSelector::Process(ProcessId(11))];
    command(&mut world, Command::Include(same)).unwrap();
    assert_eq!(world.controller.state().excluded, []);
}

#[test]
fn an_address_stays_excluded_under_a_new_identity() {
    let mut world = World::active();
    world.hear(heartbeat(2, 1, &[]));
    let first = || vec![ProcessSelector::Address(Address::new("p1:1"))];
    command(&mut world, Command::Exclude(first())).unwrap();
    let is_recruited = |world: &World, process| {
        let recruits = world.controller.choose_recruits(world.now).unwrap();
        recruits.members().iter().any(|member| member.process == ProcessId(process))
    };
    assert!(is_recruited(&world, 2) && !is_recruited(&world, 1));
    // It is restarted. A coordinator keeps nothing, so it is somebody new at the same address.
    let again = Heartbeat {
        worker: Endpoint { address: Address::new("p1:1"), instance: 6 },
        ..heartbeat(3, 1, &[])
    };
    world.hear(again);
    assert!(is_recruited(&world, 2) && !is_recruited(&world, 3));
    // The machine is gone for good; what was typed is taken back as it was typed.
    world.pass(400_000);
    world.step(Input::Tick);
    command(&mut world, Command::Include(first())).unwrap();
    assert_eq!(world.controller.state().excluded, []);
}

#[test]
fn a_controller_that_goes_on_alone_recovers_only_from_the_newest_record() {
    let mut record = World::active().persisted;
    let before = record.generation;
    record.force();
    // A log serves a generation that the record does not know: what was committed there would be forgotten.
    let mut world = World::from(record.clone());
    world.all_alive(&[before.0 + 1]);
    world.pass(2_000);
    world.all_alive(&[before.0 + 1]);
    world.step(Input::Tick);
    let Phase::Waiting { reason } = world.controller.state().phase else { panic!("it began") };
    assert!(reason.contains("has generation 2"), "{reason}");

    // All that is served is known: the recovery begins once everybody could be heard.
    let mut world = World::from(record.clone());
    world.all_alive(&[before.0]);
    world.step(Input::Tick);
    assert_eq!(world.controller.record.generation, record.generation);
    world.pass(2_000);
    world.all_alive(&[before.0]);
    world.step(Input::Tick);
    assert_eq!(world.controller.record.generation, record.generation.next());
    world.persist();
    world.answer_locks([Some((5, 0)), Some((5, 0)), None]);
    assert!(!world.recruit_logs().is_empty());
}

/// What an old record does not know is not deleted because of it, and nothing begins before everybody who may know more was
/// heard.
#[test]
fn a_controller_that_goes_on_alone_waits_for_whoever_may_know_more() {
    let mut record = World::active().persisted;
    let before = record.generation;
    record.force();
    let mut world = World::from(record);
    let hear = |world: &mut World, log: Heartbeat| {
        world.hear(heartbeat(COORDINATOR, 1, &[]));
        world.hear(storage_heartbeat(STORAGE[0], 0, 100));
        world.hear(heartbeat(LOGS[0], 1, &[]));
        let told = world.controller.on_heartbeat(log, world.now, &mut world.effects);
        assert_eq!((told.generation, world.controller.state().generation), (before, before));
        world.step(Input::Tick);
    };
    hear(&mut world, heartbeat(LOGS[1], 1, &[]));
    world.pass(5_000);
    hear(&mut world, heartbeat(LOGS[1], 1, &[]));
    let reason = world.reason();
    assert!(reason.contains("the storage server at p22:1, the log at p13:1"), "{reason}");
    world.hear(storage_heartbeat(STORAGE[1], 1, 0));
    assert!(world.reason().contains("to hear of the log at p13:1, "), "{}", world.reason());
    // A log of a generation that the record does not know, locked by another one of those.
    let kept_generations = vec![before, before.next()];
    hear(&mut world, Heartbeat { kept_generations, ..heartbeat(LOGS[1], 1, &[]) });
    assert!(world.reason().contains("p12:1 has generation 2"), "{}", world.reason());
    hear(&mut world, heartbeat(LOGS[1], 1, &[]));

    // The third log is gone for good, as the operator says.
    let gone = vec![ProcessSelector::Address(Address::new("p13:1"))];
    command(&mut world, Command::Exclude(gone)).unwrap();
    world.persist();
    world.answer_locks([Some((50, 0)), Some((50, 0)), None]);
    let reason = world.reason();
    assert!(reason.contains("the storage server at p21:1 has version 100"), "{reason}");
    world.pass(500);
    hear(&mut world, heartbeat(LOGS[1], 1, &[]));
    world.hear(storage_heartbeat(STORAGE[1], 1, 0));
    world.pass(500);
    hear(&mut world, heartbeat(LOGS[1], 1, &[]));
    world.persist();
    world.answer_locks([Some((100, 0)), Some((100, 0)), None]);
    world.finish();
    assert_eq!(world.persisted.forced_after, None);
    assert_eq!(world.controller.state().generation, world.persisted.generation);
}

#[test]
fn a_log_that_cannot_be_made_is_a_last_resort_for_a_while() {
    let mut world = World::active();
    world.lose_coordinator();
    world.answer_locks([Some((5, 0)), Some((5, 0)), Some((5, 0))]);
    let slot = world.effects.iter().find_map(|effect| match effect {
        Effect::Recruit { slot: slot @ Slot::Log(_), worker, .. } => {
            (worker.address.0 == "p13:1").then_some(*slot)
        }
        _ => None,
    });
    let error = Error::new(ErrorCode::Disk, Stage::Process, "no inodes are left").at("p13:1#5");
    let (generation, slot) = (Generation(2), slot.expect("it is asked for a log"));
    world.step(Input::Recruited { generation, slot, result: Err(error) });
    let is_last_resort = |seconds| {
        let then = world.now + Duration::from_secs(seconds);
        world.controller.registry.was_in_trouble(ProcessId(LOGS[2]), then)
    };
    assert!(is_last_resort(9) && !is_last_resort(10));
}
