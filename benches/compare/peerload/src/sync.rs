//! What the disk can do at best: blocks that exist are written again, each time with fdatasync.

use std::{
    fs::File,
    io::{Seek, Write},
    path::Path,
    time::Instant,
};

use anyhow::Result;

use crate::{
    Common,
    tally::{Clock, Tally, Usage},
    value,
};

const BLOCK: usize = 4_096;
const FILE_BYTES: usize = 64 << 20;

pub(crate) fn run(dir: &Path, common: &Common) -> Result<()> {
    let path = dir.join("sync");
    let mut file = File::create(&path)?;
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&value(1 << 20, 0))?;
    }
    file.rewind()?;
    file.sync_all()?;
    let block = value(BLOCK, 0);
    let clock = Clock::new(common);
    let mut tally = Tally::new(clock)?;
    let mut before = None;
    while clock.is_running() {
        if before.is_none() && clock.counts() {
            before = Some(Usage::now(None));
        }
        if file.stream_position()? + BLOCK as u64 > FILE_BYTES as u64 {
            file.rewind()?;
        }
        let began = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        tally.done(began);
    }
    let after = Usage::now(None);
    tally.report("limit", "fdatasync", common, (before.unwrap_or(after), after));
    std::fs::remove_file(path)?;
    Ok(())
}
