//! The `stripelog` command: create a log, append to it, read it, follow it, look after it.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return runtime::exit::with("stripelog", Err(error)),
    };
    let code = runtime.block_on(cli::run(cli));
    // A read of standard input that nobody ends must not keep the process.
    runtime.shutdown_background();
    code
}
