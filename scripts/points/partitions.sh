#!/usr/bin/env bash
# Runs the point `partitions` of bench, with its arguments; installs etcd and builds the programs with it before.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

command -v nft >/dev/null || die "nft is needed (Debian: nftables)"
build_with_etcd
exec "${CARGO_TARGET_DIR:-$ROOT/target}/release/bench" partitions "$@"
