//! A recovery: what it waits for, which versions it keeps, and whose answers count.

use super::*;

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
