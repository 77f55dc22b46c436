//! The table of settings, for people.

use std::fmt::Write;

use super::Settings;
use super::keys::{KEYS, Key};

impl Settings {
    /// All settings as text, for the help of a program.
    #[must_use]
    pub fn describe() -> String {
        let mut text = String::from(
            "Settings (in stripelog.toml, or as STRIPELOG__SECTION__KEY in the environment, or with --set):\n",
        );
        for key in KEYS {
            let _ = writeln!(text, "  {}={} {}", key.name, shown(key), key.unit);
            let _ = writeln!(text, "      {}", key.meaning);
        }
        text
    }

    /// All settings as a page of the operator's manual.
    #[must_use]
    pub fn describe_markdown() -> String {
        let mut text = String::from(INTRODUCTION);
        let mut section = None;
        for key in KEYS {
            let of_key = key.name.split_once('.').map_or("", |(section, _)| section);
            if section != Some(of_key) {
                section = Some(of_key);
                let title = if of_key.is_empty() { "General" } else { of_key };
                let _ = write!(text, "\n## {title}\n\n{TABLE_HEAD}");
            }
            let unit = if key.unit.is_empty() { "-" } else { key.unit };
            let _ = writeln!(
                text,
                "| `{}` | {} | {unit} | {} | {} |",
                key.name,
                code(shown(key)),
                key.kind.allowed(),
                key.meaning
            );
        }
        text
    }
}

fn shown(key: &Key) -> &str {
    if key.default.is_empty() {
        "\"\""
    } else {
        key.default
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

const TABLE_HEAD: &str = "| key | default | unit | allowed | meaning |\n|---|---|---|---|---|\n";

const INTRODUCTION: &str = "\
# Settings

<!-- Written by the tests of the crate `runtime` from its table of settings: BLESS=1 cargo test -p runtime -->

All programs read one file, `stripelog.toml`: the one that `--config` or `STRIPELOG_CONFIG` names, or else
the one in the current directory if there is one. The environment overrides it
(`STRIPELOG__SECTION__KEY=value`, as in `STRIPELOG__WRITER__LINGER_MS=5`), and arguments override both:
`--store URL`, arguments that a program has of its own, and `--set section.key=value`, which is the
strongest. A key that is not listed here is an error, wherever it stands.

```toml
store = \"s3://my-bucket/my-log\"

[membership]
sequencer = \"10.0.0.1:7400\"
key_file = \"/etc/stripelog.key\"
writers = [
  { address = \"10.0.0.2:7500\", stripes = \"0-15\" },
  { address = \"10.0.0.3:7500\", stripes = \"16-31\" },
]

[sequencer]
listen = \"0.0.0.0:7400\"
admin = \"127.0.0.1:7401\"

[writer]
listen = \"0.0.0.0:7500\"
linger_ms = 50
```

In the environment and with `--set` the list of writers is one text:
`10.0.0.2:7500=0-15,10.0.0.3:7500=16-31`. `stripes` may be left out where there is one writer only.
";
