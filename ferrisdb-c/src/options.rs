//! Options of the network: numbers with a value in bytes, as C sets them, and what they mean here. Those of databases and
//! transactions are in `ferrisdb-fdb`.

use std::{fs::OpenOptions, path::PathBuf, sync::Mutex};

use ferrisdb_fdb::options::{
    Given,
    Takes::{self, Bytes, Nothing, Number},
    given,
};

use crate::errors::{self, Code};

const NETWORK: &[(i32, &str, Takes)] = &[
    (10, "LOCAL_ADDRESS", Bytes),
    (20, "CLUSTER_FILE", Bytes),
    (30, "TRACE_ENABLE", Bytes),
    (31, "TRACE_ROLL_SIZE", Number),
    (32, "TRACE_MAX_LOGS_SIZE", Number),
    (33, "TRACE_LOG_GROUP", Bytes),
    (34, "TRACE_FORMAT", Bytes),
    (35, "TRACE_CLOCK_SOURCE", Bytes),
    (36, "TRACE_FILE_IDENTIFIER", Bytes),
    (37, "TRACE_SHARE_AMONG_CLIENT_THREADS", Nothing),
    (38, "TRACE_INITIALIZE_ON_SETUP", Nothing),
    (39, "TRACE_PARTIAL_FILE_SUFFIX", Bytes),
    (40, "KNOB", Bytes),
    (41, "TLS_PLUGIN", Bytes),
    (42, "TLS_CERT_BYTES", Bytes),
    (43, "TLS_CERT_PATH", Bytes),
    (45, "TLS_KEY_BYTES", Bytes),
    (46, "TLS_KEY_PATH", Bytes),
    (47, "TLS_VERIFY_PEERS", Bytes),
    (48, "BUGGIFY_ENABLE", Nothing),
    (49, "BUGGIFY_DISABLE", Nothing),
    (50, "BUGGIFY_SECTION_ACTIVATED_PROBABILITY", Number),
    (51, "BUGGIFY_SECTION_FIRED_PROBABILITY", Number),
    (52, "TLS_CA_BYTES", Bytes),
    (53, "TLS_CA_PATH", Bytes),
    (54, "TLS_PASSWORD", Bytes),
    (55, "TLS_DISABLE_PLAINTEXT_CONNECTION", Nothing),
    (60, "DISABLE_MULTI_VERSION_CLIENT_API", Nothing),
    (61, "CALLBACKS_ON_EXTERNAL_THREADS", Nothing),
    (62, "EXTERNAL_CLIENT_LIBRARY", Bytes),
    (63, "EXTERNAL_CLIENT_DIRECTORY", Bytes),
    (64, "DISABLE_LOCAL_CLIENT", Nothing),
    (65, "CLIENT_THREADS_PER_VERSION", Number),
    (66, "FUTURE_VERSION_CLIENT_LIBRARY", Bytes),
    (67, "RETAIN_CLIENT_LIBRARY_COPIES", Nothing),
    (68, "IGNORE_EXTERNAL_CLIENT_FAILURES", Nothing),
    (69, "FAIL_INCOMPATIBLE_CLIENT", Nothing),
    (70, "DISABLE_CLIENT_STATISTICS_LOGGING", Nothing),
    (71, "ENABLE_RUN_LOOP_PROFILING", Nothing),
    (72, "DISABLE_CLIENT_BYPASS", Nothing),
    (80, "CLIENT_BUGGIFY_ENABLE", Nothing),
    (81, "CLIENT_BUGGIFY_DISABLE", Nothing),
    (82, "CLIENT_BUGGIFY_SECTION_ACTIVATED_PROBABILITY", Number),
    (83, "CLIENT_BUGGIFY_SECTION_FIRED_PROBABILITY", Number),
    (84, "TRACE_IP", Bytes),
    (90, "DISTRIBUTED_CLIENT_TRACER", Bytes),
    (91, "CLIENT_TMP_DIR", Bytes),
    (1000, "SUPPORTED_CLIENT_VERSIONS", Bytes),
    (1001, "EXTERNAL_CLIENT", Nothing),
    (1002, "EXTERNAL_CLIENT_TRANSPORT_ID", Number),
];

/// The settings of the network.
#[derive(Debug, Default)]
pub struct NetworkSettings {
    is_environment_read: bool,
    trace_directory: Option<PathBuf>,
    is_trace_json: bool,
}

impl NetworkSettings {
    /// Nothing set.
    pub const fn new() -> NetworkSettings {
        NetworkSettings { is_environment_read: false, trace_directory: None, is_trace_json: false }
    }

    /// Sets an option.
    ///
    /// # Errors
    ///
    /// `invalid_option`, `invalid_option_value`, `unsupported_operation`.
    pub fn set(&mut self, option: i32, value: Option<&[u8]>) -> Result<(), Code> {
        let known = NETWORK.iter().find(|(number, ..)| *number == option);
        let &(_, name, takes) = known.ok_or(errors::INVALID_OPTION)?;
        match (name, given(takes, value)?) {
            ("TRACE_ENABLE", Given::Bytes(directory)) => {
                let directory = String::from_utf8_lossy(directory).into_owned();
                let here = directory.is_empty();
                self.trace_directory = Some(if here { ".".into() } else { directory.into() });
            }
            ("TRACE_FORMAT", Given::Bytes(format)) => {
                self.is_trace_json = match format {
                    b"json" => true,
                    b"xml" => false,
                    _ => return Err(errors::INVALID_OPTION_VALUE),
                };
            }
            // There is no encryption yet: who insists on it must not be let down silently.
            ("TLS_DISABLE_PLAINTEXT_CONNECTION", _) => return Err(errors::UNSUPPORTED_OPERATION),
            _ => {}
        }
        Ok(())
    }

    /// Sets the options that are in the environment as `FDB_NETWORK_OPTION_...`, the first time.
    ///
    /// # Errors
    ///
    /// `environment_variable_network_option_failed`.
    pub fn read_environment(&mut self) -> Result<(), Code> {
        if std::mem::replace(&mut self.is_environment_read, true) {
            return Ok(());
        }
        for &(option, name, takes) in NETWORK {
            let Some(values) = std::env::var_os(format!("FDB_NETWORK_OPTION_{name}")) else {
                continue;
            };
            // Several values of an option, such as knobs, have colons between them.
            for value in values.to_string_lossy().split(':') {
                let bytes = match (takes, value.parse::<i64>()) {
                    (Takes::Number, Ok(number)) => number.to_le_bytes().to_vec(),
                    (Takes::Number, Err(_)) => return Err(errors::ENVIRONMENT_OPTION_FAILED),
                    _ => value.as_bytes().to_vec(),
                };
                self.set(option, Some(&bytes)).map_err(|_| errors::ENVIRONMENT_OPTION_FAILED)?;
            }
        }
        Ok(())
    }
}

/// Begins to write what the library logs, if the program has asked for that: to a file in the directory that it has named. A
/// directory that cannot be written is not worth a failure.
pub fn start_trace(settings: &NetworkSettings) {
    let Some(directory) = &settings.trace_directory else { return };
    let ending = if settings.is_trace_json { "json" } else { "log" };
    let path = directory.join(format!("ferrisdb-client.{}.{ending}", std::process::id()));
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let Ok(file) = file.inspect_err(|error| eprintln!("libfdb_c: {}: {error}", path.display()))
    else {
        return;
    };
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(Mutex::new(file));
    // A program in Rust may have a subscriber of its own, which hears everything then.
    let _ = match settings.is_trace_json {
        true => subscriber.json().try_init(),
        false => subscriber.try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_not_promised() {
        let mut settings = NetworkSettings::new();
        assert_eq!(settings.set(43, Some(b"cert.pem")), Ok(()));
        assert_eq!(settings.set(55, None), Err(errors::UNSUPPORTED_OPERATION));
        assert_eq!(settings.set(34, Some(b"yaml")), Err(errors::INVALID_OPTION_VALUE));
        assert_eq!(settings.set(9_999, None), Err(errors::INVALID_OPTION));
    }
}
