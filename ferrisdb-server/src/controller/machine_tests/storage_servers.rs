//! Storage servers that move, join or are lost.

use super::*;

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
