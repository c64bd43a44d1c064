//! Compiles what other systems than Linux get.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=seamless_portable");
}
