//! Arguments, and which command they run.

mod append;
mod create;
mod failure;
mod key;
mod lines;
mod output;
mod read;
mod restripe;
mod status;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use runtime::settings::{COMMON, CommonArgs, Settings};
use stripelog::{Layout, Log, Options};

use failure::Failure;

/// A shared log on object storage: one totally ordered sequence of records, written by many.
///
/// Exit codes: 0 done, 1 failed (of verify: something is missing or corrupt), 2 wrong usage or settings.
#[derive(Debug, Parser)]
#[command(name = "stripelog", version, after_long_help = Settings::describe())]
pub(crate) struct Cli {
    #[command(flatten)]
    common: CommonArgs,
    /// UDP address of the sequencer, or several with commas between, of which one reigns
    #[arg(long, global = true, help_heading = COMMON, value_name = "ADDRESS")]
    sequencer: Option<String>,
    /// TCP address of a stripe-writer, with its stripes unless there is only one; may be repeated
    #[arg(long, global = true, help_heading = COMMON, value_name = "ADDRESS[=FIRST-LAST]")]
    writer: Vec<String>,
    /// Write one JSON object a line instead of text
    ///
    /// A record is {"position": P, "text": "..."} if it is valid UTF-8 and {"position": P, "base64":
    /// "..."} if not.
    #[arg(long, global = true, help_heading = COMMON)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a log in the store, after a check that the store can carry one
    Create(CreateArgs),
    /// Append the lines of a file or of standard input, one record a line
    ///
    /// The newline is not part of the record; a last line without one is a record too. Lines may hold
    /// any bytes. Records keep the order of lines, unless a server fails or the layout changes meanwhile:
    /// then some may be appended again behind others.
    Append(AppendArgs),
    /// Write records, each with a newline behind it
    Read(ReadArgs),
    /// Write records as they become durable, until SIGINT
    Follow(FollowArgs),
    /// Tell a tail of the log
    Tail(TailArgs),
    /// Tell the state of the log and of its servers
    ///
    /// A server that does not answer is a line "problem: ...", and the exit code is 1 then. A stripe's
    /// frontier is its first position that is not in the store; frontiers of different stripes
    /// are not comparable, the durable tail is the least of them that has been granted.
    Status,
    /// Check every object of the log: was anything lost?
    ///
    /// While the sequencer answers, chains have to reach its durable tail. Without it, objects that are
    /// missing at the very end of a chain are noticed only as far as stripe-writers or snapshots of the chain
    /// tell of them, and the output says so.
    Verify(VerifyArgs),
    /// Go on with another layout: other stripes, or another unit
    ///
    /// What is in the log keeps its layout for ever; positions that are granted from now on are spread as it is said here.
    /// Appends wait for a moment and go on by themselves, readers notice nothing. Every stripe needs a stripe-writer in the
    /// membership, here and in the settings of the sequencer and the stripe-writers. If the command fails because of its
    /// time limit, "status" tells whether the new segment has come after all.
    Restripe(RestripeArgs),
    /// Draw a key for datagrams to and from the sequencer, and write it to a new file
    ///
    /// Every process of a log gets the same file, as setting membership.key_file or --key-file. Processes that
    /// have it ignore datagrams of those that do not.
    Key(KeyArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Stripes that positions are spread over (setting log.stripes)
    #[arg(long, value_name = "K")]
    stripes: Option<String>,
    /// Positions that stay on one stripe before the next takes over (setting log.unit)
    #[arg(long, value_name = "U")]
    unit: Option<String>,
}

#[derive(Debug, Args)]
struct AppendArgs {
    /// File to append; standard input if it is missing or -
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Shown {
    /// Write each record's position and a tab before it
    #[arg(long)]
    positions: bool,
    /// Show holes that were filled, as lines "junk first=P count=N"
    #[arg(long)]
    junk: bool,
}

#[derive(Debug, Args)]
struct Cached {
    /// Directory in which what is read from the store is kept for the next time, for one process at a time
    /// (setting client.cache_dir)
    #[arg(long, value_name = "DIR")]
    cache: Option<String>,
    /// Most MiB that are kept there (setting client.cache_mib)
    #[arg(long, value_name = "MIB")]
    cache_size: Option<String>,
}

#[derive(Debug, Args)]
struct ReadArgs {
    /// First position [default: the trim point]
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// First position that is not read [default: the tail, with all that is acknowledged before it; if the
    /// sequencer does not answer, the end of what is in the store]
    #[arg(long, value_name = "POSITION")]
    to: Option<u64>,
    /// Stop after so many records
    #[arg(long, value_name = "RECORDS")]
    count: Option<u64>,
    /// File to write; standard output if it is missing
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    cached: Cached,
}

#[derive(Debug, Args)]
struct FollowArgs {
    /// First position, or "tail" for the next one to be granted [default: the trim point]
    #[arg(long, value_name = "POSITION", value_parser = read::parse_start)]
    from: Option<read::Start>,
    /// Stop after so many records
    #[arg(long, value_name = "RECORDS")]
    count: Option<u64>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    cached: Cached,
}

#[derive(Debug, Args)]
struct TailArgs {
    /// Which tail
    #[arg(value_enum, default_value = "linearizable")]
    kind: TailKind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TailKind {
    /// First position that is not granted
    Issued,
    /// First position that is not known to be durable
    Durable,
    /// Waits until all that is issued now is durable
    Linearizable,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// Read only names and headers: fast, but records are neither checked nor counted
    #[arg(long)]
    fast: bool,
}

#[derive(Debug, Args)]
struct RestripeArgs {
    /// Stripes that positions are spread over, 1 to 1024
    #[arg(long, value_name = "K")]
    stripes: u32,
    /// Positions that stay on one stripe before the next takes over, 1 to 1048576 [default: as it is]
    #[arg(long, value_name = "U")]
    unit: Option<u32>,
    /// Longest time that the command waits, in seconds, at least 1
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

#[derive(Debug, Args)]
struct KeyArgs {
    /// File to create, which only its owner can read; without it the key goes to standard output
    file: Option<PathBuf>,
}

/// Runs the command and tells how it ended.
pub(crate) async fn run(cli: Cli) -> ExitCode {
    let json = cli.json;
    match dispatch(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(json),
    }
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    runtime::logging::init(&cli.common.log_level).map_err(Failure::usage)?;
    let json = cli.json;
    if let Command::Key(args) = &cli.command {
        return key::run(args.file.as_deref(), json);
    }
    let settings = settings(&cli)?;
    if let Command::Create(_) = cli.command {
        return create::run(&settings, json).await;
    }
    let mut options = Options::from_settings(&settings).map_err(Failure::usage)?;
    if let Command::Append(_) = cli.command {
        // It keeps the order of lines, whatever the settings are for others.
        options = options.grant_lanes(1);
    }
    if !matches!(cli.command, Command::Read(_) | Command::Follow(_)) {
        options = options.no_cache();
    }
    let log = Log::open(options).await?;
    let done = match cli.command {
        Command::Create(_) | Command::Key(_) => Ok(()),
        Command::Append(args) => append::run(&log, args.file, json).await,
        Command::Read(args) => read::read(&log, args, json).await,
        Command::Follow(args) => read::follow(&log, args, json).await,
        Command::Tail(args) => status::tail(&log, args.kind, json).await,
        Command::Status => status::status(&log, json).await,
        Command::Verify(args) => verify::run(&log, args.fast, json).await,
        Command::Restripe(args) => restripe::run(&log, &args, json).await,
    };
    log.close_cache().await;
    done
}

fn settings(cli: &Cli) -> Result<Settings, Failure> {
    let mut flags = Vec::new();
    let mut flag = |key: &str, value: &Option<String>| {
        flags.extend(value.iter().map(|value| (key.to_owned(), value.clone())));
    };
    flag("membership.sequencer", &cli.sequencer);
    let writers = (!cli.writer.is_empty()).then(|| cli.writer.join(","));
    flag("membership.writers", &writers);
    if let Command::Create(args) = &cli.command {
        flag("log.stripes", &args.stripes);
        flag("log.unit", &args.unit);
    }
    let cached = match &cli.command {
        Command::Read(args) => Some(&args.cached),
        Command::Follow(args) => Some(&args.cached),
        _ => None,
    };
    if let Some(cached) = cached {
        flag("client.cache_dir", &cached.cache);
        flag("client.cache_mib", &cached.cache_size);
    }
    let settings = Settings::load(&cli.common, flags).map_err(Failure::usage)?;
    if let Command::Read(args) = &cli.command
        && let (Some(from), Some(to)) = (args.from, args.to)
        && to < from
    {
        let text = format!("--to lies before --from: from={from} to={to}");
        return Err(Failure::Usage(text));
    }
    if let Command::Restripe(args) = &cli.command {
        Layout::new(args.stripes, args.unit.unwrap_or(1)).map_err(Failure::usage)?;
    }
    if cached.is_some_and(|cached| cached.cache.as_deref() == Some("")) {
        let text = "--cache needs a directory";
        return Err(Failure::Usage(text.to_owned()));
    }
    let sized = cached.is_some_and(|cached| cached.cache_size.is_some());
    if sized && settings.client.cache_dir.is_none() {
        let text = "--cache-size needs a cache: --cache DIR, or the setting client.cache_dir";
        return Err(Failure::Usage(text.to_owned()));
    }
    Ok(settings)
}
