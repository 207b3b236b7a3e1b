//! How `libfdb_c.so` is linked: under the name that programs ask for, with nothing but `fdb_*` to be seen, and never unloaded
//! (its thread's state would go with it).

use std::path::Path;

/// What is to be seen.
const EXPORTS: &str = include_str!("exports.map");

fn main() {
    println!("cargo::rerun-if-changed=exports.map");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    // A copy in cargo's output: what this prints is remembered there, and another checkout that shares the output must be able
    // to link with it.
    let folder = std::env::var("OUT_DIR").expect("cargo sets it");
    let exports = Path::new(&folder).join("exports.map");
    std::fs::write(&exports, EXPORTS).expect("the folder is there to be written to");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libfdb_c.so");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--version-script={}", exports.display());
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
