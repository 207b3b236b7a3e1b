//! `get`: the value of a key.

use anyhow::Result;
use ferrisdb_client::Key;
use ferrisdb_core::key::escape;
use serde_json::json;

use crate::{
    output::{Output, OutputFormat},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The key, in escaped form (\xNN, \\, \t, \n, \r, \0)
    #[arg(value_parser = super::key)]
    key: Key,
    /// Also print the version of the commit that wrote the value
    #[arg(long)]
    version_info: bool,
}

/// Prints the value; for a key that is not set, nothing but a note (or `null` as JSON). That is no error.
pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let key = &args.key;
    let found =
        session.read(|transaction| async move { transaction.get_versioned(key).await }).await?;
    let commit_version = found.as_ref().and_then(|found| found.commit_version);
    match (output.format, found) {
        (OutputFormat::Json, found) => {
            let mut object = json!({
                "key": escape(key),
                "value": found.map(|found| escape(&found.value)),
            });
            if args.version_info {
                object["commit_version"] = json!(commit_version.map(|version| version.0));
            }
            output.json(&object)?;
        }
        (OutputFormat::Text, None) => output.note(format_args!("{key:?} is not set"))?,
        (OutputFormat::Text, Some(found)) if args.version_info => {
            let version = commit_version.map_or("uncommitted".to_owned(), |v| v.to_string());
            writeln!(output.data, "{}\t{version}", found.value)?;
        }
        (OutputFormat::Text, Some(found)) => writeln!(output.data, "{}", found.value)?,
    }
    Ok(())
}
