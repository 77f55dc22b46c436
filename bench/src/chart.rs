//! Latencies as a file of text and as a drawing.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use crate::logic::tally::us;

/// Steps of the distribution between two halvings of what is left.
const STEPS: u32 = 5;

/// The drawing, in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// Percentiles that have a line: how many nines, and what is written.
const MARKS: [(f64, &str); 6] = [
    (0.0, "0"),
    (1.0, "90%"),
    (2.0, "99%"),
    (3.0, "99.9%"),
    (4.0, "99.99%"),
    (5.0, "99.999%"),
];

/// The distribution as HdrHistogram's tools write and plot it, in microseconds.
#[must_use]
pub(crate) fn hgrm(latency: &Histogram<u64>) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    for step in latency.iter_quantiles(STEPS) {
        let quantile = step.quantile();
        let (value, count) = (
            us(step.value_iterated_to()),
            latency.count_between(0, step.value_iterated_to()),
        );
        let _ = match quantile < 1.0 {
            true => writeln!(
                text,
                "{value:12.3} {quantile:2.12} {count:10} {:14.2}",
                1.0 / (1.0 - quantile)
            ),
            false => writeln!(text, "{value:12.3} {quantile:2.12} {count:10}"),
        };
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]",
        latency.mean() / 1000.0,
        latency.stdev() / 1000.0,
        us(latency.max()),
        latency.len()
    );
    text
}

/// A curve of the latencies over percentiles, both axes logarithmic.
#[must_use]
pub(crate) fn svg(latency: &Histogram<u64>, title: &str) -> String {
    let (low, high) = (us(latency.min().max(1)), us(latency.max().max(2)));
    let (low, high) = (low.max(0.01).log10().floor(), high.max(0.1).log10().ceil());
    let nines = (latency.len().max(10) as f64).log10().min(5.0);
    let x = |n: f64| LEFT + n / nines * (WIDTH - LEFT - RIGHT);
    let y = |us: f64| {
        let share = (us.max(0.01).log10() - low) / (high - low).max(1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    for (at, mark) in MARKS.iter().filter(|(at, _)| *at <= nines) {
        let (x, bottom) = (x(*at), HEIGHT - BOTTOM);
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{mark}</text>",
            bottom + 18.0
        );
    }
    let mut decade = low;
    while decade <= high {
        let (value, y) = (10_f64.powf(decade), y(10_f64.powf(decade)));
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value} µs</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0
        );
        decade += 1.0;
    }
    let mut path = String::new();
    for step in latency.iter_quantiles(STEPS) {
        let left = 1.0 - step.quantile();
        let at = if left > 0.0 { -left.log10() } else { nines };
        let command = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(
            path,
            "{command}{:.1} {:.1}",
            x(at.min(nines)),
            y(us(step.value_iterated_to()))
        );
    }
    let _ = writeln!(
        out,
        "<path d=\"{path}\" fill=\"none\" stroke=\"#0a58ca\" stroke-width=\"2\"/>\n</svg>"
    );
    out
}

/// Seconds since 1970.
#[must_use]
pub(crate) fn unix_time() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "a date for people")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies() -> Histogram<u64> {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid");
        (1..=10_000).for_each(|n| latency.saturating_record(n * 1_000));
        latency
    }

    #[test]
    fn distributions_end_with_the_slowest() {
        let text = hgrm(&latencies());
        let last = text
            .lines()
            .rfind(|line| !line.starts_with('#'))
            .expect("lines");
        assert!(
            last.contains("1.000000000000") && last.contains("10000"),
            "{last}"
        );
    }

    #[test]
    fn drawings_are_whole() {
        for latency in [
            latencies(),
            Histogram::new_with_bounds(1, 1000, 3).expect("valid"),
        ] {
            let text = svg(&latency, "a < b & c");
            assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
            assert!(
                text.contains("a &lt; b &amp; c") && !text.contains("NaN"),
                "{text}"
            );
        }
    }
}
