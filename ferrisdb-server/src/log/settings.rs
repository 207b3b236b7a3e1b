//! What an operator may tune in a log, with the defaults.

/// The settings of all logs of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Bytes at which a segment is full. A larger record gets a segment of its own. Default: 64 MiB.
    pub segment_bytes: u64,
    /// Zeros are written ahead up to the next multiple of this many bytes, together with a record, so that
    /// the appends after it change no metadata of the file. Default: 1 MiB. One means: never.
    pub extend_bytes: u64,
    /// Bytes that are kept free on the disk, so that a full log can still be locked and give up what it may; at most a
    /// sixteenth of the disk. Default: 64 MiB.
    pub reserve_bytes: u64,
    /// Bytes of recent messages that are kept in memory for readers, besides those not on disk yet.
    /// Default: 256 MiB.
    pub memory_bytes_max: usize,
    /// Most pushes that wait for a predecessor. Default: 4096.
    pub early_pushes_max: usize,
    /// Most bytes of pushes that wait for a predecessor. Default: 256 MiB.
    pub early_bytes_max: usize,
    /// Most bytes of pushes that wait for the disk. Default: 256 MiB.
    pub unsynced_bytes_max: usize,
    /// Most readers that wait for something new. Default: 4096.
    pub waiting_peeks_max: usize,
    /// About how many bytes of log lie between two entries of the sparse index. Default: 64 KiB.
    pub index_spacing_bytes: u64,
    /// Most entries of the sparse index; at the bound every second one goes. Default: 262,144.
    pub index_entries_max: usize,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        const MIB: usize = 1024 * 1024;
        LogSettings {
            segment_bytes: 64 * MIB as u64,
            extend_bytes: MIB as u64,
            reserve_bytes: 64 * MIB as u64,
            memory_bytes_max: 256 * MIB,
            early_pushes_max: 4096,
            early_bytes_max: 256 * MIB,
            unsynced_bytes_max: 256 * MIB,
            waiting_peeks_max: 4096,
            index_spacing_bytes: 64 * 1024,
            index_entries_max: 262_144,
        }
    }
}
