#!/usr/bin/env bash
# The points of docs/verification.md: each is one command that shows what it claims. See --help.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# --- The list of points -----------------------------------------------------------------------------------
# Name, what it shows, short command, long command (empty: as the short one). A command prints, as its last
# line, one line of JSON with its figures, and exits 0 or not. It runs in the root of the repository.
points() {
    point run "a real file comes back in order, byte for byte" \
        "scripts/run.sh"
    point run-s3 "the same on an honest S3 server" \
        "scripts/services.sh run ministack -- scripts/run.sh --store s3://stripelog/log"
    point store-check "a log is not created on a store that ignores conditions" \
        "scripts/services.sh run rclone -- scripts/points/refused.sh" \
        "scripts/services.sh run rclone -- scripts/points/refused.sh && scripts/services.sh run s3s-fs -- scripts/points/refused.sh"
}
# ----------------------------------------------------------------------------------------------------------

usage() {
    cat <<'END'
Usage: scripts/verify.sh (POINT... | all) [--short]
       scripts/verify.sh list

Prints the line of JSON of each point, and whether it held; exit code 0 if all did. --short takes the form of
minutes that the tests use, instead of the form that the documentation quotes.
END
}

short=no wanted=() ran=0 failed=()

point() {
    local name=$1 what=$2 brief=$3 full=${4:-$3} command output status=0
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
        -*) die "unknown argument '$1', see --help" ;;
        *) wanted+=("$1") ;;
        esac
        shift
    done
    ((${#wanted[@]})) || die "which point? see --help"
    points
    if [[ ${wanted[0]} == list ]]; then return; fi
    ((ran > 0)) || die "no point is called '${wanted[*]}', see 'list'"
    say "== $((ran - ${#failed[@]})) of $ran points held${failed[*]:+, not: ${failed[*]}}"
    ((${#failed[@]} == 0))
}

main "$@"
