//! What can be said of a cluster of which no controller leads, or none answers.
//!
//! ```text
//!   10.0.0.1:4500    answers: no leader is known there
//!   10.0.0.2:4500    does not answer: connection refused
//!   10.0.0.3:4500    does not answer: connection refused       1 of 3, 2 are needed: start one of the others
//! ```
//!
//! Transactions go on for a while without controllers, until something fails; so this is an alarm, but what is
//! down is not known.

use std::{collections::BTreeSet, fmt::Write as _};

use ferrisdb_client::{Address, ControllerAnswer, ErrorCode, Leader};
use serde_json::{Value, json};

use super::findings::{Finding, Severity};

/// The controllers' answers, and what they mean.
pub(crate) struct Survey<'a> {
    answers: &'a [ControllerAnswer],
    /// The members of the group, as far as those that answer know; otherwise whoever was asked.
    members: Vec<Address>,
}

impl<'a> Survey<'a> {
    pub(crate) fn new(answers: &'a [ControllerAnswer]) -> Survey<'a> {
        let known = answers.iter().filter_map(|answer| answer.answer.as_ref().ok());
        let members: BTreeSet<Address> =
            known.flat_map(|leader| &leader.controllers).map(|m| m.address.clone()).collect();
        let members = match members.is_empty() {
            true => answers.iter().map(|answer| answer.address.clone()).collect(),
            false => members.into_iter().collect(),
        };
        Survey { answers, members }
    }

    fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    fn answering(&self) -> impl Iterator<Item = (&Address, &Leader)> {
        let answers = self.answers.iter();
        answers.filter_map(|answer| Some((&answer.address, answer.answer.as_ref().ok()?)))
    }

    /// Members that answer.
    fn living(&self) -> usize {
        self.answering().filter(|(address, _)| self.members.contains(address)).count()
    }

    /// Whom the others take for the leader, and who says so itself.
    fn named(&self) -> BTreeSet<&Address> {
        self.answering().filter_map(|(_, leader)| leader.address.as_ref()).collect()
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        let (all, living, majority) = (self.members.len(), self.living(), self.majority());
        let silent: Vec<String> = self
            .answers
            .iter()
            .filter(|answer| answer.answer.is_err() && self.members.contains(&answer.address))
            .map(|answer| answer.address.to_string())
            .collect();
        let down = |what: String, todo: String| Finding { severity: Severity::Down, what, todo };
        let wrong = |code: ErrorCode| {
            let is = |a: &ControllerAnswer| a.answer.as_ref().is_err_and(|e| e.code() == code);
            self.answers.iter().any(is)
        };
        let mut findings = Vec::new();
        if wrong(ErrorCode::WrongCluster) || wrong(ErrorCode::IncompatibleProtocol) {
            findings.push(down(
                String::from("a controller belongs to another cluster, or runs another release"),
                String::from(
                    "check --controllers or the cluster file, and that all run the release of this program",
                ),
            ));
        }
        if living == 0 {
            findings.push(down(
                format!("none of {all} controllers answers"),
                format!(
                    "check that the addresses are right (--controllers, or the cluster file), that the network to \
                     them works, and that they run; {majority} of them must run: start them with their data directories"
                ),
            ));
        } else if living < majority {
            findings.push(down(
                format!("{living} of {all} controllers answer, {majority} are needed to lead"),
                format!(
                    "start {} of {}, with its data directory; until then nothing is repaired, and whatever \
                     fails next stays failed",
                    if majority - living == 1 { "one".into() } else { (majority - living).to_string() },
                    silent.join(", ")
                ),
            ));
        } else if let Some(leader) = self.named().into_iter().next() {
            findings.push(down(
                format!("{leader} is said to lead, but does not serve this program"),
                format!(
                    "ask again in some seconds: it may have begun to lead just now; if it stays so, look at its \
                     log and at the network between here and {leader}"
                ),
            ));
        } else {
            findings.push(down(
                format!("{living} of {all} controllers answer, and none of them leads"),
                String::from(
                    "ask again in some seconds: an election may be under way; if it stays so, they cannot reach \
                     each other, or cannot write their disks: look at the network between them and at their logs",
                ),
            ));
        }
        findings
    }

    fn what_it_says(answer: &ControllerAnswer) -> String {
        match &answer.answer {
            Ok(Leader { address: Some(leader), .. }) if *leader == answer.address => {
                String::from("says that it leads")
            }
            Ok(Leader { address: Some(leader), .. }) => format!("says that {leader} leads"),
            Ok(Leader { address: None, .. }) => String::from("knows of no leader"),
            Err(error) => {
                format!("DOES NOT ANSWER: {} ({})", error.code().sentence(), error.detail())
            }
        }
    }

    /// For people.
    pub(crate) fn report(&self) -> String {
        let named: Vec<String> = self.named().into_iter().map(ToString::to_string).collect();
        let mut text = match named.is_empty() {
            true => String::from("NOT KNOWN: no controller leads"),
            false => format!(
                "NOT KNOWN: {} leads the controllers, as those that answer say, and does not serve this program",
                named.join(" or ")
            ),
        };
        text.push_str("; what runs goes on until something fails.\n\n");
        // Writing into a String cannot fail.
        for finding in self.findings() {
            let _ = writeln!(text, "  ! {}\n    do: {}", finding.what, finding.todo);
        }
        text.push_str("\nControllers\n");
        for answer in self.answers {
            let _ = writeln!(text, "  {}  {}", answer.address, Survey::what_it_says(answer));
        }
        text
    }

    /// For programs.
    pub(crate) fn object(&self) -> Value {
        let controller = |answer: &ControllerAnswer| {
            let leader = answer.answer.as_ref().ok().and_then(|leader| leader.address.as_ref());
            json!({
                "address": answer.address.to_string(),
                "answers": answer.answer.is_ok(),
                "leader": leader.map(ToString::to_string),
                "failure": answer.answer.as_ref().err().map(ToString::to_string),
            })
        };
        let findings = self.findings();
        let findings = findings.iter().map(Finding::object).collect::<Vec<_>>();
        json!({
            "health": "unknown",
            "findings": findings,
            "controller": null,
            "controllers": self.answers.iter().map(controller).collect::<Vec<_>>(),
            "controllers_needed": self.majority(),
        })
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::{ControllerMember, Error, Stage};

    use super::*;

    /// Controllers 0 to 2: `None` for one that does not answer, otherwise whom it takes for the leader.
    fn answers(answers: [Option<Option<u64>>; 3]) -> Vec<ControllerAnswer> {
        let address = |node: u64| Address::new(format!("c{node}:4500"));
        let member = |node| ControllerMember { node, address: address(node) };
        let answer = |(node, answer): (u64, Option<Option<u64>>)| ControllerAnswer {
            address: address(node),
            answer: match answer {
                Some(leader) => Ok(Leader {
                    address: leader.map(address),
                    controllers: (0..3).map(member).collect(),
                }),
                None => Err(Error::new(ErrorCode::Unreachable, Stage::Connect, "refused")),
            },
        };
        (0..).zip(answers).map(answer).collect()
    }

    fn found(all: [Option<Option<u64>>; 3]) -> String {
        let answers = answers(all);
        let findings = Survey::new(&answers).findings();
        assert_eq!(findings.len(), 1, "{findings:?}");
        format!("{}: {}", findings[0].what, findings[0].todo)
    }

    #[test]
    fn a_missing_majority_is_named() {
        let text = found([Some(None), None, None]);
        assert!(text.contains("1 of 3 controllers answer, 2 are needed"), "{text}");
        assert!(text.contains("start one of c1:4500, c2:4500"), "{text}");
        assert!(found([None, None, None]).contains("none of 3 controllers answers"));
    }

    #[test]
    fn a_majority_without_a_leader_is_an_election() {
        assert!(found([Some(None), Some(None), None]).contains("an election may be under way"));
        let text = found([Some(Some(2)), Some(Some(2)), None]);
        assert!(text.contains("c2:4500 is said to lead"), "{text}");
    }

    #[test]
    fn the_report_lists_everybody() {
        let nobody = answers([Some(None), Some(None), None]);
        assert!(Survey::new(&nobody).report().starts_with("NOT KNOWN: no controller leads;"));
        let answers = answers([Some(None), Some(Some(0)), None]);
        let survey = Survey::new(&answers);
        let report = survey.report();
        for shown in ["c0:4500  knows of no leader", "c1:4500  says that c0", "DOES NOT ANSWER"] {
            assert!(report.contains(shown), "{shown} is missing in:\n{report}");
        }
        assert!(report.starts_with("NOT KNOWN: c0:4500 leads the controllers"), "{report}");
        assert_eq!(survey.object()["controllers"][2]["answers"], false);
        assert_eq!(survey.object()["controllers_needed"], 2);
    }
}
