#!/usr/bin/env bash
# Builds Stripelog, starts a sequencer and a stripe-writer on this machine, appends a real file line by line,
# reads it back, compares, and checks the log. See --help.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'END'
Usage: scripts/run.sh [--records FILE] [--dir DIR] [--store URL] [--bin DIR] [--key] [--keep]
       scripts/run.sh --stop DIR

Needs a Rust toolchain and a C compiler, nothing else.

  --records FILE  file whose lines are appended; default: data/flights.csv of this repository
  --dir DIR       where the log, the settings and the output go, kept afterwards; default: a new
                  directory below $TMPDIR or /tmp, removed afterwards
  --store URL     object store of the log instead of DIR/store: s3://bucket/prefix, with the
                  credentials in the environment
  --bin DIR       take the programs from there and build nothing
  --key           authenticate datagrams with a new key
  --keep          leave the log running and print how to use and stop it
  --stop DIR      stop the log that was left running in DIR

The last line of the output is one line of JSON. Exit code 0: every record came back in order, byte for byte.
END
}

records=$ROOT/data/flights.csv dir='' store='' bin='' key=no keep=no temporary=no
pids=()

parse_arguments() {
    while (($#)); do
        case $1 in
        --records | --dir | --store | --bin | --stop)
            (($# > 1)) || misuse "$1 needs a value"
            case $1 in
            --records) records=$2 ;;
            --dir) dir=$2 ;;
            --store) store=$2 ;;
            --bin) bin=$2 ;;
            --stop) stop_kept "$2" && exit 0 ;;
            esac
            shift 2
            ;;
        --key) key=yes && shift ;;
        --keep) keep=yes && shift ;;
        -h | --help) usage && exit 0 ;;
        *) misuse "unknown argument '$1', see --help" ;;
        esac
    done
    [[ -r $records && -f $records ]] || die "cannot read the file '$records'"
    records=$(readlink -f -- "$records")
}

stop_kept() {
    local program pid
    for program in sequencer-fast stripe-writer; do
        [[ -r $1/$program.pid ]] || die "no log was left running in '$1'"
        pid=$(<"$1/$program.pid")
        if is_program "$pid" "$program"; then stop_pid "$pid"; fi
        rm -f -- "$1/$program.pid"
    done
    say "stopped; the directory is still there: $1"
}

# Runs on every way out.
clean_up() {
    local status=$? pid
    trap - EXIT
    if [[ $keep == yes && $status == 0 ]]; then exit 0; fi
    for pid in "${pids[@]}"; do stop_pid "$pid"; done
    # Behind a signal there is nothing to find out.
    if [[ $temporary == yes && ($status == 0 || $status -gt 128) ]]; then
        rm -rf -- "$dir"
    elif [[ -n $dir && $status != 0 ]]; then
        say "what is left to look at: $dir"
    fi
    exit "$status"
}

build() {
    if [[ -z $bin ]]; then
        command -v cargo >/dev/null || die "cargo is not there: install a Rust toolchain"
        say "building (the first time takes a few minutes)"
        # The whole workspace: a choice of packages would choose other features of what they share, and build
        # all of that a second time.
        build_programs
        bin=${CARGO_TARGET_DIR:-$ROOT/target}/release
    fi
    bin=$(readlink -f -- "$bin")
    local program
    for program in sequencer-fast stripe-writer stripelog; do
        [[ -x $bin/$program ]] || die "there is no program '$bin/$program'"
    done
}

prepare() {
    if [[ -z $dir ]]; then
        dir=$(mktemp -d "${TMPDIR:-/tmp}/stripelog.XXXXXX")
        temporary=yes
    fi
    mkdir -p -- "$dir"
    dir=$(readlink -f -- "$dir")
    [[ ! -e $dir/stripelog.toml ]] || die "there is a log in '$dir' already"
    if [[ -z $store ]]; then
        mkdir -p -- "$dir/store"
        store=$(file_url "$dir/store")
    fi
    sequencer_port=$(free_port)
    sequencer_admin=$(free_port "$sequencer_port")
    writer_port=$(free_port "$sequencer_port" "$sequencer_admin")
    writer_admin=$(free_port "$sequencer_port" "$sequencer_admin" "$writer_port")
    local key_file=''
    if [[ $key == yes ]]; then
        key_file=$dir/stripelog.key
        "$bin/stripelog" key "$key_file" >&2
    fi
    cat >"$dir/stripelog.toml" <<END
store = "$store"

[membership]
sequencer = "127.0.0.1:$sequencer_port"
writers = [{ address = "127.0.0.1:$writer_port" }]
key_file = "$key_file"

[sequencer]
listen = "127.0.0.1:$sequencer_port"
admin = "127.0.0.1:$sequencer_admin"

[writer]
listen = "127.0.0.1:$writer_port"
admin = "127.0.0.1:$writer_admin"
END
}

stripelog() { "$bin/stripelog" --config "$dir/stripelog.toml" --log-level warn "$@"; }

# Starts a daemon in the background. In a group of its own, so that Ctrl-C does not end one that is kept.
launch() {
    local program=$1
    set -m
    "$bin/$program" --config "$dir/stripelog.toml" >"$dir/$program.log" 2>&1 </dev/null &
    set +m
    pids+=("$!")
    echo "$!" >"$dir/$program.pid"
}

start() {
    stripelog create >&2
    # The sequencer waits for the stripe-writer to seal and the other way round: both start, then both are ready.
    launch stripe-writer
    launch sequencer-fast
    wait_until 60 "${pids[0]}" stripe-writer "$dir/stripe-writer.log" http_ok "$writer_admin" /healthz
    wait_until 60 "${pids[1]}" sequencer-fast "$dir/sequencer-fast.log" http_ok "$sequencer_admin" /healthz
}

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

work() {
    local from to appended_at
    from=$(milliseconds)
    stripelog append "$records" >"$dir/append.txt"
    appended_at=$(milliseconds)
    stripelog read --out "$dir/read" >&2
    to=$(milliseconds)
    stripelog verify >"$dir/verify.txt" || { cat -- "$dir/verify.txt" >&2 && die "the log is not sound"; }
    append_ms=$((appended_at - from)) read_ms=$((to - appended_at))
}

# A record is a line without its end; what is read back has an end behind each.
compare() {
    if [[ -n $(tail -c 1 -- "$records") ]]; then
        cmp -- <(cat -- "$records" && echo) "$dir/read"
    else
        cmp -- "$records" "$dir/read"
    fi
}

report() {
    local lines verified positions objects seconds
    lines=$(wc -l <"$dir/read")
    verified=$(tail -n 1 -- "$dir/verify.txt")
    positions=$(figure positions "$verified")
    objects=$(figure objects "$verified")
    seconds=$(printf '%d.%03d' $(((append_ms + read_ms) / 1000)) $(((append_ms + read_ms) % 1000)))
    say "store      $store"
    say "records    $lines from $records"
    say "positions  ${positions:-unknown}"
    say "objects    ${objects:-unknown}"
    say "seconds    $seconds (append $append_ms ms, read $read_ms ms)"
    say "identical  yes, in order, byte for byte; every checksum was verified"
    if [[ $keep == yes ]]; then how_to_use; fi
    printf '{"point":"run","records":%d,"positions":%s,"objects":%s,"seconds":%s,"identical":true}\n' \
        "$lines" "${positions:-null}" "${objects:-null}" "$seconds"
}

how_to_use() {
    cat >&2 <<END

The log is running. To use it:
  export STRIPELOG_CONFIG='${dir//\'/\'\\\'\'}/stripelog.toml'
  export PATH='${bin//\'/\'\\\'\'}':"\$PATH"
  stripelog status
  echo 'a record' | stripelog append -
  stripelog follow --from tail
Metrics: http://127.0.0.1:$sequencer_admin/metrics and http://127.0.0.1:$writer_admin/metrics
To stop it:
  '${ROOT//\'/\'\\\'\'}/scripts/run.sh' --stop '${dir//\'/\'\\\'\'}'
END
}

main() {
    parse_arguments "$@"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    build
    prepare
    start
    work
    if ! compare; then
        printf '{"point":"run","identical":false}\n'
        die "what was read back differs from '$records'"
    fi
    report
}

main "$@"
