//! Where the controllers are, by what the settings say now.
//!
//! A server is told of its controllers when it starts, and of their changes by the cluster. If it sleeps while all of them are
//! replaced, neither helps. So it goes back to its settings whenever no controller answers: a file that an operator has
//! corrected meanwhile shows it the way, without a restart.

use std::{ffi::OsString, time::Duration};

use ferrisdb_core::{
    controllers::Controllers,
    id::Address,
    runtime::{self, Task},
};

use super::{Load, Role, load};

/// How often to look whether the controllers that are known still answer.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Has the settings read again whenever no controller answers, for as long as the task lives. `addresses` says which of them are
/// the controllers'.
pub fn follow<R: Role + 'static>(
    controllers: &Controllers,
    addresses: fn(R) -> Vec<Address>,
) -> Task {
    let controllers = controllers.clone();
    runtime::keep_running("following the settings", move || {
        let controllers = controllers.clone();
        async move {
            let mut known = None;
            loop {
                runtime::sleep(LOOK_EVERY).await;
                if !controllers.is_lost() {
                    continue;
                }
                let arguments = std::env::args_os().collect();
                let found = runtime::blocking(move || reload(arguments, addresses)).await;
                if let Some(found) = found.filter(|found| known.as_ref() != Some(found)) {
                    tracing::info!(controllers = ?found, "no controller answers: asking those of the settings");
                    controllers.give(found.clone());
                    known = Some(found);
                }
            }
        }
    })
}

/// What the settings say now; `None` if they are wrong, which was told when it mattered.
fn reload<R: Role>(
    arguments: Vec<OsString>,
    addresses: fn(R) -> Vec<Address>,
) -> Option<Vec<Address>> {
    match load::<R>(arguments) {
        Ok(Load::Run(loaded)) => Some(addresses(loaded.role)),
        Ok(Load::Print(_)) => None,
        Err(error) => {
            tracing::debug!(%error, "the settings cannot be read again");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogConfig;

    #[test]
    fn a_corrected_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log.toml");
        let arguments = || vec!["ferrisdb-log".into(), "--config".into(), file.clone().into()];
        let addresses = |config: LogConfig| config.controllers.addresses;
        for now in ["10.0.0.1:4500", "10.0.0.2:4500"] {
            std::fs::write(&file, format!("controllers = [\"{now}\"]")).unwrap();
            assert_eq!(reload(arguments(), addresses), Some(vec![Address::new(now)]));
        }
        std::fs::write(&file, "half a line").unwrap();
        assert_eq!(reload(arguments(), addresses), None);
    }
}
