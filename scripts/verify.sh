#!/usr/bin/env bash
# The points of docs/verification.md: each is one command that shows what it claims. See --help.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# --- The list of points -----------------------------------------------------------------------------------
# Name, what it shows, short command, long command (empty: as the short one). A command prints, as its last
# line, one line of JSON with its figures, and exits 0 or not. It runs in the root of the repository.
points() {
    local bench=target/release/bench s3="scripts/services.sh run ministack --" rgw="scripts/services.sh run radosgw --"
    point run "a real file comes back in order, byte for byte" \
        "scripts/run.sh"
    point kill-9 "daemons killed at random moments under load: nothing lost, nothing doubled" \
        "$bench rounds --rounds 20" \
        "$bench rounds"
    point failover "the sequencer killed under load: its standby takes over within a second of finding out" \
        "$bench failover --short" \
        "$bench failover"
    point failover-stall "a sequencer that stood still is woken after a takeover and grants nothing" \
        "$bench failover-stall --short" \
        "$bench failover-stall"
    point failover-writer "one of three stripe-writers killed under load: the others take its stripes, and theirs do not stop" \
        "$bench failover-writer --short" \
        "$bench failover-writer"
    point failover-both "sequencer and stripe-writer killed at once, and a store that refuses all: the log waits and goes on" \
        "$bench failover-both --short" \
        "$bench failover-both"
    point etcd "etcd loses a node, stands still, and is restored from an old backup, while a sequencer and a stripe-writer die" \
        "scripts/points/etcd.sh --short" \
        "scripts/points/etcd.sh"
    point partitions "daemons in networks of their own, killed, stopped and cut off from one another: nothing lost, and all go on" \
        "scripts/points/partitions.sh --short" \
        "scripts/points/partitions.sh"
    point hand-over "the sequencer stopped in good order: its standby goes on at the exact tail at once" \
        "$bench hand-over --short" \
        "$bench hand-over"
    point hand-over-writer "a stripe-writer stopped in good order: the others go on with its stripes at once" \
        "$bench hand-over-writer --short" \
        "$bench hand-over-writer"
    point hole "readers pass the hole of a dead client, and a late write is junk" \
        "$bench hole"
    point junk "200 million positions that were reserved and not granted: one run a stripe, read over in a second" \
        "$bench junk"
    point restripe "another layout under load: appends pause for less than two seconds, and nothing is lost" \
        "$bench restripe --short" \
        "$bench restripe"
    point store-faults "a store that fails, is late, loses answers and says 'exists' of its own writes" \
        "$s3 $bench faults --rate 0.05 --seconds 40" \
        "$s3 $bench faults --rate 0.05 --seconds 48 --rounds 30 && $s3 $bench faults --rate 0.1 --seconds 120"
    point suites-s3 "the suites that need a store, on a real S3 server" \
        "$s3 scripts/points/suites.sh catalog" \
        "$rgw scripts/points/suites.sh all"
    point bad-input "bad input of every kind: one clear error each, and the service goes on" \
        "$bench input"
    point run-s3 "a real file comes back on an honest S3 server" \
        "$s3 scripts/run.sh --store s3://stripelog/log"
    point kill-9-s3 "daemons killed under load on an honest S3 server" \
        "$s3 $bench rounds --rounds 10 --store s3://stripelog/rounds" \
        "$s3 $bench rounds --store s3://stripelog/rounds"
    point store-check "a log is not created on, or opened from, a store that ignores conditions" \
        "scripts/services.sh run rclone -- scripts/points/refused.sh" \
        "scripts/services.sh run rclone -- scripts/points/refused.sh && scripts/services.sh run s3s-fs -- scripts/points/refused.sh"
    point tune-host "a host is tuned, checked and put back, and nothing stays half done" \
        "scripts/points/tune-host.sh"
    point key "with a key everything goes on, and who does not have it gets nothing and is told so" \
        "scripts/points/key.sh"
    point wire "the sequencer answers as fast as an echo with the same mechanism, within a tenth" \
        "$bench wire --short" \
        "$bench wire"
    point xdp "a program in the driver hook grants at the speed of one that only turns packets round, within what the bars say" \
        "$bench xdp --short" \
        "$bench xdp"
    point xdp-suite "the program in the driver hook answers as every other backend does" \
        "scripts/points/xdp.sh suite"
    point xdp-kill "a sequencer with a program in the driver hook is killed again and again: no position twice, nothing left behind" \
        "scripts/points/xdp.sh kill"
    point xdp-fuzz "a million random and mutated frames at the driver hook: none answered that was not asked, none lost to others" \
        "scripts/points/xdp.sh fuzz"
    point peers "twenty times as many tokens as Redis on the same cores" \
        "$bench peers --short" \
        "$bench peers"
    point lossy "a path that loses, doubles and reorders datagrams: no position twice, no hole without a reason" \
        "$bench lossy --short" \
        "$bench lossy"
    point shards "two shards share one counter, which each touches once a batch" \
        "$bench shards --short" \
        "$bench shards"
    point headroom "a billion tokens a second, and no request waits for a store that is late" \
        "$s3 $bench headroom --short" \
        "$s3 $bench headroom"
    point flood "a client that floods does not slow down a polite one" \
        "$bench flood --short" \
        "$bench flood"
    point append "appends of 1 KB as fast as raw puts of the same store, within what the bars say" \
        "$bench append --short && $s3 $bench append --short --store s3 --seconds 6" \
        "$bench append && $bench append --store disk --in-flight-mib 256 --linger-ms 100 && $rgw $bench append --store s3 --seconds 12"
    point append-small "three million records of 100 bytes a second" \
        "$bench append --size 100 --short" \
        "$bench append --size 100"
    point latency "an append takes the linger, one put and two milliseconds" \
        "$bench latency --short --seconds 3" \
        "$bench latency"
    point read "a scan as fast as raw parallel gets, within the bar" \
        "$bench read --short --store disk" \
        "$bench read && $bench read --store disk && $rgw $bench read --store s3"
    point read-cache "a scan from a warm cache twice as fast as raw parallel gets of an S3 server" \
        "$s3 $bench read --cache --store s3 --short" \
        "$s3 $bench read --cache --store s3"
    point follow "a follower sees a record five milliseconds after its acknowledgement" \
        "$bench follow --short" \
        "$bench follow"
    point cost "a slow log makes at most six puts a second" \
        "$bench cost --short" \
        "$bench cost"
    point backlog "a store ten times slower than the load: memory within its bound, nothing lost" \
        "$bench backlog --short" \
        "$bench backlog"
    point slow-stripe "a stripe whose puts are twenty times slower does not slow down the others" \
        "$bench slow-stripe --short" \
        "$bench slow-stripe"
    point owners "two stripe-writers that both believe they own every stripe lose nothing" \
        "$bench owners --rounds 8" \
        "$bench owners --rounds 50"
    point simulation "seeded lives of a whole log in one process: no rule broken, and every missing guard noticed" \
        "scripts/points/simulation.sh 1000" \
        "scripts/points/simulation.sh 10000"
    point model "all states of a small stripe: no rule broken, and every missing guard noticed" \
        "scripts/points/model.sh"
    point rules "every rule that is built has tests named after it, and they pass" \
        "scripts/points/rules.sh"
}
# ----------------------------------------------------------------------------------------------------------

usage() {
    cat <<'END'
Usage: scripts/verify.sh (POINT... | all) [--short]
       scripts/verify.sh list

Builds everything in the release profile, then prints the line of JSON of each point, and whether it held; exit code 0
if all did. --short takes the form of
minutes that the tests use, instead of the form that the documentation quotes.
END
}

short=no wanted=() ran=0 failed=()

point() {
    local name=$1 what=$2 brief=$3 full=${4:-$3} command output status=0 start=$SECONDS
    if [[ ${wanted[0]} == list ]]; then
        printf '%-12s %s\n' "$name" "$what"
        return
    fi
    [[ ${wanted[0]} == all || " ${wanted[*]} " == *" $name "* ]] || return 0
    ran=$((ran + 1))
    command=$full
    if [[ $short == yes ]]; then command=$brief; fi
    say "== $name: $what"
    say "   $command"
    output=$(cd -- "$ROOT" && bash -c "$command") || status=$?
    tail -n 1 <<<"$output"
    say "   $((SECONDS - start)) s"
    if ((status != 0)); then
        failed+=("$name")
        say "   failed with code $status"
    fi
}

main() {
    while (($#)); do
        case $1 in
        --short) short=yes ;;
        -h | --help) usage && return ;;
        -*) misuse "unknown argument '$1', see --help" ;;
        *) wanted+=("$1") ;;
        esac
        shift
    done
    ((${#wanted[@]})) || misuse "which point? see --help"
    if [[ ${wanted[0]} != list ]]; then
        build_programs
    fi
    points
    if [[ ${wanted[0]} == list ]]; then return; fi
    ((ran > 0)) || misuse "no point is called '${wanted[*]}', see 'list'"
    say "== $((ran - ${#failed[@]})) of $ran points held${failed[*]:+, not: ${failed[*]}}"
    ((${#failed[@]} == 0))
}

main "$@"
