//! How this process and its machine are, as the operating system says.
//!
//! ```text
//!   /proc/self/stat, status     time on a core, memory
//!   tokio's own counters        time that threads for tasks were not idle
//!   /proc/stat, meminfo         cores, their time, memory of the machine
//!   /proc/net/dev, snmp         bytes over all interfaces but the loopback, repeated segments
//! ```
//!
//! For metrics and status only: nothing may be decided by it. What a system does not tell is zero, and in a simulation all of
//! it is, because the real machine must not show there.

use std::time::Duration;

/// Numbers of one moment. Those that count go up from the start of the process, or of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Time on a core, of all threads.
    pub cpu: Duration,
    /// Memory that is in use and not on disk.
    pub memory_bytes: u64,
    /// Time that the runtime's threads for tasks were busy, all of them together.
    pub busy: Duration,
    /// How many such threads there are.
    pub threads: u64,
    /// The machine.
    pub machine: MachineVitals,
}

/// The part of the [`Vitals`] that all processes of a machine share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineVitals {
    /// How many cores it has.
    pub cores: u64,
    /// Time that its cores were busy, all of them together.
    pub cpu: Duration,
    /// All memory.
    pub memory_bytes: u64,
    /// Memory that could be had without swapping.
    pub memory_available_bytes: u64,
    /// Bytes that were sent to other machines.
    pub sent_bytes: u64,
    /// Bytes that came from other machines.
    pub received_bytes: u64,
    /// TCP segments that were sent again.
    pub retransmitted: u64,
}

impl Vitals {
    /// What has come since an earlier moment; what does not count stays as it is.
    #[must_use]
    pub fn since(&self, earlier: &Vitals) -> Vitals {
        let (machine, then) = (&self.machine, &earlier.machine);
        Vitals {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            busy: self.busy.saturating_sub(earlier.busy),
            machine: MachineVitals {
                cpu: machine.cpu.saturating_sub(then.cpu),
                sent_bytes: machine.sent_bytes.saturating_sub(then.sent_bytes),
                received_bytes: machine.received_bytes.saturating_sub(then.received_bytes),
                retransmitted: machine.retransmitted.saturating_sub(then.retransmitted),
                ..*machine
            },
            ..*self
        }
    }
}

/// Asks the operating system. Takes a fraction of a millisecond.
#[cfg(madsim)]
pub fn vitals() -> Vitals {
    Vitals::default()
}

/// Asks the operating system. Takes a fraction of a millisecond.
#[cfg(not(madsim))]
pub fn vitals() -> Vitals {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (busy, threads) = busy_threads();
    let (sent_bytes, received_bytes) = parse::network(&read("/proc/net/dev"));
    let (cores, cpu) = parse::cores(&read("/proc/stat"));
    let memory = read("/proc/meminfo");
    Vitals {
        cpu: parse::cpu(&read("/proc/self/stat")),
        memory_bytes: parse::kilobytes(&read("/proc/self/status"), "VmRSS:"),
        busy,
        threads,
        machine: MachineVitals {
            cores,
            cpu,
            memory_bytes: parse::kilobytes(&memory, "MemTotal:"),
            memory_available_bytes: parse::kilobytes(&memory, "MemAvailable:"),
            sent_bytes,
            received_bytes,
            retransmitted: parse::retransmitted(&read("/proc/net/snmp")),
        },
    }
}

/// How long the threads of the runtime that this is called in were busy.
#[cfg(not(madsim))]
fn busy_threads() -> (Duration, u64) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return (Duration::ZERO, 0);
    };
    let metrics = runtime.metrics();
    let threads = metrics.num_workers();
    #[cfg(target_has_atomic = "64")]
    let busy = (0..threads).map(|thread| metrics.worker_total_busy_duration(thread)).sum();
    #[cfg(not(target_has_atomic = "64"))]
    let busy = Duration::ZERO;
    (busy, threads as u64)
}

/// The texts that Linux offers.
#[cfg(any(not(madsim), test))]
mod parse {
    use std::time::Duration;

    /// A hundredth of a second: the unit of time of these files, whatever the kernel's own is.
    const TICK_MS: u64 = 10;

    fn ticks(count: u64) -> Duration {
        Duration::from_millis(count.saturating_mul(TICK_MS))
    }

    fn number(word: Option<&str>) -> u64 {
        word.and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    /// Time in the process and in the kernel for it. The name before these fields may have blanks in it.
    pub(super) fn cpu(stat: &str) -> Duration {
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let times = after_name.split_whitespace().skip(11).take(2);
        ticks(times.map(|word| number(Some(word))).sum())
    }

    /// A line of "name: so many kB".
    pub(super) fn kilobytes(text: &str, name: &str) -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        number(line.and_then(|line| line.split_whitespace().next())).saturating_mul(1024)
    }

    /// How many cores there are, and how long they were neither idle nor waiting for a disk.
    pub(super) fn cores(stat: &str) -> (u64, Duration) {
        let is_core = |line: &&str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let cores = stat.lines().filter(is_core).count() as u64;
        let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guests are in user already.
        let times = all.split_whitespace().take(8).enumerate();
        let busy = times.filter(|(field, _)| ![3, 4].contains(field));
        (cores, ticks(busy.map(|(_, word)| number(Some(word))).sum()))
    }

    /// Bytes sent and received by all interfaces but the loopback.
    pub(super) fn network(dev: &str) -> (u64, u64) {
        let interfaces = dev.lines().filter_map(|line| line.split_once(':'));
        let others = interfaces.filter(|(name, _)| name.trim() != "lo");
        others.fold((0, 0), |(sent, received), (_, numbers)| {
            let mut numbers = numbers.split_whitespace();
            let (in_bytes, out_bytes) = (number(numbers.next()), number(numbers.nth(7)));
            (sent + out_bytes, received + in_bytes)
        })
    }

    /// The field of the line of names that says how many segments were sent again.
    pub(super) fn retransmitted(snmp: &str) -> u64 {
        let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return 0 };
        let place = names.split_whitespace().position(|name| name == "RetransSegs");
        number(place.and_then(|place| numbers.split_whitespace().nth(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_understood() {
        let stat = "77 (my (odd) name) S 1 77 77 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 9 0 5 1 2";
        assert_eq!(parse::cpu(stat), Duration::from_secs(3));
        let memory = "MemTotal:       16000 kB\nMemFree: 1 kB\nMemAvailable:    9000 kB\n";
        assert_eq!(parse::kilobytes(memory, "MemAvailable:"), 9_000 * 1024);
        let cores = "cpu  100 1 50 900 30 0 9 40 7 0\ncpu0 1 1 1\ncpu1 1 1 1\nintr 5\n";
        assert_eq!(parse::cores(cores), (2, Duration::from_secs(2)));
        let network = "Inter-|   Receive\n face |bytes packets\n    lo: 9 9 9 9 9 9 9 9 9 9\n  \
                       eth0: 700 1 0 0 0 0 0 0 300 2 0\n";
        assert_eq!(parse::network(network), (300, 700));
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: OutSegs RetransSegs InErrs\nTcp: 90 7 0\n";
        assert_eq!(parse::retransmitted(snmp), 7);
        // Another system has none of these files.
        assert_eq!((parse::cpu(""), parse::cores(""), parse::network("")), Default::default());
    }

    #[test]
    fn counts_are_since_then_and_amounts_are_of_now() {
        let machine = MachineVitals { sent_bytes: 10, cores: 2, ..MachineVitals::default() };
        let then = Vitals { busy: Duration::from_secs(1), machine, ..Vitals::default() };
        let now = Vitals {
            busy: Duration::from_secs(3),
            memory_bytes: 7,
            machine: MachineVitals { sent_bytes: 15, ..machine },
            ..Vitals::default()
        };
        let since = now.since(&then);
        assert_eq!((since.busy, since.memory_bytes), (Duration::from_secs(2), 7));
        assert_eq!((since.machine.sent_bytes, since.machine.cores), (5, 2));
    }
}
