//! The shard map is followed in the logs, and survives a recovery.

use ferrisdb_core::mutation::Encoder;

use super::*;

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
