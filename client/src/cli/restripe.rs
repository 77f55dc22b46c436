//! `stripelog restripe`.

use serde_json::json;
use stripelog::{ErrorKind, Layout, Log};

use super::RestripeArgs;
use super::failure::Failure;
use super::output::Output;

pub(crate) async fn run(log: &Log, args: &RestripeArgs, json: bool) -> Result<(), Failure> {
    let unit = match args.unit {
        Some(unit) => unit,
        None => log.layout().await?.unit(),
    };
    let layout = Layout::new(args.stripes, unit).map_err(Failure::usage)?;
    let limit = std::time::Duration::from_secs(args.timeout);
    let segment = log.restripe(layout, limit).await.map_err(|error| {
        if error.kind() == ErrorKind::Invalid {
            return Failure::usage(error);
        }
        Failure::from(error)
    })?;
    let (id, epoch, start, stripes) =
        (segment.id.0, segment.epoch.0, segment.start.0, args.stripes);
    let mut out = Output::stdout();
    if json {
        let told = json!({ "segment": id, "epoch": epoch, "start": start, "stripes": stripes, "unit": unit });
        out.json(&told)?;
    } else {
        out.line(format!(
            "segment={id} epoch={epoch} start={start} stripes={stripes} unit={unit}"
        ))?;
    }
    out.flush()
}
