//! What a process has used, from `/proc`: CPU time, memory, bytes it has sent to the disk.

use std::{fs, path::Path};

/// Clock ticks a second in `/proc/PID/stat`: a constant of Linux' interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time, of user and system, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Bytes that were sent to the disk, where the system says so: to whoever may look at the process.
    pub(crate) disk_bytes: Option<u64>,
}

impl Usage {
    /// Of a process; `None` if it is not there, or on systems without `/proc`.
    pub(crate) fn of(pid: u32) -> Option<Usage> {
        let stat = read(pid, "stat")?;
        let disk_bytes = read(pid, "io").and_then(|io| field(&io, "write_bytes:"));
        Some(Usage { cpu_seconds: cpu_seconds(&stat)?, disk_bytes })
    }

    /// What was used since an earlier moment.
    pub(crate) fn since(self, earlier: Usage) -> Usage {
        let disk_bytes = self.disk_bytes.zip(earlier.disk_bytes);
        Usage {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            disk_bytes: disk_bytes.map(|(now, before)| now.saturating_sub(before)),
        }
    }
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
        assert_eq!(field("rchar: 1\nwrite_bytes: 4096\n", "write_bytes:"), Some(4_096));
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
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
