//! What a process and a disk have done, from `/proc`.
//!
//! What is written is counted by the disk, not by the process: `/proc/PID/io` counts whole pages of the cache, and those can be
//! much larger than what is written to them. So the other processes of the machine are in it, too.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Clock ticks a second in `/proc/PID/stat`: a constant of Linux' interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time, of user and system, in seconds.
    pub(crate) cpu_seconds: f64,
}

impl Usage {
    /// Of a process; `None` if it is not there, or on systems without `/proc`.
    pub(crate) fn of(pid: u32) -> Option<Usage> {
        Some(Usage { cpu_seconds: cpu_seconds(&read(pid, "stat")?)? })
    }

    /// What was used since an earlier moment.
    pub(crate) fn since(self, earlier: Usage) -> Usage {
        Usage { cpu_seconds: self.cpu_seconds - earlier.cpu_seconds }
    }
}

/// What a disk has done since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskUsage {
    /// Bytes that were written to it.
    pub(crate) written_bytes: u64,
    /// How often it was told to make durable what it holds: what a sync ends with.
    pub(crate) flushes: u64,
}

impl DiskUsage {
    /// Of the disk that a path lies on; `None` if it lies on none.
    pub(crate) fn of(path: &Path) -> Option<DiskUsage> {
        let device = fs::metadata(path).ok()?.dev();
        // As the C library takes the two numbers out of one.
        let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
        let minor = device & 0xff | (device >> 12) & !0xff;
        disk_usage(&fs::read_to_string("/proc/diskstats").ok()?, major, minor)
    }

    /// What was done since an earlier moment.
    pub(crate) fn since(self, earlier: DiskUsage) -> DiskUsage {
        DiskUsage {
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            flushes: self.flushes.saturating_sub(earlier.flushes),
        }
    }
}

/// Sectors of 512 bytes stand in column 10, flushes in column 19, counted from 1.
fn disk_usage(stats: &str, major: u64, minor: u64) -> Option<DiskUsage> {
    stats.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |place: usize| fields.get(place - 1)?.parse::<u64>().ok();
        let is_it = (number(1)?, number(2)?) == (major, minor);
        is_it.then_some(DiskUsage { written_bytes: number(10)? * 512, flushes: number(19)? })
    })
}

/// The memory that a process has at this moment, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    field(&read(pid, "status")?, "VmRSS:").map(|kilobytes| kilobytes * 1_024)
}

/// The kind of file system that a path lies on, for example `ext4`.
pub(crate) fn file_system(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    file_system_among(&fs::read_to_string("/proc/mounts").ok()?, &path)
}

fn read(pid: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

/// The fields 14 and 15, counted behind the name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn file_system_among(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let around = mounts.filter(|(place, _)| path.starts_with(place));
    around.max_by_key(|(place, _)| place.len()).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_odd_names() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 1 2 3 4 150 50 0 0 20 0 1 0 9 1 2";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (cut"), None);
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
    }

    #[test]
    fn the_disk_is_found_by_its_numbers() {
        let stats = " 254 0 vda 9 0 9 9 20 1 64 7 0 5 5 0 0 0 0 12 3\n 7 0 loop0 1 2\n";
        let expected = DiskUsage { written_bytes: 64 * 512, flushes: 12 };
        assert_eq!(disk_usage(stats, 254, 0), Some(expected));
        assert_eq!(disk_usage(stats, 254, 1), None);
        assert_eq!(disk_usage(stats, 7, 0), None, "too short");
    }

    #[test]
    fn the_innermost_mount_counts() {
        let mounts =
            "/dev/vda1 / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\ntmpfs /tmpfiles xfs rw 0 0\n";
        let kind = |path| file_system_among(mounts, Path::new(path));
        assert_eq!(kind("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tm").as_deref(), Some("ext4"));
    }

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        assert!(Usage::of(pid).is_some());
        assert!(resident_bytes(pid).is_some_and(|bytes| bytes > 100_000));
    }
}
