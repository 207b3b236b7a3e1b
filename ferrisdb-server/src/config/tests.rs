use std::{ffi::OsString, io::Write as _};

use ferrisdb_core::{ErrorCode, key::escape};
use proptest::prelude::*;

use super::*;

fn load_all<R: Role>(arguments: &[&str]) -> Result<Load<R>, SettingsError> {
    let program = std::iter::once(R::BINARY);
    load(program.chain(arguments.iter().copied()).map(OsString::from))
}

fn run<R: Role>(arguments: &[&str]) -> Loaded<R> {
    match load_all(arguments).unwrap() {
        Load::Run(loaded) => *loaded,
        Load::Print(text) => panic!("printed {text}"),
    }
}

fn printed<R: Role + std::fmt::Debug>(arguments: &[&str]) -> String {
    match load_all::<R>(arguments).unwrap() {
        Load::Print(text) => text,
        Load::Run(loaded) => panic!("ran {loaded:?}"),
    }
}

fn refused<R: Role + std::fmt::Debug>(arguments: &[&str]) -> String {
    load_all::<R>(arguments).unwrap_err().to_string()
}

/// A settings file, and the flag that names it.
fn file(contents: &str) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(contents.as_bytes()).unwrap();
    let flag = format!("--config={}", file.path().display());
    (file, flag)
}

#[test]
fn nothing_set_is_the_defaults() {
    let Loaded { role, runtime } = run::<ControllerConfig>(&[]);
    assert_eq!(role, ControllerConfig::default());
    assert_eq!(role.process.listen, Address::new("127.0.0.1:4500"));
    assert_eq!(role.process.advertise, None);
    assert_eq!((role.cluster.logs(), role.cluster.storage_servers()), (1, 1));
    assert!(role.controllers.is_empty());
    assert_eq!(role.cluster.failure_timeout, Duration::from_secs(1));
    assert!(role.cluster.shard_boundaries.is_empty());
    assert_eq!((runtime.worker_threads, runtime.log.as_str()), (1, "info"));
    assert_eq!(CoordinatorConfig::default().process.listen, Address::new("127.0.0.1:4510"));
    assert_eq!(LogConfig::default().process.listen, Address::new("127.0.0.1:4520"));
    assert_eq!(LogConfig::default().controllers.addresses, [Address::new("127.0.0.1:4500")]);
    assert_eq!(LogConfig::default().tuning.segment_bytes, 64 * MIB);
    assert_eq!(StorageConfig::default().process.listen, Address::new("127.0.0.1:4530"));
    assert_eq!(ServerConfig::default().data, PathBuf::from("./ferrisdb-data/server"));
    assert_eq!(run::<ServerConfig>(&[]).role.process.stay_awake_us, 200);
    assert_eq!(run::<ControllerConfig>(&[]).role.process.stay_awake_us, 0);
}

#[test]
fn a_file_wins_over_defaults_and_a_flag_over_the_file() {
    let (_file, config) = file(concat!(
        "logs = 3\n",
        "redundancy = 'double'\n",
        "failure_timeout_ms = 2_500\n",
        "shard_boundaries = ['g', 'n\\xff', 'x\\x2cy']\n",
        "log_format = 'json'\n",
    ));
    let loaded = run::<ControllerConfig>(&[&config, "--logs=5"]);
    assert_eq!(loaded.role.cluster.logs(), 5);
    assert_eq!(loaded.role.cluster.storage_servers(), 2);
    assert_eq!(loaded.role.cluster.failure_timeout, Duration::from_millis(2500));
    let boundaries = [Key::from("g"), Key::from(b"n\xff"), Key::from("x,y")];
    assert_eq!(loaded.role.cluster.shard_boundaries, boundaries);
    assert_eq!(loaded.runtime.log_format, LogFormat::Json);
    let loaded = run::<ControllerConfig>(&[&config, "--shard-boundaries=a,b"]);
    assert_eq!(loaded.role.cluster.shard_boundaries, [Key::from("a"), Key::from("b")]);
}

#[test]
fn lists_are_lists_or_text_with_commas() {
    let expected = [Address::new("a:1"), Address::new("b:2")];
    for line in ["controllers = ['a:1', 'b:2']", "controllers = 'a:1,b:2'"] {
        let (_file, config) = file(line);
        assert_eq!(run::<LogConfig>(&[&config]).role.controllers.addresses, expected);
    }
    let (_file, config) = file("shard_boundaries = []");
    assert!(run::<ControllerConfig>(&[&config]).role.cluster.shard_boundaries.is_empty());
}

#[test]
fn errors_of_a_file_name_the_file_the_key_and_what_is_legal() {
    for (contents, expected) in [
        ("lgos = 1", r#"has a key "lgos" that ferrisdb-controller does not know"#),
        ("config = 'x'", r#"has a key "config" that"#),
        ("[logs]\ncount = 1", r#"bad value for "logs": a value is expected, not a table"#),
        (
            "logs = 0",
            r#"bad value for "logs": invalid value '0' for '--logs <COUNT>': 0 is not in 1..=64"#,
        ),
        ("logs = [1, 2]", "a single value is expected, not a list"),
        ("logs = 1.5", "invalid value '1.5'"),
        ("log_format = 'xml'", "[possible values: text, json]"),
        ("listen = 4500", "HOST:PORT is expected"),
        ("shard_boundaries = ['a,b']", r"has a comma: write it as \x2c"),
        ("shard_boundaries = ['\\q']", "malformed escape at byte 0"),
        ("failure_timeout_ms = 5", "from 100 to 600000"),
        ("logs = 1\nlogs = 2", "is not TOML"),
        ("logs =", "is not TOML"),
    ] {
        let (file, config) = file(contents);
        let error = refused::<ControllerConfig>(&[&config]);
        assert!(error.contains(expected), "{contents}: {error}");
        assert!(error.contains(&*file.path().to_string_lossy()), "{contents}: {error}");
    }
    let error = refused::<LogConfig>(&["--config=/no/such/file"]);
    assert!(error.contains("cannot read the settings file /no/such/file"), "{error}");
    let (_file, config) = file("controllers = []");
    let error = refused::<LogConfig>(&[&config]);
    assert!(error.contains("at least one is expected"), "{error}");
}

#[test]
fn errors_of_flags_say_what_is_legal() {
    for (arguments, expected) in [
        (&["--logs", "65"][..], "65 is not in 1..=64"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--listen", "localhost"], "HOST:PORT is expected"),
        (&["--listen", "localhost:70000"], "the port is a number from 0 to 65535"),
        (&["--advertise", "localhost:0"], "the port is a number from 1 to 65535"),
        (&["--listen", "::1:4500"], "[::1]:4500"),
        (&["--listen", "0.0.0.0:4500"], "set advertise"),
        (&["--log", "ferrisdb=loud"], "a filter is expected"),
        (&["--logs=2", "--redundancy=triple"], "logs = 2 must be at least 3, the number of copies"),
        (&["--storage-servers=1", "--redundancy=double"], "storage_servers = 1 must be at least 2"),
        (&["--redundancy=quadruple"], "none of single, double and triple"),
        (&["--storage-replace-after-s=0"], "a number of seconds from 1 to"),
        (&["--zone="], "a name of 1 to 255 bytes"),
        (&["--shard-boundaries=b,a"], "must ascend, but b comes before a"),
        (&["--shard-boundaries=a,a"], "must ascend"),
        (&["--shard-boundaries=a,,b"], "at least one byte"),
        (&[r"--shard-boundaries=\xff\xff"], "below"),
    ] {
        let error = refused::<ControllerConfig>(arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    let error = refused::<LogConfig>(&["--segment-bytes=1KiB"]);
    assert!(error.contains("a size from 64KiB to 16GiB is expected"), "{error}");
    let error = load_all::<LogConfig>(&["--segment-bytes=x"]).unwrap_err().into_error();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    run::<ControllerConfig>(&["--listen=0.0.0.0:4500", "--advertise=db.example:4500"]);
    run::<ControllerConfig>(&["--listen=[::1]:0"]);
    let error = refused::<ServerConfig>(&["--redundancy=double"]);
    assert!(error.contains("start the binaries of the roles instead"), "{error}");
    let process = run::<LogConfig>(&["--listen=[::1]:0"]).role.process;
    assert_eq!(process.zone(&Address::new("[::1]:4500")), "[::1]");
    let process = run::<LogConfig>(&["--zone=rack 7"]).role.process;
    assert_eq!(process.zone(&Address::new("a:1")), "rack 7");
}

/// What is printed sets the same when it is read, and says where each setting came from.
#[test]
fn printed_settings_are_a_file_that_sets_the_same() {
    let arguments = [
        "--print-config",
        "--listen=[::]:4500",
        "--advertise=db:4500",
        r"--shard-boundaries=\\,a b,\xff",
        "--logs=3",
        r#"--data=/tmp/"quoted\path""#,
    ];
    let text = printed::<ControllerConfig>(&arguments);
    assert!(text.contains("\nlogs = 3  # from a flag\n"), "{text}");
    assert!(text.contains("\nproxies = 1  # by default\n"), "{text}");
    assert!(text.contains("\n# storage_servers is not set\n"), "{text}");
    let (_file, config) = file(&text);
    let from_file = run::<ControllerConfig>(&[&config]).role;
    assert_eq!(from_file, run::<ControllerConfig>(&arguments[1..]).role);
    assert!(
        printed::<ControllerConfig>(&[&config, "--print-config"])
            .contains("logs = 3  # from the file")
    );
    assert!(printed::<LogConfig>(&["--version"]).starts_with("ferrisdb-log "));
}

#[test]
fn the_help_of_every_binary_teaches_every_setting() {
    fn check<R: Role>() {
        let mut command = command::<R>();
        command.build();
        let help = command.clone().render_long_help().to_string();
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let flag = format!("--{}", arg.get_long().unwrap());
            assert!(help.contains(&flag), "{}: {flag} is not in the help", R::BINARY);
            assert!(arg.get_help().is_some(), "{}: {flag} has no text", R::BINARY);
            if ["help", "version", "print_config", "force_new_quorum"].contains(&id) {
                continue;
            }
            assert_eq!(flag, format!("--{}", id.replace('_', "-")), "flag and key differ");
            let variable = format!("FERRISDB_{}", id.to_uppercase());
            assert_eq!(arg.get_env().unwrap(), variable.as_str(), "variable and key differ");
        }
        assert!(help.contains(R::EXAMPLE), "{}: no example", R::BINARY);
        for word in R::EXAMPLE.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("{word} ")), "{word} of the example is no flag");
        }
        command.debug_assert();
    }
    check::<ControllerConfig>();
    check::<CoordinatorConfig>();
    check::<LogConfig>();
    check::<StorageConfig>();
    check::<ServerConfig>();
}

#[test]
fn sizes_are_numbers_with_units() {
    for (text, bytes) in [
        ("0", 0),
        ("1048576", MIB),
        ("1_048_576", MIB),
        ("64MiB", 64 * MIB),
        (" 64 mib ", 64 * MIB),
        ("5B", 5),
        ("3KiB", 3072),
        ("2GiB", 2 * GIB),
        ("1TiB", TIB),
        ("10MB", 10_000_000),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
    }
    for text in
        ["", "MiB", "-1", "1.5GiB", "64M", "64 MiBs", "1 2", "18446744073709551616", "16777216TiB"]
    {
        assert!(parse_bytes(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_boundaries_survive_the_way_through_a_file(
        keys in prop::collection::btree_set(prop::collection::vec(0u8..0xff, 1..8), 0..5),
    ) {
        let keys: Vec<Key> = keys.into_iter().map(Key::from).collect();
        let list: Vec<String> =
            keys.iter().map(|key| format!("'{}'", escape(key).replace(',', r"\x2c").replace('\'', r"\x27"))).collect();
        let (_file, config) = file(&format!("shard_boundaries = [{}]", list.join(", ")));
        let loaded = run::<ControllerConfig>(&[&config]);
        prop_assert_eq!(loaded.role.cluster.shard_boundaries, keys);
    }
}

#[test]
fn help_begins_with_what_the_binary_is() {
    fn begins<R: Role>() {
        let help = command::<R>().render_long_help().to_string();
        assert!(help.starts_with(&R::ABOUT[..20]), "{}: {help:.200}", R::BINARY);
    }
    begins::<ControllerConfig>();
    begins::<CoordinatorConfig>();
    begins::<LogConfig>();
    begins::<StorageConfig>();
    begins::<ServerConfig>();
}
