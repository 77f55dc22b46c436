#!/usr/bin/env bash
# Runs the point `etcd` of bench, with its arguments; installs what it needs and builds the programs with it before.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

build_with_etcd
exec "${CARGO_TARGET_DIR:-$ROOT/target}/release/bench" etcd "$@"
