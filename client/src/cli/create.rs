//! `stripelog create`.

use catalog::{Log, Store};
use runtime::settings::Settings;
use serde_json::json;
use wire::Layout;

use super::failure::Failure;
use super::output::Output;

pub(crate) async fn run(settings: &Settings, json: bool) -> Result<(), Failure> {
    let (stripes, unit) = (settings.log.stripes, settings.log.unit);
    let layout = Layout::new(stripes, unit).map_err(Failure::usage)?;
    let store = Store::open(&settings.store).map_err(stripelog::Error::from)?;
    let log = Log::create(store, layout)
        .await
        .map_err(stripelog::Error::from)?;
    let (id, url) = (log.id().to_string(), log.store().url().to_owned());
    let mut out = Output::stdout();
    if json {
        out.json(&json!({ "log": id, "store": url, "stripes": stripes, "unit": unit }))?;
    } else {
        let text = format!("created log={id} store={url} stripes={stripes} unit={unit}");
        out.line(text)?;
    }
    out.flush()
}
