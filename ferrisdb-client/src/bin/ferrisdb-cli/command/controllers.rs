//! `controllers`: the group that keeps the cluster's record, and its members.

use anyhow::Result;
use ferrisdb_client::{Address, Leader};
use serde_json::json;

use super::status::table;
use crate::{
    output::{Output, OutputFormat},
    session::Session,
};

/// What `--help` says.
pub(super) const HELP: &str = "\
Lists, adds and removes controllers. An odd number of them makes sense: of three, one can be lost, of five two.

To replace one whose disk is lost, start it anew with an empty directory, then remove it and add it.

Examples:
  controllers
  controllers add 10.0.0.9:4500
  controllers remove 10.0.0.2:4500";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Who is a member, who leads, who answers (this is what happens without a word, too)
    List,
    /// Make a controller a member; it has to run, with these controllers in its --controllers
    Add {
        /// Where it is reached
        #[arg(value_parser = crate::connect::address)]
        address: Address,
    },
    /// Remove a member, whether it runs or not
    Remove {
        /// Where it is, or was, reached
        #[arg(value_parser = crate::connect::address)]
        address: Address,
    },
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let database = session.database();
    let changed = match args.action.clone().unwrap_or(Action::List) {
        Action::List => return list(session, output).await,
        Action::Add { address } => {
            database.add_controller(address.clone()).await.map_err(super::not_answered)?;
            format!(
                "{address} is a controller now; name it in --controllers of processes and in the cluster files of clients"
            )
        }
        Action::Remove { address } => {
            database.remove_controller(address.clone()).await.map_err(super::not_answered)?;
            format!("{address} is no controller any more; it can be stopped")
        }
    };
    match output.format {
        OutputFormat::Json => output.json(&json!({ "changed": true }))?,
        OutputFormat::Text => output.note(changed)?,
    }
    Ok(())
}

async fn list(session: &Session, output: &mut Output<'_>) -> Result<()> {
    let answers = session.database().ask_controllers().await;
    let known = answers.iter().filter_map(|answer| answer.answer.as_ref().ok());
    // Of several lists the one of the leader, if it answers: it changes the group.
    let leads = |leader: &&Leader| {
        let mut answers = answers.iter();
        answers.any(|a| {
            a.answer.as_ref() == Ok(*leader) && leader.address.as_ref() == Some(&a.address)
        })
    };
    let leader = known.clone().find(leads).or_else(|| known.clone().next());
    let members = leader.map(|leader| leader.controllers.clone()).unwrap_or_default();
    let mut listed = table(["ADDRESS", "ROLE", "NODE", "ANSWERS"], &[]);
    for answer in &answers {
        let member = members.iter().find(|member| member.address == answer.address);
        let is_leader = leader.is_some_and(|l| l.address.as_ref() == Some(&answer.address));
        let role = match member {
            Some(_) if is_leader => "leader",
            Some(_) => "member",
            None => "no member",
        };
        let node = member.map(|member| format!("{:016x}", member.node));
        let failure = answer.answer.as_ref().err().map(ToString::to_string);
        match output.format {
            OutputFormat::Json => output.json(&json!({
                "address": answer.address.to_string(),
                "role": role,
                "node": node,
                "failure": failure,
            }))?,
            OutputFormat::Text => {
                let node = node.unwrap_or_else(|| String::from("-"));
                let answers =
                    failure.map_or(String::from("yes"), |failure| format!("NO: {failure}"));
                listed.add_row([answer.address.to_string(), role.to_owned(), node, answers]);
            }
        }
    }
    if output.format == OutputFormat::Text {
        writeln!(output.data, "{}", listed.trim_fmt())?;
    }
    Ok(())
}
