//! Cuts between hosts of a network, as rules of nftables for its switch.
//!
//! Packets are dropped on their way through the switch and not where they are sent: a drop in the sender's own tables is
//! an error of its system call, which no broken network gives.

use std::net::Ipv4Addr;

use serde::Serialize;

/// Name of the table that has all rules.
const TABLE: &str = "stripelog_cut";

/// Which packets of the one that is cut off are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// All.
    Both,
    /// Those that it sends.
    Out,
    /// Those that are sent to it.
    In,
}

/// All of them.
pub(crate) const WAYS: [Way; 3] = [Way::Both, Way::Out, Way::In];

impl Way {
    /// Its name in reports.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// What `nft -f` reads to cut one host off from others.
#[must_use]
pub(crate) fn cut(one: Ipv4Addr, others: &[Ipv4Addr], way: Way) -> String {
    let others: Vec<_> = others.iter().map(Ipv4Addr::to_string).collect();
    let others = format!("{{ {} }}", others.join(", "));
    let out = format!("    ip saddr {one} ip daddr {others} drop\n");
    let back = format!("    ip saddr {others} ip daddr {one} drop\n");
    let rules = match way {
        Way::Both => out + &back,
        Way::Out => out,
        Way::In => back,
    };
    format!(
        "table bridge {TABLE} {{\n  chain forward {{\n    type filter hook forward priority 0; policy accept;\n{rules}  }}\n}}\n"
    )
}

/// What `nft -f` reads to heal all cuts; right also where there is none.
#[must_use]
pub(crate) fn heal() -> String {
    format!("add table bridge {TABLE}\ndelete table bridge {TABLE}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
    const OTHERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 98, 0, 2), Ipv4Addr::new(10, 98, 0, 3)];

    fn rules(way: Way) -> Vec<String> {
        let text = cut(ONE, &OTHERS, way);
        let rules = text.lines().filter(|line| line.ends_with("drop"));
        rules.map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn one_way_drops_what_goes_that_way_alone() {
        let out = "ip saddr 10.98.0.1 ip daddr { 10.98.0.2, 10.98.0.3 } drop";
        let back = "ip saddr { 10.98.0.2, 10.98.0.3 } ip daddr 10.98.0.1 drop";
        assert_eq!(rules(Way::Out), [out]);
        assert_eq!(rules(Way::In), [back]);
        assert_eq!(rules(Way::Both), [out, back]);
    }

    #[test]
    fn a_cut_is_a_whole_table_that_healing_deletes() {
        for way in WAYS {
            let text = cut(ONE, &OTHERS, way);
            let count = |sign| text.matches(sign).count();
            assert_eq!(count('{'), count('}'), "{text}");
            assert!(text.starts_with("table bridge stripelog_cut {"), "{text}");
            assert!(
                text.contains("hook forward priority 0; policy accept;\n"),
                "{text}"
            );
        }
        assert!(heal().ends_with("delete table bridge stripelog_cut\n"));
    }
}
