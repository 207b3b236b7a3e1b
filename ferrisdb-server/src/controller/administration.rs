//! What operators ask for: checked against what there is, agreed on, then carried out by itself.
//!
//! ```text
//!   configure triple     three zones with log processes and three with storage servers?  then: a generation with
//!                        three copies, and a third member for every team
//!   exclude 10.0.0.7     enough left without it?  then: its shards go elsewhere, its roles are recruited anew
//! ```
//!
//! A command is answered when the controllers remember it. How far it is carried out stands in the status.

use ferrisdb_core::{
    Error, ErrorCode, ProcessId, Result,
    id::Address,
    runtime::Instant,
    service::controller::{
        Command, Configuration, ConfigurationChange, Heartbeat, ProcessClass, ProcessSelector,
        is_selected,
    },
};

use super::{
    machine::{Controller, Effect, refused},
    recovery::Step,
};

impl Controller {
    /// Takes a command; [`Effect::Answer`] follows when it is agreed on.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NotSatisfiable`] or [`ErrorCode::InvalidArgument`], with what is missing; [`ErrorCode::Unavailable`] if it may be
    /// there, because this controller has just begun to lead. Nothing is changed then.
    pub fn on_command(
        &mut self,
        command: &Command,
        answer: u64,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> Result<()> {
        match command {
            Command::Configure(change) => self.configure(change, now)?,
            Command::Exclude(selectors) => self.exclude(selectors, now)?,
            Command::Include(selectors) => self.include(selectors, now)?,
            Command::AddController(_) | Command::RemoveController(_) => {
                let detail = "the group of controllers is not changed by its leader's machine";
                return Err(refused(ErrorCode::Internal, detail));
            }
        }
        tracing::info!(?command, "an operator's command");
        self.persist(effects);
        self.publish(effects);
        effects.push(Effect::Answer(answer));
        self.look(now, effects);
        Ok(())
    }

    fn configure(&mut self, change: &ConfigurationChange, now: Instant) -> Result<()> {
        let wanted = self.record.configuration.changed(change);
        check_bounds(&wanted)?;
        self.check_zones(&wanted, &self.record.excluded, now)?;
        self.record.configuration = wanted;
        Ok(())
    }

    fn exclude(&mut self, selectors: &[ProcessSelector], now: Instant) -> Result<()> {
        self.select(selectors, now)?;
        let mut excluded = self.record.excluded.clone();
        // As they were typed: who comes back to an address that is excluded, under whatever identity, stays excluded.
        excluded.extend(selectors.iter().cloned());
        excluded.sort_unstable();
        excluded.dedup();
        self.check_zones(&self.record.configuration, &excluded, now)?;
        self.record.excluded = excluded;
        Ok(())
    }

    fn include(&mut self, selectors: &[ProcessSelector], now: Instant) -> Result<()> {
        let is_noted = |selector: &&ProcessSelector| self.record.excluded.contains(selector);
        let unnoted: Vec<_> =
            selectors.iter().filter(|selector| !is_noted(selector)).cloned().collect();
        // Whatever excludes these processes has to go, however it was typed.
        let included = self.select(&unnoted, now)?;
        let excludes = |selector: &ProcessSelector| {
            let alone = std::slice::from_ref(selector);
            included.iter().any(|(process, address)| is_selected(alone, *process, address))
                || selectors.contains(selector)
        };
        self.record.excluded.retain(|selector| !excludes(selector));
        Ok(())
    }

    /// The processes that are meant, each of which is known.
    fn select(
        &self,
        selectors: &[ProcessSelector],
        now: Instant,
    ) -> Result<Vec<(ProcessId, Address)>> {
        let mut selected = Vec::new();
        for selector in selectors {
            let known = self.registry.statuses(self.registry.began());
            let heard = known
                .iter()
                .map(|status| (status.heartbeat.process, status.heartbeat.worker.address.clone()));
            let servers = self.record.storage_servers.iter();
            let stored = servers.map(|server| (server.process, server.endpoint.address.clone()));
            let logs = self.record.log_sets.iter().flat_map(|set| &set.logs);
            let logged = logs.map(|log| (log.process, log.endpoint.address.clone()));
            let alone = std::slice::from_ref(selector);
            let before = selected.len();
            let all = heard.chain(stored).chain(logged);
            selected.extend(all.filter(|(process, at)| is_selected(alone, *process, at)));
            if selected.len() == before {
                let detail = format!("there is no process {selector}; the status lists them");
                return Err(self.missing(ErrorCode::InvalidArgument, detail, now));
            }
        }
        Ok(selected)
    }

    /// The error of a command for which processes are missing. Whoever lives is heard of within a failure timeout: before that
    /// nobody knows.
    fn missing(&self, code: ErrorCode, detail: String, now: Instant) -> Error {
        let leads_for = now.saturating_duration_since(self.registry.began());
        if leads_for >= self.registry.failure_timeout() {
            return refused(code, detail);
        }
        let detail = format!(
            "this controller leads for {leads_for:.1?} only, and may not have heard of every process: {detail}"
        );
        refused(ErrorCode::Unavailable, detail)
    }

    /// Whether the processes there are suffice for a configuration, without those that are excluded.
    fn check_zones(
        &self,
        configuration: &Configuration,
        excluded: &[ProcessSelector],
        now: Instant,
    ) -> Result<()> {
        if matches!(self.step, Step::Waiting { .. }) && !self.record.is_created() {
            return Ok(());
        }
        let copies = configuration.redundancy.copies() as usize;
        for class in [ProcessClass::Log, ProcessClass::Storage, ProcessClass::Coordinator] {
            let usable = |heartbeat: &&Heartbeat| {
                !is_selected(excluded, heartbeat.process, &heartbeat.worker.address)
            };
            let alive = self.registry.alive_of(class, now).filter(usable);
            let mut zones: Vec<&str> = alive.map(|heartbeat| heartbeat.zone.as_str()).collect();
            zones.sort_unstable();
            zones.dedup();
            let needed = if class == ProcessClass::Coordinator { 1 } else { copies };
            if zones.len() < needed {
                let detail = format!(
                    "{} needs {class} processes in {needed} zones, there are {} {zones:?}; start more, or give \
                     processes that share no machine different zones (--zone)",
                    configuration.redundancy,
                    zones.len()
                );
                return Err(self.missing(ErrorCode::NotSatisfiable, detail, now));
            }
        }
        Ok(())
    }
}

/// Most logs, proxies or resolvers of a generation.
const ROLES_MAX: u32 = 64;

fn check_bounds(configuration: &Configuration) -> Result<()> {
    let Configuration { logs, proxies, resolvers, .. } = configuration;
    for (name, value) in [("logs", logs), ("proxies", proxies), ("resolvers", resolvers)] {
        if !(1..=ROLES_MAX).contains(value) {
            let detail = format!("{name} = {value}, between 1 and {ROLES_MAX} are possible");
            return Err(refused(ErrorCode::InvalidArgument, detail));
        }
    }
    Ok(())
}
