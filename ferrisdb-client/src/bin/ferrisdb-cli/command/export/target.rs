//! A file that appears whole or not at all.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use ferrisdb_core::runtime;

/// A file being written, under another name next to its own until it is complete.
pub(super) struct Target {
    path: PathBuf,
    writer: BufWriter<File>,
    /// What to remove if the target is dropped before it is complete.
    temporary: Option<PathBuf>,
}

impl Target {
    /// Begins a file. One that is there stays as it is until [`Target::complete`].
    pub(super) fn create(path: &Path) -> Result<Target> {
        // A pipe or a device is written in place: replacing it by a file is not what anybody means.
        let in_place = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let temporary = if in_place { None } else { Some(temporary_name(path)?) };
        let written = temporary.as_deref().unwrap_or(path);
        let file = match in_place {
            true => File::options().write(true).open(written),
            false => File::create_new(written),
        };
        let file = file.with_context(|| format!("cannot create {}", path.display()))?;
        let writer = BufWriter::with_capacity(1 << 20, file);
        Ok(Target { path: path.to_owned(), writer, temporary })
    }

    /// Where the contents go.
    pub(super) fn writer(&mut self) -> &mut dyn Write {
        &mut self.writer
    }

    /// Makes the file durable and gives it its name.
    pub(super) fn complete(mut self) -> Result<()> {
        let failed = format!("cannot write {}", self.path.display());
        self.writer.flush().with_context(|| failed.clone())?;
        let Some(temporary) = &self.temporary else { return Ok(()) };
        self.writer.get_ref().sync_all().with_context(|| failed.clone())?;
        fs::rename(temporary, &self.path).with_context(|| failed.clone())?;
        self.temporary = None;
        // The name is durable only when its directory is.
        let directory = File::open(directory_of(&self.path)).with_context(|| failed.clone())?;
        directory.sync_all().context(failed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // An error leaves a file with a telling name; the one that got us here matters more.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// `.dump.tsv.5f3a09c1.tmp` in the directory of `dump.tsv`, so that a rename suffices.
fn temporary_name(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let name = format!(".{}.{:08x}.tmp", name.display(), runtime::random_u64() as u32);
    Ok(directory_of(path).join(name))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_complete_file_replaces_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dump.tsv");
        fs::write(&path, "old").unwrap();
        let mut target = Target::create(&path).unwrap();
        target.writer().write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        target.complete().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(directory.path()), ["dump.tsv"]);
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dump.tsv");
        let mut target = Target::create(&path).unwrap();
        target.writer().write_all(b"half").unwrap();
        drop(target);
        assert!(names(directory.path()).is_empty());
        assert!(Target::create(&directory.path().join("no/such/dump.tsv")).is_err());
    }

    #[test]
    fn a_device_stays_a_device() {
        let mut target = Target::create(Path::new("/dev/null")).unwrap();
        target.writer().write_all(b"gone").unwrap();
        target.complete().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
