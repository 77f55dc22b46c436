#!/usr/bin/env bash
# Installs what the tests need and runs all of them; ends with their counts. See --help.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'END'
Usage: scripts/test.sh

Installs what the tests need where it is missing (a C compiler, Python's venv, strace, ip, nft, etcd and protoc from
the distribution, clang and libbpf's headers for the program in the driver hook, two object stores below target/services),
builds everything with the membership in etcd and that program, runs the tests of all crates (root is needed for those
of the program), then the short form of every point of docs/verification.md. Everything is built in the release profile and
with the same features, so that the parts share what they build.
END
}

# Prints the distribution's packages that are missing here.
missing_packages() {
    command -v cc >/dev/null || echo gcc libc6-dev
    python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3 python3-venv
    command -v strace >/dev/null || echo strace
    command -v ip >/dev/null || echo iproute2
    command -v nft >/dev/null || echo nftables
    # The membership in etcd, and what builds it.
    command -v protoc >/dev/null || echo protobuf-compiler
    [[ -r /usr/include/google/protobuf/descriptor.proto ]] || echo libprotobuf-dev
    command -v etcd >/dev/null || echo etcd-server
    command -v etcdctl >/dev/null || echo etcd-client
    # What builds the program in the driver hook.
    command -v clang >/dev/null || echo clang
    [[ -r /usr/include/bpf/bpf_helpers.h ]] || echo libbpf-dev
}

install_packages() {
    local packages as_root=()
    read -ra packages < <(missing_packages | tr '\n' ' ') || true
    if ((${#packages[@]} == 0)); then return; fi
    command -v apt-get >/dev/null || die "needed and missing here: ${packages[*]}"
    if ((EUID != 0)); then as_root=(sudo); fi
    say "installing ${packages[*]}"
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends \
        "${packages[@]}" >/dev/null
}

# Suites of the client that also run on the S3 server.
readonly ON_S3='--workspace --test append --test follow --test redirect --test verify'

cargo_tests() {
    local log=$1
    # The suite of the catalog also runs against an S3 server; without one it fails.
    # shellcheck disable=SC2016
    (cd -- "$ROOT" && scripts/services.sh run ministack -- bash -c '
        export CARGO_TERM_COLOR=never CARGO_TERM_QUIET=false
        STRIPELOG_TEST_S3_URL=$STRIPELOG_TEST_STORE/suite STRIPELOG_REQUIRE_S3=1 STRIPELOG_REQUIRE_STRACE=1 \
            cargo test --release --workspace --locked --no-fail-fast "${@:2}" -- --show-output &&
        STRIPELOG_TEST_SUITE_URL=$STRIPELOG_TEST_STORE/suite cargo test --release --locked --no-fail-fast "${@:2}" $1' \
        suites "$ON_S3" --features etcd,xdp 2>&1) | tee -- "$log"
}

# Adds up the counts of all test binaries.
summary() {
    awk '/^test result:/ { passed += $4; failed += $6; ignored += $8; binaries++ }
         END { printf "tests: %d passed, %d failed, %d ignored, in %d binaries\n", passed, failed, ignored, binaries }' "$1"
    sed -n 's/^test \(.*\) \.\.\. FAILED$/failed: \1/p' "$1"
}

main() {
    case ${1:-} in
    '') ;;
    -h | --help) usage && return ;;
    *) misuse "unknown argument '$1', see --help" ;;
    esac
    install_packages
    "$ROOT/scripts/services.sh" install ministack rclone
    local log status=0
    log=${CARGO_TARGET_DIR:-$ROOT/target}/test.log
    mkdir -p -- "$(dirname -- "$log")"
    cargo_tests "$log" || status=1
    say "== built and tested: $SECONDS s"
    STRIPELOG_TEST_LOG=$log "$ROOT/scripts/verify.sh" all --short || status=1
    summary "$log"
    return "$status"
}

main "$@"
