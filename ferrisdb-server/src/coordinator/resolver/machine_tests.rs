//! The machine by its scripts. A script's commands:
//!
//! ```text
//!   new gen=2 recovery=100 [waiting=N] [waiting_bytes=N] [remembered=N]
//!   tx at=100 reads=a,c..f writes=b [report]         one more transaction of the next batch
//!   resolve previous=100 version=110 [as=NAME] [gen=N]   sends the batch; prints all answers
//!   progress
//! ```

use ferrisdb_core::Key;

use super::*;
use crate::testscript::{self, Args};

const DIRECTORY: &str = "src/coordinator/resolver/testscripts";

struct Script {
    generation: Generation,
    resolver: Resolver<String>,
    transactions: Vec<ResolveTransaction>,
}

impl Script {
    fn new() -> Script {
        let resolver = Resolver::new(Generation(1), Version::ZERO, 1, ResolverSettings::default());
        Script { generation: Generation(1), resolver, transactions: Vec::new() }
    }

    fn execute(&mut self, command: &str, args: &Args) -> String {
        match command {
            "new" => self.start(args),
            "tx" => self.transactions.push(transaction(args)),
            "resolve" => return self.resolve(args),
            "progress" => return progress(&self.resolver),
            _ => panic!("there is no command {command}"),
        }
        String::new()
    }

    fn start(&mut self, args: &Args) {
        let defaults = ResolverSettings::default();
        let setting = |name, default| args.number_or_none(name).map_or(default, |n| n as usize);
        let settings = ResolverSettings {
            waiting_max: setting("waiting", defaults.waiting_max),
            waiting_bytes_max: setting("waiting_bytes", defaults.waiting_bytes_max),
            remembered_max: setting("remembered", defaults.remembered_max),
            ..defaults
        };
        self.generation = Generation(args.number("gen"));
        self.resolver =
            Resolver::new(self.generation, Version(args.number("recovery")), 1, settings);
    }

    fn resolve(&mut self, args: &Args) -> String {
        let request = ResolveRequest {
            generation: args.number_or_none("gen").map_or(self.generation, Generation),
            proxy: 0,
            previous_version: Version(args.number("previous")),
            commit_version: Version(args.number("version")),
            metadata: Vec::new(),
            transactions: std::mem::take(&mut self.transactions),
        };
        let name = args.get("as").map_or_else(|| request.commit_version.to_string(), str::to_owned);
        let mut effects = Vec::new();
        self.resolver.step(Input::Resolve { request, reply_to: name.clone() }, &mut effects);
        if effects.is_empty() {
            return format!("{name} waits");
        }
        let lines = effects.into_iter().map(|Effect::Answer(name, answer)| match answer {
            Ok(reply) => format!("{name}: {}", verdicts(&reply)),
            Err(error) => format!("{name} refused: {}, {}", error.code(), error.detail()),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// `a` is a single key, `a..c` a range.
fn ranges(args: &Args, name: &str) -> Vec<KeyRange> {
    let texts = args.get(name).into_iter().flat_map(|list| list.split(','));
    texts
        .map(|text| match text.split_once("..") {
            Some((begin, end)) => KeyRange::new(begin, end),
            None => KeyRange::single(&Key::from(text)),
        })
        .collect()
}

fn transaction(args: &Args) -> ResolveTransaction {
    ResolveTransaction {
        read_version: Version(args.number_or_none("at").unwrap_or(0)),
        read_conflicts: (0..).zip(ranges(args, "reads")).collect(),
        write_conflicts: ranges(args, "writes"),
        report_conflicts: args.bare().any(|word| word == "report"),
    }
}

fn verdicts(reply: &ResolveReply) -> String {
    let words = reply.verdicts.iter().map(|verdict| match verdict {
        Verdict::Accepted => "accepted".to_owned(),
        Verdict::TooOld => "too_old".to_owned(),
        Verdict::Conflict { reads } => {
            let reads = reads.iter().map(|read| format!("{} at {}", read.index, read.written_at));
            format!("conflict[{}]", reads.collect::<Vec<_>>().join(", "))
        }
    });
    let words = words.collect::<Vec<_>>().join(" ");
    if words.is_empty() { "no transactions".to_owned() } else { words }
}

fn progress<R>(resolver: &Resolver<R>) -> String {
    let ResolverProgress {
        resolved_version,
        batches,
        accepted,
        conflicts,
        too_old,
        waiting,
        window_entries,
    } = resolver.progress();
    format!(
        "resolved={resolved_version} batches={batches} accepted={accepted} conflicts={conflicts} \
         too_old={too_old} waiting={waiting} entries={window_entries}"
    )
}

#[test]
fn scripts() {
    let names = testscript::names(DIRECTORY);
    assert!(names.len() >= 7, "only {names:?}");
    for name in names {
        let mut script = Script::new();
        testscript::run(&format!("{DIRECTORY}/{name}"), |command, args| {
            script.execute(command, args)
        });
    }
}
