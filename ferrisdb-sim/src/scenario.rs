//! Scenarios: what kind of cluster, which workloads, and what goes wrong meanwhile. A file each.
//!
//! ```toml
//! about = "Money is moved while nodes lose their power"
//! seconds = 20                      # how long the workloads run, in simulated time
//!
//! [cluster]                         # what is not named is drawn from the seed
//! redundancy = "double"
//!
//! [faults]
//! kinds = ["power_failure", "pause"]
//! every_ms = 3000
//!
//! [[workload]]
//! kind = "bank"
//! accounts = 10
//! ```
//!
//! The project's own are in `ferrisdb-sim/scenarios/`; a path leads to any other.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{
    fault::FaultSpec,
    plan::ClusterSpec,
    workload::{Workload, WorkloadSpec},
};

/// A scenario, as its file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is for, in a sentence.
    pub about: String,
    /// How long the workloads run, in simulated seconds.
    #[serde(default = "default_seconds")]
    pub seconds: u64,
    /// Whether all replicas are compared in the end.
    #[serde(default = "yes")]
    pub compare_replicas: bool,
    /// What the cluster looks like.
    #[serde(default)]
    pub cluster: ClusterSpec,
    /// What goes wrong.
    #[serde(default)]
    pub faults: FaultSpec,
    /// What clients do.
    #[serde(default, rename = "workload")]
    pub workloads: Vec<WorkloadSpec>,
    /// Instead of a cluster: the consensus of controllers alone.
    pub register: Option<RegisterSpec>,
}

/// A group of registers, see [`crate::group`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterSpec {
    /// How often something goes wrong.
    pub troubles: u32,
}

fn default_seconds() -> u64 {
    20
}

fn yes() -> bool {
    true
}

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        /// The project's own scenarios: names and files.
        pub const BUILT_IN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),+];
    };
}

built_in!(
    "api",
    "arguments",
    "atomic-operations",
    "bad-disks",
    "bank",
    "broken-links",
    "broken-links-unspared",
    "bulk",
    "c-interface",
    "cascades",
    "client-lives",
    "client-links",
    "clocks",
    "cold-keys",
    "conflicts",
    "controllers",
    "cycle",
    "deleted-keys",
    "directories",
    "disks",
    "edges",
    "exactly-once",
    "full-disks",
    "idle",
    "log-space",
    "long-idle",
    "many",
    "operations",
    "overload",
    "range-clears",
    "recorded-bank",
    "reconnections",
    "register",
    "relocations",
    "resolvers",
    "second-opinion",
    "serializability",
    "side-channel",
    "status",
    "too-few-left",
    "torn-writes",
    "two-generations",
    "unequal-logs",
    "watches",
    "watches-unequal",
    "zones",
    "window-border",
);

impl Scenario {
    /// Reads a scenario's file.
    ///
    /// # Errors
    ///
    /// What is wrong in it, and where.
    pub fn parse(text: &str) -> Result<Scenario> {
        let scenario: Scenario = toml::from_str(text)?;
        if scenario.register.is_none() && scenario.workloads.is_empty() {
            bail!("a scenario has at least one [[workload]]");
        }
        Ok(scenario)
    }

    /// The scenario of a name, or of a path.
    ///
    /// # Errors
    ///
    /// If there is none, or what is wrong in it.
    pub fn find(name: &str) -> Result<Scenario> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Scenario::parse(text).with_context(|| format!("scenario {name}"));
        }
        if !Path::new(name).is_file() {
            let known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bail!("there is no scenario {name}, and no such file; there are: {}", known.join(", "));
        }
        let text = std::fs::read_to_string(name).with_context(|| name.to_owned())?;
        Scenario::parse(&text).with_context(|| name.to_owned())
    }

    /// What its clients do, ready to begin.
    pub fn workloads(&self) -> Vec<Box<dyn Workload>> {
        self.workloads.iter().map(WorkloadSpec::build).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_built_in_scenarios_can_be_read() {
        for (name, text) in BUILT_IN {
            let scenario =
                Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert!(scenario.about.len() > 10, "{name} does not say what it is for");
        }
    }

    #[test]
    fn a_mistake_is_named() {
        let error = Scenario::parse("about = \"x\"\n[faults]\nkinds = [\"flood\"]").unwrap_err();
        assert!(error.to_string().contains("flood"), "{error}");
        assert!(Scenario::parse("about = \"x\"").unwrap_err().to_string().contains("workload"));
    }
}
