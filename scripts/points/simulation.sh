#!/usr/bin/env bash
# Runs so many seeds of the simulation, and then every mutation until a seed notices it. Prints one line of JSON.
# Usage: scripts/points/simulation.sh SEEDS
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

# Seeds among which a mutation has to be noticed.
MUTATION_SEEDS=2500

main() {
    local seeds=${1:?how many seeds? see the head of this file} simulate=$ROOT/target/release/simulate
    local clean noticed=() missed=() name status=0
    clean=$("$simulate" --seeds "$seeds") || status=$?
    while read -r name; do
        if "$simulate" --seeds "$MUTATION_SEEDS" --mutation "$name" >/dev/null; then
            noticed+=("$name")
        else
            missed+=("$name")
        fi
    done < <("$simulate" --mutation list)
    CLEAN=$clean STATUS=$status NOTICED="${noticed[*]}" MISSED="${missed[*]}" python3 -c '
import json, os, sys
line = json.loads(os.environ["CLEAN"])
missed, noticed = os.environ["MISSED"].split(), os.environ["NOTICED"].split()
line["mutations_noticed"] = {"value": len(noticed), "bar": len(noticed) + len(missed)}
line["mutations_missed"] = {"value": missed, "bar": []}
line["ok"] = line["ok"] and not missed and len(noticed) >= 10 and os.environ["STATUS"] == "0"
print(json.dumps(line))
sys.exit(not line["ok"])'
}

main "$@"
