#!/usr/bin/env python3
"""Takes guards out one by one and shows that a named test fails each time.

Works on a copy of the repository below target/mutations, with a target directory of its own. Prints one line of
JSON with what was caught; exits 0 only if every mutation was. Usage: scripts/mutations.py [RULE...]
"""

import json
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COPY = os.path.join(ROOT, "target", "mutations", "copy")
TARGET = os.path.join(ROOT, "target", "mutations", "target")
TIMEOUT_S = 600

# Rule, file, line of code (a part of it that stands there once), what it becomes, package and features, tests.
MUTATIONS = [
    ("S-1", "sequencer-fast/src/logic/reign.rs", "self.counter.0.close().map(Position)",
     "Some(Position(self.counter.0.tail()))", "sequencer-fast", "s1_"),
    ("S-2", "sequencer-fast/src/logic/held.rs", "held.end <= reservation", "held.end <= reservation || true",
     "sequencer-fast", "s2_"),
    ("S-3", "catalog/src/store/log.rs", "match self.is_last(entry.number).await {",
     "match Ok::<bool, CatalogError>(true) {", "catalog", "s3_"),
    ("S-4", "sequencer-fast/src/logic/chain.rs", "epoch: Epoch(last.epoch.0.saturating_add(1))",
     "epoch: last.epoch", "sequencer-fast", "s"),
    ("S-5", "sequencer-fast/src/logic/reign.rs", "== GRANTING && now_ns < self.deadline_ns()", "== GRANTING",
     "sequencer-fast", "s5_"),
    ("S-1", "sequencer-fast/src/logic/take.rs", "                        expected.correct_reply(entry);\n", "",
     "sequencer-fast", "s1_"),
    ("S-2", "sequencer-fast/src/logic/batch.rs", " || self.end() > reservation.0", "", "sequencer-fast", "s2_"),
    ("S-6", "sequencer-fast/src/logic/memory.rs", "Ordering::Equal if self.count > 0",
     "Ordering::Equal if false", "sequencer-fast", "s6_"),
    ("S-6", "sequencer-fast/src/logic/grant.rs", "                    self.orphan(facts, datagram);\n", "",
     "sequencer-fast", "s6_"),
    ("S-7", "sequencer-fast/src/logic/reign.rs", "floor.min(issued)", "floor", "sequencer-fast", "s7_"),
    ("S-8", "sequencer-fast/src/logic/answer.rs", "match self.reign.counter().take_at(expected, count) {",
     "match Ok::<(), u64>(drop(self.reign.counter().take(count))) {", "sequencer-fast", "s8_"),
    ("S-9", "wire/src/datagram/place.rs", "            && take(header, LOG_AT) == log.0\n", "",
     "sequencer-fast", "s9_"),
    ("S-9", "sequencer-fast/src/logic/grant.rs", "signer.is_some_and(|signer| !signer.verify(datagram))",
     "signer.is_none_or(|_| true) && false", "sequencer-fast", "s9_"),
    ("S-10", "sequencer-fast/src/logic/grant.rs", "            batch.holds += facts.count;\n", "",
     "sequencer-fast", "s10_"),
    ("S-10", "sequencer-fast/src/logic/answer.rs", "            batch.holds += facts.count;\n", "",
     "sequencer-fast", "s10_"),
    ("S-1", "sequencer-fast/src/logic/beside.rs", "if self.reign.counter().tail() >= CLOSED {", "if false {",
     "sequencer-fast", "s1_"),
    ("S-5", "sequencer-fast/src/logic/shard.rs",
     "        self.enter(packets);\n        let mut batch = Batch::begin(self, now_ns());",
     "        let now = now_ns();\n        self.enter(packets);\n        let mut batch = Batch::begin(self, now);",
     "sequencer-fast", "s5_"),
    ("S-2", "sequencer-fast/bpf/grant.bpf.c", "if (unlikely(next > limit))", "if (unlikely(next > limit + MAX_GRANT))",
     "sequencer-fast --features xdp", "_both_sides_"),
    ("S-5", "sequencer-fast/bpf/grant.bpf.c", "if (!in_time(counts, state))",
     "if (in_time(counts, state) > 1)", "sequencer-fast --features xdp", "s5_the_program"),
    ("S-6", "sequencer-fast/bpf/lanes.h", "entry->request > known->request", "entry->request >= known->request",
     "sequencer-fast --features xdp", "s6_the_program"),
    ("S-6", "sequencer-fast/src/logic/shard.rs", "        self.leave();\n", "        let _ = Self::leave;\n",
     "sequencer-fast --features xdp", "s6_the_program"),
    ("C-2", "catalog/src/store/chain.rs", "header.chain != self.id || header.start != start",
     "false", "catalog", "c2_"),
    ("C-3", "catalog/src/logic/walk.rs", "end = header.end;", "end = header.end.plus(1);", "catalog", "c3_"),
    ("C-4", "stripe-writer/src/logic/stripe/advance.rs", "while let Some(front) = self.flights.front_mut() {",
     "while let Some(front) = self.flights.iter_mut().find(|f| f.decided().is_some()) {", "stripe-writer", "c4_"),
    ("C-5", "catalog/src/logic/create.rs", "Seen::Nothing if attempt < CREATE_ATTEMPTS => Step::Again,",
     "Seen::Nothing => Step::Mine,", "catalog", "c5_"),
    ("C-6", "stripe-writer/src/logic/flight.rs", "other.owner > me.owner || shared && established",
     "shared && established", "stripe-writer", "c6_"),
    ("C-6", "stripe-writer/src/logic/stripe.rs", "let places = if self.established {",
     "let places = if true {", "stripe-writer", "c6_"),
    ("C-6", "stripe-writer/src/logic/stripe.rs", "self.outrun && !self.established", "false", "stripe-writer", "c6_"),
    ("C-6", "stripe-writer/src/logic/stripe/advance.rs", "self.author.owner.0 += u64::from(!self.established);",
     "", "stripe-writer", "c6_"),
    ("C-6", "stripe-writer/src/logic/members.rs", "number > own || shared(number) && before(peer)", "number > own",
     "stripe-writer", "c6_"),
    ("C-6", "stripe-writer/src/logic/members.rs", "number > own || shared(number) && before(peer)",
     "shared(number) && before(peer)", "stripe-writer", "c6_"),
    ("C-6", "stripe-writer/src/logic/members.rs", "            0 => self.timeout * (PATIENCE + 2),\n", "",
     "stripe-writer", "c6_"),
    ("C-6", "stripe-writer/src/logic/members.rs", "        self.held = Duration::ZERO;\n", "", "stripe-writer", "c6_"),
    ("C-6", "stripe-writer/src/logic/members.rs", "self.contact == Contact::Heard && self.silence < timeout",
     "self.contact == Contact::Heard", "stripe-writer", "c6_"),
    ("C-6", "stripe-writer/src/logic/members.rs", "now.saturating_sub(since).min(self.tick() * LONGEST_TICK)",
     "now.saturating_sub(since)", "stripe-writer", "c6_"),
    ("C-6", "stripe-writer/src/shared.rs", ".filter(|_| !*self.leaving.borrow())", "", "stripe-writer",
     "c6_a_process_at_its_end"),
    ("C-6", "stripe-writer/src/writer.rs", "self.tasks.shutdown().await;", "let _ = &mut self.tasks;", "stripe-writer",
     "c6_a_member_at_its_end"),
    ("C-6", "stripe-writer/src/net/connection.rs", "let _ = tokio::time::timeout(MOVING, settled).await;",
     "drop(settled);", "stripe-writer", "c6_an_append"),
    ("C-7", "stripe-writer/src/logic/stripe/advance.rs",
     "let late = now.saturating_sub(self.verified_at) > self.config.max_commit_age;", "let late = false;",
     "stripe-writer", "c7_"),
    ("C-8", "catalog/src/error.rs", "            *definite = false;\n", "            let _ = definite;\n", "catalog", "c8_"),
    ("C-9", "catalog/src/store/open.rs", ".with_fsync(true)", ".with_fsync(false)", "catalog", "c9_"),
    ("C-10", "catalog/src/store/mod.rs", "PutOptions::from(PutMode::Create)",
     "PutOptions::from(PutMode::Overwrite)", "catalog", "c10_"),
    ("H-1", "stripe-writer/src/logic/hole.rs", ">= self.timeout", ">= Duration::ZERO", "stripe-writer", "h1_"),
    ("H-2", "stripe-writer/src/logic/stripe.rs", "let decided = run.end().min(self.frontier);",
     "let decided = run.first;", "stripe-writer", "h2_"),
    ("H-3", "stripe-writer/src/logic/stripe.rs",
     "        if epoch < self.sealed {\n            to =", "        if false {\n            to =", "stripe-writer", "h3_"),
    ("H-4", "sequencer-fast/src/logic/sealed.rs", "if seal == self.seal {", "if true {", "sequencer-fast", "h4_"),
    ("H-4", "sequencer-fast/src/logic/sealed.rs", "self.open.is_empty()", "self.open.len() < 2", "sequencer-fast", "h4_"),
    ("H-4", "sequencer-fast/src/store/seal.rs", "while !sealing.is_complete() {", "while false {", "sequencer-fast", "h4_"),
    ("H-3", "stripe-writer/src/shared.rs", "if newest.number > entry.number {", "if false {", "stripe-writer", "h3_"),
    ("H-4", "stripe-writer/src/shared.rs", "if done.await.is_ok() {", "if done.await.is_ok() || true {", "stripe-writer",
     "h4_"),
    ("H-5", "sequencer-fast/src/logic/chain.rs", "let start = tail.max(last.epoch_start).max(least);",
     "let start = Position(tail.0.saturating_sub(1)).max(least);", "sequencer-fast", "h5_"),
    ("H-5", "sequencer-fast/src/logic/sealed.rs", "for segment in entry.open_segments() {",
     "for segment in entry.segments.last() {", "sequencer-fast", "h5_"),
    ("H-5", "sequencer-fast/src/logic/wish.rs", "if behind != self.segment {", "if false {", "sequencer-fast", "h5_"),
    ("H-5", "sequencer-fast/src/logic/wish.rs", "stripes <= self.stripes", "true", "sequencer-fast", "h5_"),
    ("H-5", "wire/src/control.rs", "end.map_or(self.epoch_start, |end| end.min(self.epoch_start))",
     "end.map_or(self.epoch_start, |_| self.epoch_start)", "wire", "h5_"),
    ("H-5", "stripe-writer/src/logic/stripe.rs", "self.fill_below.max(below.min(self.end))",
     "self.fill_below.max(below)", "stripe-writer", "h5_"),
    ("H-5", "stripe-writer/src/logic/stripe.rs", "        if to > self.end {", "        if false {", "stripe-writer", "h5_"),
    ("H-5", "stripe-writer/src/shared.rs", "for segment in entry.open_segments() {",
     "for segment in entry.segments.last() {", "stripe-writer", "h5_"),
    ("H-5", "stripe-writer/src/keeper.rs", "let open = entry.open_segments();",
     "let open = entry.segments.get(entry.segments.len() - 1..).unwrap_or(&[]);", "stripe-writer", "h5_"),
    ("R-1", "stripe-writer/src/logic/stripe/advance.rs", "self.actions.push(Action::Committed { header, runs });",
     "drop((header, runs));", "stripe-writer", "model_"),
    ("R-2", "client/src/scan.rs", "Ok(Ready::End) => {", "Ok(Ready::End) => { return Ok(None);", "stripelog", "r2_"),
    ("R-3", "client/src/scan.rs", "if self.position < entry.trim {", "if false {", "stripelog", "r3_"),
    ("R-4", "wire/src/run.rs", "if got != crc {", "if false {", "wire", "r4_"),
]


def run(command, **kwargs):
    return subprocess.run(command, check=True, **kwargs)


def prepare():
    """A copy of what git has, and a target directory that starts from what is built already."""
    shutil.rmtree(COPY, ignore_errors=True)
    os.makedirs(COPY)
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT).split(b"\0")
    for name in filter(None, files):
        source, place = os.path.join(ROOT, name.decode()), os.path.join(COPY, name.decode())
        os.makedirs(os.path.dirname(place), exist_ok=True)
        shutil.copy2(source, place)
    built = os.path.join(ROOT, "target", "debug")
    if not os.path.isdir(TARGET) and os.path.isdir(built):
        os.makedirs(TARGET)
        run(["cp", "-a", built, os.path.join(TARGET, "debug")])


def tests(package, names):
    """Whether the tests pass, and how many ran. A mutation that does not compile proves nothing."""
    command = ["cargo", "test", "--quiet", "--locked", "--package", *package.split(), "--no-fail-fast", "--", names]
    environment = {**os.environ, "CARGO_TARGET_DIR": TARGET}
    done = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    ran = sum(int(line.split()[3]) + int(line.split()[5]) for line in done.stdout.splitlines()
              if line.startswith("test result:"))
    if ran == 0:
        sys.exit(f"no test ran: package={package} tests={names}\n{done.stderr[-3000:]}")
    return done.returncode == 0


def main():
    known = {m[0] for m in MUTATIONS}
    if any(rule not in known for rule in sys.argv[1:]):
        print(f"usage: scripts/mutations.py [RULE...]; rules: {' '.join(sorted(known))}", file=sys.stderr)
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 2)
    chosen = [m for m in MUTATIONS if len(sys.argv) < 2 or m[0] in sys.argv[1:]]
    prepare()
    caught, missed = 0, []
    for rule, file, old, new, package, names in chosen:
        path = os.path.join(COPY, file)
        with open(path, encoding="utf-8") as code:
            text = code.read()
        if text.count(old) != 1:
            sys.exit(f"{rule}: stands {text.count(old)} times in {file}: {old}")
        try:
            with open(path, "w", encoding="utf-8") as code:
                code.write(text.replace(old, new))
            passed = tests(package, names)
        finally:
            with open(path, "w", encoding="utf-8") as code:
                code.write(text)
        print(f"{rule}: {file}: {'NOT CAUGHT' if passed else 'caught'}", file=sys.stderr)
        if passed:
            missed.append(f"{rule} {file}: {old}")
        else:
            caught += 1
    ok = not missed
    print(json.dumps({"point": "mutations", "mutations": len(chosen), "caught": caught,
                      "not_caught": {"value": missed, "bar": []}, "ok": ok}))
    sys.exit(not ok)


if __name__ == "__main__":
    main()
