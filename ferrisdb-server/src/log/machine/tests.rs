//! Scripts in `testscripts/`: what goes into a log, and what comes out.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::testscript::{self, Args};

const INSTANCE: u64 = 9;

/// A log, and what its disk holds.
struct Script {
    log: Log,
    settings: LogSettings,
    calls: u64,
    /// What the state file says, and what is being written to it.
    saved: State,
    saving: Option<State>,
    headers: BTreeMap<u64, Version>,
    appended: Vec<(Place, Record)>,
    durable: Vec<(Place, Record)>,
}

impl Script {
    /// The log of generation 3, which begins after version 10.
    fn new() -> Script {
        let settings = LogSettings {
            segment_bytes: 300,
            memory_bytes_max: 300,
            early_pushes_max: 2,
            waiting_peeks_max: 2,
            ..LogSettings::default()
        };
        let state = State::new(INSTANCE, Generation(3), Version(10));
        let headers = BTreeMap::from([(0, Version(10))]);
        let log = Script::recover(&state, &headers, &[], &settings);
        let (saved, saving) = (state, None);
        let (appended, durable) = (Vec::new(), Vec::new());
        Script { log, settings, calls: 0, saved, saving, headers, appended, durable }
    }

    fn recover(
        state: &State,
        headers: &BTreeMap<u64, Version>,
        records: &[(Place, Record)],
        settings: &LogSettings,
    ) -> Log {
        let mut recovered = Recovered {
            state: state.clone(),
            layout: Layout::new(settings),
            history: VecDeque::new(),
            durable_version: state.begin_version,
            known_committed_version: state.begin_version,
            metadata: BTreeMap::new(),
        };
        for (segment, previous_version) in headers.range(state.first_segment..) {
            let records = records.iter().filter(|(place, _)| place.segment == *segment);
            recovered.layout.push_segment(*segment, *previous_version);
            recovered.durable_version = *previous_version;
            records.for_each(|(_, record)| recovered.note(record, record.encoded_bytes() as u64));
        }
        Log::new(recovered, settings.clone())
    }

    fn execute(&mut self, command: &str, args: &Args) -> String {
        let reply_to = ReplyTo(self.calls);
        let version = |name| Version(args.number(name));
        let input = match command {
            "push" => {
                self.calls += 1;
                Input::Push { request: push_request(args), reply_to }
            }
            "peek" => {
                self.calls += 1;
                let request = PeekRequest {
                    tag: Tag(args.number("tag") as u32),
                    after_version: version("after"),
                    bytes_max: args.number_or_none("bytes").unwrap_or(1000) as u32,
                    wait_ms: args.number_or_none("wait").unwrap_or(0) as u32,
                };
                Input::Peek { request, reply_to }
            }
            "lock" => {
                self.calls += 1;
                let request = LockRequest {
                    generation: Generation(args.number("gen")),
                    metadata_after: Version(args.number_or_none("metadata_after").unwrap_or(0)),
                };
                Input::Lock { request, reply_to }
            }
            "expire" => Input::PeekExpired { reply_to: ReplyTo(args.number("call")) },
            "pop" => Input::Pop {
                tag: args.number_or_none("tag").map_or(Tag::METADATA, |tag| Tag(tag as u32)),
                through_version: version("through"),
            },
            "sync" => {
                let limit = args.number_or_none("through").map_or(Version::MAX, Version);
                let count = self
                    .appended
                    .iter()
                    .take_while(|(_, record)| record.commit_version <= limit)
                    .count();
                self.durable.extend(self.appended.drain(..count));
                let last = self.durable.last().expect("something was appended");
                Input::Synced { through_version: last.1.commit_version }
            }
            "persist" => {
                self.saved = self.saving.take().expect("the state is being saved");
                Input::StatePersisted
            }
            "fail" => {
                let error = Error::new(ErrorCode::Disk, Stage::Process, "it smokes");
                Input::DiskFailed { error }
            }
            "copy" => {
                let request = CopyRequest {
                    after_version: version("after"),
                    through_version: version("through"),
                    bytes_max: 1000,
                };
                return match self.log.plan_copy(&request) {
                    Ok(Some(CopyPlan { extent: Extent { segment, offset, end }, .. })) => {
                        format!("reads {segment}:{offset}..{end}")
                    }
                    Ok(None) => "nothing".to_owned(),
                    Err(error) => format!("{}: {}", error.code(), error.detail()),
                };
            }
            "confirm" => {
                return match self.log.confirm(Generation(args.number("gen"))) {
                    Ok(()) => "confirmed".to_owned(),
                    Err(error) => format!("{}: {}", error.code(), error.detail()),
                };
            }
            "restart" => {
                self.appended.clear();
                self.saving = None;
                self.log =
                    Script::recover(&self.saved, &self.headers, &self.durable, &self.settings);
                let durable = self.log.durable_version();
                return format!("restarted durable={durable} healthy={}", self.log.is_healthy());
            }
            other => panic!("no such command: {other}"),
        };
        let mut effects = Vec::new();
        self.log.step(input, &mut effects);
        let lines: Vec<_> = effects.into_iter().map(|effect| self.perform(effect)).collect();
        lines.join("\n")
    }

    fn perform(&mut self, effect: Effect) -> String {
        match effect {
            Effect::BeginSegment(header) => {
                self.headers.insert(header.segment, header.previous_version);
                let SegmentHeader { segment, sealed_bytes, previous_version, .. } = header;
                format!(
                    "begin segment {segment} after {previous_version}, sealing {sealed_bytes} bytes"
                )
            }
            Effect::Append(place, record) => {
                let (previous, commit) = (record.previous_version, record.commit_version);
                let line =
                    format!("append {previous} -> {commit} at {}:{}", place.segment, place.offset);
                self.appended.push((place, record));
                line
            }
            Effect::PersistState(state) => {
                let State { locked_generation, first_segment, dropped, .. } = &state;
                let dropped: Vec<_> =
                    dropped.iter().map(|(tag, version)| format!(" {tag}={version}")).collect();
                let line = format!(
                    "persist locked={locked_generation} first_segment={first_segment} dropped{}",
                    dropped.concat()
                );
                self.saving = Some(state);
                line
            }
            Effect::RemoveSegments { first, end } => format!("remove segments {first}..{end}"),
            Effect::Answer(ReplyTo(call), Ok(reply)) => format!("call {call}: {}", show(&reply)),
            Effect::Answer(ReplyTo(call), Err(error)) => {
                format!("call {call}: {}: {}", error.code(), error.detail())
            }
            Effect::ReadDisk(ReplyTo(call), plan) => {
                let Extent { segment, offset, end } = plan.extent;
                let (through, popped) = (plan.reply.through_version, plan.reply.popped_version);
                format!(
                    "call {call}: reads {segment}:{offset}..{end} through={through} popped={popped}"
                )
            }
        }
    }
}

fn push_request(args: &Args) -> PushRequest {
    let messages = args.pairs().filter_map(|(name, value)| {
        let tag = if name == "metadata" { Tag::METADATA } else { Tag(name.parse().ok()?) };
        Some((tag, Bytes::copy_from_slice(value.as_bytes())))
    });
    PushRequest {
        generation: Generation(args.number_or_none("gen").unwrap_or(3)),
        previous_version: Version(args.number("previous")),
        commit_version: Version(args.number("version")),
        known_committed_version: Version(args.number_or_none("known").unwrap_or(10)),
        messages: messages.collect(),
    }
}

fn show(reply: &Reply) -> String {
    match reply {
        Reply::Push(reply) => format!("pushed durable={}", reply.durable_version),
        Reply::Lock(reply) => {
            let metadata = reply.metadata.iter().map(|(version, message)| {
                format!(" metadata {version}={}", String::from_utf8_lossy(message))
            });
            format!(
                "locked durable={} known={}{}",
                reply.durable_version,
                reply.known_committed_version,
                metadata.collect::<String>()
            )
        }
        Reply::Peek(reply) => {
            let messages = reply.messages.iter().map(|(version, message)| {
                format!(" {version}={}", String::from_utf8_lossy(message))
            });
            format!(
                "peeked{} through={} known={} popped={}{}",
                messages.collect::<String>(),
                reply.through_version,
                reply.known_committed_version,
                reply.popped_version,
                if reply.locked { " locked" } else { "" }
            )
        }
    }
}

/// Versions come from the network: the last one there can be has none after it.
#[test]
fn a_pop_through_the_end_of_time_is_a_pop() {
    let mut script = Script::new();
    let mut effects = Vec::new();
    let (tag, through_version) = (Tag::METADATA, Version::MAX);
    script.log.step(Input::Pop { tag, through_version }, &mut effects);
    assert!(effects.is_empty(), "{effects:?}");
}

fn run(name: &str) {
    let mut script = Script::new();
    let path = format!("src/log/testscripts/{name}");
    testscript::run(&path, |command, args| script.execute(command, args));
}

macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_script_is_run() {
            assert_eq!(testscript::names("src/log/testscripts"), [$(stringify!($name)),*]);
        }
    };
}

scripts! {
    a_disk_failure_is_final
    bounds
    early_push_waits
    lagging_reader
    lock_survives_restart
    lock_tells_the_metadata
    lock_waits_for_writes
    peek_waits
    pop_reclaims
    repeated_push
}
