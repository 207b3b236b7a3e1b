//! `status`: how the cluster is, and what to do if it is not well.
//!
//! The report begins with the verdict, then says what to do, and only then lists everything: whoever is woken
//! by an alarm reads the first lines. What counts as a problem is decided in `findings.rs`.

mod findings;
mod json;
#[cfg(test)]
mod tests;
mod text;

use anyhow::Result;

use crate::{
    output::{Output, OutputFormat},
    session::Session,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<()> {
    let status = session.database().status().await?;
    let findings = findings::findings(&status);
    match args.json || output.format == OutputFormat::Json {
        true => output.json(&json::object(&status, &findings))?,
        false => output.data.write_all(text::report(&status, &findings).as_bytes())?,
    }
    Ok(())
}
