//! Commands of operators: another configuration, processes that are excluded and included again.

use ferrisdb_core::service::controller::{ConfigurationChange, Redundancy};

use super::*;

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
fn a_new_leader_refuses_nothing_for_want_of_whom_it_has_not_heard_of_yet() {
    let commands = [
        redundancy(Redundancy::Double),
        Command::Exclude(vec![ProcessSelector::Process(ProcessId(LOGS[0]))]),
        Command::Exclude(vec![ProcessSelector::Process(ProcessId(99))]),
    ];
    for wanted in commands {
        let mut world = World::from(World::active().persisted);
        world.controller.begin(Vec::new(), &mut Vec::new());
        let early = command(&mut world, wanted.clone()).unwrap_err();
        let unavailable = ErrorCode::Unavailable.to_string();
        assert!(early.starts_with(&unavailable), "{early}");
        world.pass(2_000);
        let late = command(&mut world, wanted).unwrap_err();
        assert!(!late.starts_with(&unavailable), "{late}");
    }
}
