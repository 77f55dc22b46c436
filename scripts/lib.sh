# shellcheck shell=bash disable=SC2034
# Functions that the scripts share. Needs bash and the usual commands of a Linux system, nothing else.
# To be sourced.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

# Settings of the one who calls would be stronger than those that scripts write.
unset "${!STRIPELOG__@}" 2>/dev/null || true

# What cargo builds everywhere: with etcd and the program in the driver hook where each can be built, so that no script
# builds a second time what another has built. STRIPELOG_FEATURES says something else; empty: nothing of it. ETCD is the
# same for one crate that has only this feature. To be called again when something was installed.
find_features() {
    local built=()
    FEATURES=() ETCD=()
    if [[ -v STRIPELOG_FEATURES ]]; then
        if [[ -n $STRIPELOG_FEATURES ]]; then FEATURES=(--features "$STRIPELOG_FEATURES"); fi
    else
        if command -v protoc >/dev/null && [[ -r /usr/include/google/protobuf/descriptor.proto ]]; then built+=(etcd); fi
        if command -v clang >/dev/null && [[ -r /usr/include/bpf/bpf_helpers.h ]]; then built+=(xdp); fi
        if ((${#built[@]})); then FEATURES=(--features "$(IFS=, && printf %s "${built[*]}")"); fi
    fi
    if [[ ${FEATURES[*]} == *etcd* ]]; then ETCD=(--features etcd); fi
}
find_features

# Builds all programs.
build_programs() {
    (cd -- "$ROOT" && cargo build --quiet --release --locked --workspace "${FEATURES[@]}" >&2)
}

# Installs etcd, and builds all programs with what goes by it.
build_with_etcd() {
    [[ ${STRIPELOG_FEATURES-etcd} == *etcd* ]] || die "STRIPELOG_FEATURES leaves etcd out: it is to be shown"
    "$ROOT/scripts/services.sh" install etcd
    find_features
    ((${#ETCD[@]})) || die "protoc and its headers are needed (Debian: protobuf-compiler libprotobuf-dev)"
    build_programs
}

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$(basename -- "$0"): $*"
    exit 1
}

# As die, for arguments that cannot be meant.
misuse() {
    say "$(basename -- "$0"): $*"
    exit 2
}

# Prints a port of 127.0.0.1 on which nothing listens, neither TCP nor UDP, and which is none of the arguments.
free_port() {
    local port taken
    for _ in $(seq 200); do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 10000))
        [[ " $* " == *" $port "* ]] && continue
        printf -v taken ':%04X ' "$port"
        grep -qis -- "$taken" /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 && continue
        echo "$port"
        return
    done
    die "found no free port"
}

# Prints a path as the URL of a directory.
file_url() {
    local LC_ALL=C path=$1 url='' char i
    for ((i = 0; i < ${#path}; i++)); do
        char=${path:i:1}
        case $char in
        [a-zA-Z0-9/._~-]) url+=$char ;;
        *) printf -v char '%%%02X' "'$char" && url+=${char: -3} ;;
        esac
    done
    # A byte above 127 comes out of printf with a sign; its last two digits are right.
    echo "file://$url"
}

# Whether GET http://127.0.0.1:PORT/PATH answers 200.
http_ok() {
    local port=$1 path=$2 line=''
    {
        exec {http}<>"/dev/tcp/127.0.0.1/$port" || return 1
    } 2>/dev/null
    printf 'GET %s HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n' "$path" >&"$http"
    read -r -t 5 line <&"$http" || true
    exec {http}>&-
    [[ $line == *' 200 '* ]]
}

# Waits until a command succeeds: SECONDS PID WHAT LOG COMMAND... Ends with an error if the process is gone
# or the time is over.
wait_until() {
    local seconds=$1 pid=$2 what=$3 log=$4
    shift 4
    local end=$((SECONDS + seconds))
    until "$@"; do
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -n 20 -- "$log" >&2 || true
            die "$what ended before it was ready"
        fi
        if ((SECONDS >= end)); then
            tail -n 20 -- "$log" >&2 || true
            die "$what was not ready within $seconds s"
        fi
        sleep 0.1
    done
}

# Whether a process runs and is one of PROGRAM (so that a number that was given to another is left alone).
is_program() {
    local pid=$1 program=$2
    [[ -r /proc/$pid/comm && $(cat "/proc/$pid/comm" 2>/dev/null) == "${program:0:15}" ]]
}

# Ends a process: SIGTERM, and SIGKILL if it is still there after so many seconds.
stop_pid() {
    local pid=$1 seconds=${2:-10}
    kill -TERM "$pid" 2>/dev/null || return 0
    for _ in $(seq $((seconds * 10))); do
        kill -0 "$pid" 2>/dev/null || return 0
        [[ $(cut -d' ' -f3 "/proc/$pid/stat" 2>/dev/null || true) == Z ]] && return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

# Prints a number out of a line of NAME=NUMBER: NAME LINE. Nothing if it is not there.
figure() {
    sed -n 's/.* '"$1"'=\([0-9]*\).*/\1/p' <<<" $2"
}

# Prints what the tests of these binaries print, with all that they say of themselves; fails if one of them fails, or comes
# to no end.
# scripts/test.sh has just run all of them, and gives what they printed in STRIPELOG_TEST_LOG.
output_of_tests() {
    local name binaries=()
    if [[ -z ${STRIPELOG_TEST_LOG:-} ]]; then
        for name; do binaries+=(--test "$name"); done
        # Of the whole workspace, whose parts are built with the same features then as everywhere.
        (cd -- "$ROOT" && cargo test --release --workspace --locked "${FEATURES[@]}" --no-fail-fast "${binaries[@]}" -- --show-output 2>&1)
        return
    fi
    awk -v wanted=" $* " '
        /^ +(Running|Doc-tests) / {
            binary = $0
            sub(/.*\//, "", binary)
            sub(/-[0-9a-f]+\)$/, "", binary)
            shown = index(wanted, " " binary " ")
            if (shown) { begun++; seen[binary] }
        }
        shown
        shown && /^test result: ok/ { well++ }
        END {
            missing = split(wanted, names, " ")
            for (binary in seen) missing--
            exit missing || begun != well
        }' "$STRIPELOG_TEST_LOG"
}
