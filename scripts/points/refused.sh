#!/usr/bin/env bash
# Shows that `stripelog create` refuses the store of the environment (STRIPELOG_TEST_STORE), one that does not
# keep the promise of a conditional create, and that it leaves no log behind.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

store=$STRIPELOG_TEST_STORE/refused
program=${CARGO_TARGET_DIR:-$ROOT/target}/release/stripelog
if [[ ! -x $program ]]; then
    build_programs
fi

# Prints what the command says on standard error, not on output; the settings of this directory do not count.
# shellcheck disable=SC2069
try() { cd / && env -u STRIPELOG_CONFIG "$program" --log-level error --store "$store" "$@" 2>&1 >/dev/null; }

report() {
    printf '{"point":"store-check","refused":%s,"log_left":%s,"lines":%d}\n' "$1" "$2" "$3"
}

if text=$(try create); then
    report false true 0
    die "a log was created on a store that does not honour conditions"
fi
say "$text"
lines=$(wc -l <<<"$text")
[[ $text == *refused* ]] || die "this is not the refusal of a store"
if try status >&2; then
    report true true "$lines"
    die "there is a log nevertheless"
fi
report true false "$lines"
((lines == 1)) || die "the error is not one line"
