//! `stripelog verify`.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use stripelog::{Finding, Log, StripeReport, Verify, VerifyReport};

use super::failure::Failure;
use super::output::Output;

pub(crate) async fn run(log: &Log, fast: bool, json: bool) -> Result<(), Failure> {
    let how = if fast { Verify::Headers } else { Verify::All };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    let report = log
        .verify(how, |report| {
            let (stripes, records) = (report.stripes.len(), report.total(|s| s.records));
            bar.set_message(format!("stripes={stripes} records={records}"));
            bar.tick();
        })
        .await;
    bar.finish_and_clear();
    let report = report?;
    let mut out = Output::stdout();
    if report.durable.is_none() {
        tracing::warn!(
            "the sequencer tells no durable tail: objects that are missing at the end of a chain may go unnoticed"
        );
    }
    if json {
        out.json(&as_json(&report, fast))?;
    } else {
        as_text(&report, fast, &mut out)?;
    }
    out.flush()?;
    if report.is_clean() {
        Ok(())
    } else {
        Err(Failure::Found)
    }
}

type Figure = (&'static str, fn(&StripeReport) -> u64);

const FIGURES: [Figure; 7] = [
    ("objects", |s| s.objects),
    ("positions", |s| s.positions),
    ("records", |s| s.records),
    ("junk", |s| s.junk),
    ("bytes", |s| s.bytes),
    ("orphans", |s| s.orphans),
    ("afloat", |s| s.afloat),
];

fn as_text(report: &VerifyReport, fast: bool, out: &mut Output) -> Result<(), Failure> {
    for (what, findings) in [("missing", &report.missing), ("corrupt", &report.corrupt)] {
        for finding in findings {
            let Finding {
                segment,
                stripe,
                from,
                ..
            } = finding;
            let to = finding.to.map_or("?".to_owned(), |to| to.to_string());
            let object = finding.object.as_deref().unwrap_or("-");
            out.line(format!(
                "{what}: segment={segment} stripe={stripe} from={from} to={to} object={object}: {}",
                finding.what
            ))?;
        }
    }
    let counted = |name| !(fast && matches!(name, "records" | "junk"));
    let figures = FIGURES.iter().filter(|(name, _)| counted(*name));
    let figures: Vec<_> = figures
        .map(|(name, figure)| format!("{name}={}", report.total(figure)))
        .collect();
    let verdict = match (report.is_clean(), fast) {
        (true, false) => "clean: nothing is missing, nothing is corrupt",
        (true, true) => "clean by names and headers: records were not checked",
        (false, _) => "NOT CLEAN",
    };
    if report.durable.is_none() {
        out.line(
            "note: the sequencer tells no durable tail: objects missing at the end of a chain may go unnoticed",
        )?;
    }
    let durable = report
        .durable
        .map_or("unknown".to_owned(), |d| d.to_string());
    out.line(format!(
        "{verdict}: durable={durable} stripes={} {} missing={} corrupt={}",
        report.stripes.len(),
        figures.join(" "),
        report.missing.len(),
        report.corrupt.len()
    ))
}

fn as_json(report: &VerifyReport, fast: bool) -> Value {
    let stripe = |s: &StripeReport| {
        let mut value = json!({ "segment": s.segment.0, "stripe": s.stripe.0, "end": s.end.0 });
        for (name, figure) in FIGURES {
            value[name] = figure(s).into();
        }
        value
    };
    let finding = |f: &Finding| {
        json!({
            "segment": f.segment.0, "stripe": f.stripe.0, "from": f.from.0,
            "to": f.to.map(|to| to.0), "object": f.object, "what": f.what,
        })
    };
    let mut value = json!({
        "clean": report.is_clean(),
        "headers_only": fast,
        "durable": report.durable.map(|durable| durable.0),
        "missing": report.missing.iter().map(finding).collect::<Vec<_>>(),
        "corrupt": report.corrupt.iter().map(finding).collect::<Vec<_>>(),
        "stripes": report.stripes.iter().map(stripe).collect::<Vec<_>>(),
    });
    for (name, figure) in FIGURES {
        value[name] = report.total(figure).into();
    }
    value
}
