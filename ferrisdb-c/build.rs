//! How `libfdb_c.so` is linked: under the name that programs ask for, with nothing but `fdb_*` to be seen, and never unloaded
//! (its thread's state would go with it).

fn main() {
    println!("cargo::rerun-if-changed=exports.map");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libfdb_c.so");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--version-script={folder}/exports.map");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
