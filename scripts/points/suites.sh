#!/usr/bin/env bash
# Runs the suites of catalog, stripe-writer and client on the S3 server of the environment (STRIPELOG_TEST_STORE):
# "catalog" only that of the catalog, "all" those of the three. Prints one line of JSON.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

: "${STRIPELOG_TEST_STORE:?a store is needed, see scripts/services.sh}"
log=$(mktemp)
trap 'rm -f -- "$log"' EXIT

tests() { (cd -- "$ROOT" && cargo test --release --locked --no-fail-fast "$@") >>"$log" 2>&1; }

main() {
    local status=0 passed failed
    case ${1:-all} in catalog | all) ;; *) misuse "catalog or all, not '$1'" ;; esac
    export STRIPELOG_TEST_S3_URL=$STRIPELOG_TEST_STORE/suite STRIPELOG_REQUIRE_S3=1
    tests -p catalog || status=$?
    if [[ ${1:-all} == all ]]; then
        export STRIPELOG_TEST_SUITE_URL=$STRIPELOG_TEST_STORE/suite
        tests --workspace "${FEATURES[@]}" --test append --test follow --test redirect --test verify || status=$?
        tests -p stripe-writer "${ETCD[@]}" --tests || status=$?
    fi
    read -r passed failed < <(awk '/^test result:/ { p += $4; f += $6 } END { print p + 0, f + 0 }' "$log")
    if ((status != 0 || passed == 0)); then
        grep -E '^test .* FAILED|panicked|^error' "$log" >&2 || true
        ((status != 0)) || status=1
    fi
    printf '{"point":"suites-s3","ok":%s,"figures":{"passed":%d,"failed":{"value":%d,"bar":0}}}\n' \
        "$( ((status == 0)) && echo true || echo false)" "$passed" "$failed"
    return "$status"
}

main "$@"
