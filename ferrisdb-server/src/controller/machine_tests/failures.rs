//! Which processes have failed, and how soon the controller says so.

use super::*;

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
fn a_member_that_no_longer_hosts_its_generation_has_failed() {
    let mut world = World::active();
    world.hear(heartbeat(COORDINATOR, 1, &[]));
    assert!(matches!(world.phase(), Phase::Recovering { .. }));
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
