//! Who gets a role, and when a better choice is worth a new generation.

use ferrisdb_core::service::controller::{Configuration, Redundancy};

use super::*;

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
fn two_coordinators(configuration: Configuration) -> World {
    let mut world = World::from(ClusterRecord::new(ClusterId(9), configuration));
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
    // The second: one of them lacks what a connection needs.
    for code in [ErrorCode::TimedOut, ErrorCode::TooBusy] {
        fail_to_reach_each_other(code);
    }
}

fn fail_to_reach_each_other(code: ErrorCode) {
    let mut world = two_coordinators(configuration());
    world.lose_coordinator();
    world.answer_locks([Some((7, 0)), Some((7, 0)), Some((7, 0))]);
    assert_eq!(world.recruit_logs().len(), 3);
    let error = Error::new(code, Stage::Connect, "").at("p13:1#7");
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

/// With a single copy each old log has something that nobody else has.
#[test]
fn a_log_that_does_not_reach_what_it_has_to_copy_is_not_recruited() {
    let single = Configuration { redundancy: Redundancy::Single, ..configuration() };
    let mut world = two_coordinators(single);
    let [one, other] = [LOGS[0], LOGS[1]].map(|log| Address::new(format!("p{log}:1")));
    world.controller.registry.accuse(&one, &other, world.now);
    world.lose_coordinator();
    world.prove(&LOGS[..2]);
    world.persist();
    world.answer_locks([Some((7, 0)), Some((7, 0)), Some((7, 0))]);
    let logs = world.taken(|effect| match effect {
        Effect::Recruit { slot: Slot::Log(_), worker, .. } => Some(worker.address.clone()),
        _ => None,
    });
    assert_eq!(logs, [Address::new(format!("p{}:1", LOGS[2]))]);
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
