//! Tells the program when it was built: no certificate that it meets can be judged by an earlier time. And leaves out of
//! what is shipped the tables that only unwinding needs.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    println!("cargo::rustc-env=HB_BUILT_AT={}", given.unwrap_or_else(now));

    println!("cargo::rerun-if-changed=packaging/no-unwind.ld");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    // Every profile that inherits from `release` aborts.
    if var("PROFILE") == "release" && var("CARGO_CFG_TARGET_OS") == "linux" {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}/packaging/no-unwind.ld", var("CARGO_MANIFEST_DIR"));
    }
}
