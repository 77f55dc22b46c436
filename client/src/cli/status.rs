//! `stripelog tail` and `stripelog status`.

use serde_json::{Value, json};
use stripelog::{Log, Status, Tail};

use super::TailKind;
use super::failure::Failure;
use super::output::Output;

pub(crate) async fn tail(log: &Log, kind: TailKind, json: bool) -> Result<(), Failure> {
    let (tail, name) = match kind {
        TailKind::Issued => (Tail::Issued, "issued"),
        TailKind::Durable => (Tail::Durable, "durable"),
        TailKind::Linearizable => (Tail::Linearizable, "linearizable"),
    };
    let position = log.tail(tail).await?.0;
    let mut out = Output::stdout();
    if json {
        out.json(&json!({ "tail": name, "position": position }))?;
    } else {
        out.line(position.to_string())?;
    }
    out.flush()
}

pub(crate) async fn status(log: &Log, json: bool) -> Result<(), Failure> {
    let status = log.status().await?;
    let mut out = Output::stdout();
    if json {
        out.json(&as_json(log, &status))?;
    } else {
        as_text(log, &status, &mut out)?;
    }
    out.flush()?;
    if status.problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::Found)
    }
}

fn as_text(log: &Log, status: &Status, out: &mut Output) -> Result<(), Failure> {
    let control = &status.control;
    out.line(format!(
        "log={} control_entry={} epoch={} epoch_start={} reservation={} clean={} trim={}",
        log.id(),
        control.number,
        control.epoch,
        control.epoch_start,
        control.reservation,
        control.clean,
        control.trim
    ))?;
    for segment in &control.segments {
        let layout = segment.layout;
        out.line(format!(
            "segment={} start={} stripes={} unit={}",
            segment.id,
            segment.start,
            layout.stripes(),
            layout.unit()
        ))?;
    }
    if let Some(tails) = status.tails {
        let durable = tails
            .durable
            .map_or("unknown".to_owned(), |d| d.to_string());
        let (issued, epoch) = (tails.issued, tails.epoch);
        out.line(format!(
            "sequencer: epoch={epoch} issued={issued} durable={durable}"
        ))?;
    }
    for s in &status.stripes {
        out.line(format!(
            "stripe={} segment={} frontier={} owner={} held_bytes={} writer={}",
            s.stripe, s.segment, s.frontier, s.owner, s.held_bytes, s.address
        ))?;
    }
    for problem in &status.problems {
        out.line(format!("problem: {problem}"))?;
    }
    Ok(())
}

fn as_json(log: &Log, status: &Status) -> Value {
    let control = &status.control;
    let segments = control.segments.iter().map(|s| {
        json!({
            "segment": s.id.0, "epoch": s.epoch.0, "start": s.start.0,
            "stripes": s.layout.stripes(), "unit": s.layout.unit(),
        })
    });
    let stripes = status.stripes.iter().map(|s| {
        json!({
            "segment": s.segment.0, "stripe": s.stripe.0, "frontier": s.frontier.0,
            "owner": s.owner.0, "held_bytes": s.held_bytes, "writer": s.address.to_string(),
        })
    });
    json!({
        "log": log.id().to_string(),
        "control_entry": control.number,
        "epoch": control.epoch.0,
        "epoch_start": control.epoch_start.0,
        "reservation": control.reservation.0,
        "clean": control.clean,
        "trim": control.trim.0,
        "segments": segments.collect::<Vec<_>>(),
        "sequencer": status.tails.map(|tails| json!({
            "epoch": tails.epoch.0,
            "issued": tails.issued.0,
            "durable": tails.durable.map(|durable| durable.0),
        })),
        "stripes": stripes.collect::<Vec<_>>(),
        "problems": status.problems,
    })
}
