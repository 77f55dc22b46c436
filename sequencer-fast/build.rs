//! Compiles the programs for the kernel, with clang: nothing else of this crate needs it.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: [&str; 2] = ["grant", "tools"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    if env::var_os("CARGO_FEATURE_XDP").is_none() {
        return Ok(());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for name in SOURCES {
        let source = Path::new("bpf").join(format!("{name}.bpf.c"));
        compile(&source, &out.join(format!("{name}.bpf.o")))?;
    }
    Ok(())
}

fn compile(source: &Path, object: &Path) -> Result<(), Box<dyn Error>> {
    let clang = env::var("CLANG").unwrap_or("clang".to_owned());
    let machine = env::var("CARGO_CFG_TARGET_ARCH")?;
    let mut command = Command::new(&clang);
    command.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3"]);
    // Headers are read as words of several sizes.
    command.args(["-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror"]);
    // Where Debian keeps <asm/types.h>.
    command.arg(format!("-I/usr/include/{machine}-linux-gnu"));
    if machine == "x86_64" {
        command.arg("-DSTORES_IN_ORDER");
    }
    command.arg("-c").arg(source).arg("-o").arg(object);
    let status = command.status().map_err(|error| {
        format!("the feature xdp needs clang, or its path in CLANG: {error} clang={clang}")
    })?;
    if !status.success() {
        let source = source.display();
        return Err(format!("clang failed; the feature xdp needs libbpf's headers (Debian: libbpf-dev) source={source}").into());
    }
    Ok(())
}
