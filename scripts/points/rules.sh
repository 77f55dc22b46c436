#!/usr/bin/env bash
# Runs the tests that are named after the rules of docs/protocol.md, unless scripts/test.sh has just done so and gives
# what they printed in STRIPELOG_TEST_LOG. Prints one line of JSON: for each rule how many tests passed. Fails if a rule
# that is built has none, or one of them fails.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

# Every rule of the documentation but those in italics, which are not built yet.
rules() {
    sed -n 's/^| \([SCHR]-[0-9]*\) |.*/\1/p' "$ROOT/docs/protocol.md" | tr -d - | tr '[:upper:]' '[:lower:]'
}

main() {
    local names=() output status=0
    mapfile -t names < <(rules)
    ((${#names[@]} >= 29)) || die "docs/protocol.md has only ${#names[@]} rules"
    if [[ -n ${STRIPELOG_TEST_LOG:-} ]]; then
        output=$(<"$STRIPELOG_TEST_LOG")
    else
        output=$(cd -- "$ROOT" && cargo test --release --workspace --locked "${FEATURES[@]}" --no-fail-fast -- "${names[@]/%/_}" 2>&1) || status=$?
    fi
    RULES="${names[*]}" STATUS=$status python3 -c '
import json, os, re, sys
output = sys.stdin.read()
results = re.findall(r"^test (\S+) \.\.\. (ok|FAILED)$", output, re.M)
# A test that ends its whole program has no outcome, and one whose line another has written into has none here.
begun = len(re.findall(r"^ +(?:Running|Doc-tests) ", output, re.M))
ended = [int(count) for count in re.findall(r"^test result: .* (\d+) failed;", output, re.M)]
complete = 0 < begun == len(ended) and sum(ended) == sum(how == "FAILED" for _, how in results)
rules = os.environ["RULES"].split()
# By name: some suites run a second time, on another store.
of = lambda rule, how: {name for name, r in results if r == how and re.search(rf"(^|::){rule}_", name)}
tests = {rule: len(of(rule, "ok")) for rule in rules}
without = [rule for rule, count in tests.items() if count == 0]
failed = sorted({name for rule in rules for name in of(rule, "FAILED")})
ok = not without and not failed and complete and os.environ["STATUS"] == "0"
print(json.dumps({"point": "rules", "tests": tests, "rules": len(rules),
                  "without_tests": {"value": without, "bar": []}, "failed": {"value": failed, "bar": []},
                  "complete": {"value": complete, "bar": True}, "ok": ok}))
sys.exit(not ok)' <<<"$output"
}

main "$@"
