//! Scripts of the machine, from `testscripts/`.

use ferrisdb_core::{
    ClusterId,
    id::Address,
    service::controller::{LogMember, Phase, StorageServer},
    shard::ShardMap,
};

use super::*;
use crate::testscript::{self, Args};

const PROCESS: ProcessId = ProcessId(1);
const PEEK_WAIT: Duration = Duration::from_millis(500);
const SETTINGS: MachineSettings = MachineSettings {
    window_versions: 10,
    flush_bytes: 100,
    window_bytes_max: 1_000,
    peek_bytes: 4_096,
};

/// `state 3=0..50 4=40/50..` lists log sets by generation, each with two logs of its own: where it begins, after a
/// slash where its own batches begin, if that is elsewhere, and where it ends.
///
/// `tag=2` is what the process has, from `begin=<version>` on, or `tag=none`; `others=0,1` are the tags of other
/// processes. The next tag is the one after all of these, or `next_tag`.
fn cluster_state(args: &Args) -> ClusterState {
    let version = |text: &str| text.parse().ok().map(Version);
    let log_sets = args.pairs().filter_map(|(name, span)| {
        let generation = Generation(name.parse().ok()?);
        let (begin, end) = span.split_once("..").unwrap();
        let (begin, recovery) = begin.split_once('/').unwrap_or((begin, begin));
        let log = |index: u64| LogMember {
            process: ProcessId(u128::from(10 * generation.0 + index)),
            endpoint: Endpoint::of_process(Address(format!("log{generation}.{index}"))),
        };
        Some(LogSet {
            generation,
            logs: vec![log(0), log(1)],
            replication: 2,
            begin_version: version(begin).unwrap(),
            recovery_version: version(recovery).unwrap(),
            end_version: version(end),
        })
    });
    let server = |process, tag: &str| StorageServer {
        tag: Tag(tag.parse().unwrap()),
        process,
        endpoint: Endpoint::of_process(Address::new("storage")),
        zone: "zone".into(),
        begin_version: Version(args.number_or_none("begin").unwrap_or(0)),
    };
    let others = args.get("others").into_iter().flat_map(|tags| tags.split(','));
    let mut storage_servers: Vec<_> = others.map(|tag| server(ProcessId(2), tag)).collect();
    let ours = args.get("tag").unwrap_or("0");
    if ours != "none" {
        storage_servers.push(server(PROCESS, ours));
    }
    let next_tag = storage_servers.iter().map(|server| server.tag.0 + 1).max().unwrap_or(0);
    let next_tag = Tag(args.number_or_none("next_tag").map_or(next_tag, |tag| tag as u32));
    ClusterState {
        cluster_id: ClusterId(1),
        revision: 1,
        generation: Generation(1),
        phase: Phase::Active,
        coordinator: None,
        log_sets: log_sets.collect(),
        storage_servers,
        next_tag,
        shards: ShardMap::default(),
        controllers: vec![],
        configuration: None,
        excluded: vec![],
    }
}

fn peek_reply(args: &Args) -> PeekReply {
    let version = |name| Version(args.number_or_none(name).unwrap_or(0));
    let messages = args.pairs().filter_map(|(name, message)| {
        let version = Version(name.parse().ok()?);
        Some((version, Bytes::copy_from_slice(message.as_bytes())))
    });
    PeekReply {
        messages: messages.collect(),
        through_version: version("through"),
        known_committed_version: version("committed"),
        popped_version: version("popped"),
        locked: args.bare().any(|word| word == "locked"),
    }
}

/// Runs the commands of a script on one machine.
struct Script {
    machine: Machine,
    asked: Option<Peek>,
}

impl Script {
    fn execute(&mut self, command: &str, args: &Args) -> String {
        let machine = &mut self.machine;
        let bytes = args.number_or_none("window_bytes").unwrap_or(0) as usize;
        match command {
            "state" => match machine.on_cluster_state(&cluster_state(args)) {
                Ok(Changes { rollback_after: Some(version), .. }) => {
                    format!("roll back to {version}")
                }
                Ok(Changes { begins_anew: Some(Beginning::Waiting), .. }) => {
                    *machine = Machine::new(PROCESS, None, Version::ZERO, SETTINGS);
                    "forget all, and wait".into()
                }
                Ok(Changes { begins_anew: Some(Beginning::Tagged(tag, version)), .. }) => {
                    *machine = Machine::new(PROCESS, Some(tag), version, SETTINGS);
                    let text = format!("begin anew at {version} with tag {tag}\n");
                    text + &self.execute(command, args)
                }
                Ok(changes) => format!("sources changed: {}", changes.sources_changed),
                Err(error) => format!("stops: {}", error.detail()),
            },
            "pull" => match machine.next_pull(bytes, PEEK_WAIT) {
                Pull::Wait(None) => "wait for the cluster".into(),
                Pull::Wait(Some(pause)) => format!("wait {pause:?}"),
                Pull::Peek(peek) => {
                    let PeekRequest { after_version, bytes_max, .. } = peek.request;
                    let text = format!("peek {} after {after_version}", peek.endpoint);
                    self.asked = Some(peek);
                    if bytes_max == 1 { text + ", only to learn" } else { text }
                }
            },
            "reply" => {
                let asked = self.asked.clone().unwrap();
                match machine.on_peeked(&asked, peek_reply(args), bytes) {
                    Ok(None) => "nothing to apply".into(),
                    Ok(Some(Advance { messages, through_version })) => {
                        let versions: Vec<_> = messages.iter().map(|(v, _)| v.0).collect();
                        format!("apply {versions:?} through {through_version}")
                    }
                    Err(error) => format!("stops: {}", error.detail()),
                }
            }
            "fail" => {
                let error = Error::new(ErrorCode::Unreachable, Stage::Connect, "");
                machine.on_peek_failed(&self.asked.clone().unwrap(), &error);
                String::new()
            }
            "urgent" => format!("urgent: {}", machine.is_flush_urgent(bytes)),
            "flush" => {
                let empty = args.bare().any(|word| word == "empty");
                let version = |name| args.number_or_none(name).map(Version);
                let (at_once, half) = (version("at_once"), version("half"));
                let through = |limit: Version, bytes: usize| {
                    let is_part = bytes == SETTINGS.flush_bytes;
                    let through = if is_part { at_once } else { half };
                    through.map_or(limit, |through| through.min(limit))
                };
                match machine.next_flush(bytes, empty, through) {
                    Some(NextFlush { version, is_cut: true }) => {
                        format!("write to {version}, and more at once")
                    }
                    Some(NextFlush { version, .. }) => format!("write to {version}"),
                    None => "nothing to write".into(),
                }
            }
            "flushed" => {
                machine.on_flushed(Version(args.number("version")));
                String::new()
            }
            "refused" => {
                machine.on_flush_refused();
                String::new()
            }
            "pop" => {
                let pops = machine.pops();
                let told = args.bare().next();
                for pop in pops.iter().filter(|pop| told == Some(&pop.endpoint.address.0)) {
                    machine.on_popped(pop);
                }
                let lines = pops.iter();
                lines
                    .map(|p| format!("pop {} through {}\n", p.endpoint, p.through_version))
                    .collect()
            }
            "fresh" => {
                *machine = Machine::new(PROCESS, None, Version::ZERO, SETTINGS);
                String::new()
            }
            "restart" => {
                *machine = Machine::new(PROCESS, machine.tag, machine.durable_version, SETTINGS);
                format!("at {}", machine.applied_version())
            }
            other => panic!("no such command: {other}"),
        }
    }
}

#[test]
fn scripts() {
    for name in testscript::names("src/storage/testscripts") {
        let machine = Machine::new(PROCESS, Some(Tag(0)), Version::ZERO, SETTINGS);
        let mut script = Script { machine, asked: None };
        let path = format!("src/storage/testscripts/{name}");
        testscript::run(&path, |command, args| script.execute(command, args));
    }
}

#[test]
#[should_panic(expected = "(I-12)")]
fn a_rollback_of_committed_versions_is_a_broken_invariant() {
    let machine = Machine::new(PROCESS, Some(Tag(0)), Version::ZERO, SETTINGS);
    let mut script = Script { machine, asked: None };
    let path = "src/storage/badscripts/committed_is_rolled_back";
    testscript::run(path, |command, args| script.execute(command, args));
}
