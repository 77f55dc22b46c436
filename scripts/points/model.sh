#!/usr/bin/env bash
# Has the model checker look at all states of a small stripe. Prints one line of JSON.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

main() {
    local output status=0
    output=$(output_of_tests model) || status=$?
    STATUS=$status python3 -c '
import json, os, re, sys
output = sys.stdin.read()
states = [int(n) for n in re.findall(r"^states=(\d+)$", output, re.M)]
noticed = re.findall(r"^(\w+): states=\d+ \[\"", output, re.M)
ok = os.environ["STATUS"] == "0" and bool(states) and len(noticed) >= 2
print(json.dumps({"point": "model", "states": states, "mutations_noticed": {"value": noticed, "bar": 2}, "ok": ok}))
sys.exit(not ok)' <<<"$output"
}

main "$@"
