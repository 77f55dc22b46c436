//! `simulate`: runs seeds, and says which of them break a rule.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use simulation::{Mutation, Report, World};

/// Runs the logic of all processes of a log in one, under seeded faults and virtual time.
///
/// Prints one line of JSON with what happened, and exits with 0 only if no seed broke a rule; with --mutation
/// only if one did. The same seed is the same run, byte for byte.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,

    /// First seed.
    #[arg(long, default_value_t = 1)]
    from: u64,

    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,

    /// Say what happens, on stderr; for one seed.
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Take a guard out: its name, or "list" for all names. Stops at the first seed that notices.
    #[arg(long)]
    mutation: Option<String>,
}

#[derive(Debug, Default)]
struct Sum {
    seeds: u64,
    events: u64,
    acknowledged: u64,
    tokens: u64,
    reigns: u64,
    processes: u64,
    broken: Vec<(u64, String)>,
    trace: u64,
}

impl Sum {
    fn add(&mut self, seed: u64, report: Report) {
        self.seeds += 1;
        self.events += report.events;
        self.acknowledged += report.acknowledged;
        self.tokens += report.tokens;
        self.reigns += report.reigns;
        self.processes += report.processes;
        self.trace = self.trace.rotate_left(1) ^ report.trace;
        self.broken
            .extend(report.broken.map(|broken| (seed, broken)));
    }
}

/// Seeds that are told of those that broke something.
const TOLD: usize = 10;

#[allow(clippy::print_stdout, reason = "the result of the command")]
fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let mutation = match options.mutation.as_deref() {
        Some("list") => {
            for (name, _) in Mutation::ALL {
                println!("{name}");
            }
            return Ok(ExitCode::SUCCESS);
        }
        Some(name) => match Mutation::named(name) {
            Some(mutation) => Some(mutation),
            None => anyhow::bail!("no mutation is called '{name}', see --mutation list"),
        },
        None => None,
    };
    let (from, seeds) = options
        .seed
        .map_or((options.from, options.seeds), |seed| (seed, 1));
    #[allow(clippy::disallowed_methods, reason = "how long it took")]
    let begun = Instant::now();
    let mut sum = Sum::default();
    for seed in from..from.saturating_add(seeds) {
        let report = World::new(seed, mutation, options.trace)?.live();
        sum.add(seed, report);
        if mutation.is_some() && !sum.broken.is_empty() {
            break;
        }
    }
    let ok = sum.broken.is_empty() != mutation.is_some();
    let told: Vec<_> = sum.broken.iter().take(TOLD).collect();
    let line = serde_json::json!({
        "point": "simulation",
        "from": from,
        "seeds": sum.seeds,
        "mutation": options.mutation,
        "seconds": (begun.elapsed().as_secs_f64() * 100.0).round() / 100.0,
        "events": sum.events,
        "acknowledged": sum.acknowledged,
        "tokens": sum.tokens,
        "reigns": sum.reigns,
        "processes": sum.processes,
        "trace": format!("{:016x}", sum.trace),
        "broken": { "value": sum.broken.len(), "bar": u64::from(mutation.is_some()) },
        "first": told,
        "ok": ok,
    });
    println!("{line}");
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
