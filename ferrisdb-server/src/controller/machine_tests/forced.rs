//! A controller that an operator forced to go on alone, perhaps with an old record.

use super::*;

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
