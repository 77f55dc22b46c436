//! Facts of the machine that belong beside every figure, and the CPU time of a process.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Host {
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Model of the CPU.
    pub(crate) cpu: String,
    /// Cores that this program may use.
    pub(crate) cores: usize,
    /// Load of the last minute when the run began: other work makes figures worse.
    pub(crate) load: f64,
}

impl Host {
    /// Looks at the machine.
    #[must_use]
    pub(crate) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(':'));
        let load = read("/proc/loadavg");
        let load = load.split(' ').next().and_then(|load| load.parse().ok());
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            load: load.unwrap_or(0.0),
        }
    }
}

/// Time that the threads of a process have spent on a core, in nanoseconds: all of them, or if there are
/// any with such names, those that serve datagrams.
///
/// # Errors
/// If the process is gone.
pub(crate) fn cpu_ns(process: u32) -> Result<u64> {
    let tasks = format!("/proc/{process}/task");
    let (mut all, mut serving) = (0, None);
    for task in fs::read_dir(&tasks).with_context(|| format!("process {process} is gone"))? {
        let task = task?.path();
        // A thread may end meanwhile.
        let Some(spent) = spent_ns(&task) else {
            continue;
        };
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        all += spent;
        if SERVING.iter().any(|prefix| name.starts_with(prefix)) {
            *serving.get_or_insert(0) += spent;
        }
    }
    Ok(serving.unwrap_or(all))
}

/// Memory of a process: what it takes now, and the most that it ever took, in bytes.
///
/// # Errors
/// If the process is gone.
pub(crate) fn memory(process: u32) -> Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{process}/status"));
    let text = text.with_context(|| format!("process {process} is gone"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    };
    let both = field("VmRSS:").zip(field("VmHWM:"));
    both.context("no memory in /proc")
}

/// The same of a process and of all that it has started and that still run.
///
/// # Errors
/// If the process is gone.
pub(crate) fn tree_cpu_ns(process: u32) -> Result<u64> {
    let mut all = cpu_ns(process)?;
    let children = format!("/proc/{process}/task/{process}/children");
    for child in fs::read_to_string(children)
        .unwrap_or_default()
        .split_whitespace()
    {
        if let Ok(child) = child.parse() {
            // It may have ended meanwhile.
            all += tree_cpu_ns(child).unwrap_or(0);
        }
    }
    Ok(all)
}

/// How threads that serve datagrams are called: shards, echoes, and the kernel's own that polls for them.
const SERVING: [&str; 3] = ["shard-", "echo", "iou-sqp-"];

fn spent_ns(task: &Path) -> Option<u64> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}
