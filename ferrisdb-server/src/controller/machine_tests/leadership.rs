//! A controller that begins to lead with the record of the one before, and followers that tell the same state.

use super::*;

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
