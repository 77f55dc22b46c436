#!/usr/bin/env bash
# Shows a log whose datagrams are authenticated: a real file comes back with the key, and a client that has no
# key, or another one, gets no position, is told why, and is counted. Arguments go to scripts/run.sh.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

dir=$(mktemp -d "${TMPDIR:-/tmp}/stripelog.XXXXXX")

clean_up() {
    local status=$?
    trap - EXIT
    "$ROOT/scripts/run.sh" --stop "$dir" || true
    rm -rf -- "$dir"
    exit "$status"
}

# Ends without a record in the log and says why: WHY ARGUMENT...
refused() {
    local why=$1 text
    shift
    if text=$(echo 'a record' | client "$@" --set client.append_timeout_ms=1000 append 2>&1 >/dev/null); then
        die "a client got a position: $*"
    fi
    say "$text"
    [[ $text == *"certainly not in the log"* && $text == *"$why"* ]] || die "this does not say why"
    ((refusals += 1))
}

client() { "$bin/stripelog" --config "$dir/stripelog.toml" --log-level warn "$@"; }

# The programs of the running log are those that run.sh has built or was told.
programs() {
    local pid
    pid=$(<"$dir/sequencer-fast.pid")
    dirname -- "$(readlink -f -- "/proc/$pid/exe")"
}

dropped() {
    local url
    url=$(sed -n 's/^admin = "\(.*\)"$/\1/p' "$dir/stripelog.toml" | head -n 1)
    exec {http}<>"/dev/tcp/${url%:*}/${url#*:}"
    printf 'GET /metrics HTTP/1.1\r\nhost: sequencer\r\nconnection: close\r\n\r\n' >&"$http"
    sed -n 's/^sequencer_dropped_total{.*reason="mac".*} \([0-9]*\).*/\1/p' <&"$http"
    exec {http}>&-
}

trap clean_up EXIT
refusals=0
"$ROOT/scripts/run.sh" --key --keep --dir "$dir" "$@" >"$dir/run.json"
bin=$(programs)
before=$(dropped)
refused "no answer; if it has a key file" --key-file ''
"$bin/stripelog" key "$dir/other.key" >&2
refused "no answer, to requests that are signed with our key" --key-file "$dir/other.key"
after=$(dropped)
client status >&2 || die "a server does not answer to who has the key"
[[ $(tail -n 1 -- "$dir/run.json") == *'"identical":true'* ]] || die "the file did not come back"
((${before:-1} == 0)) || die "datagrams of who has the key were dropped: $before"
printf '{"point":"key","identical":true,"refused":%d,"dropped":%d}\n' "$refusals" "${after:-0}"
((${after:-0} >= 2)) || die "what was dropped was not counted"
