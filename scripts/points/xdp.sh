#!/usr/bin/env bash
# Shows the program in the driver hook by its tests, each in network namespaces of its own. Prints one line of JSON.
# Usage: scripts/points/xdp.sh (suite | kill | fuzz)
#   suite  the suite of all backends, what is special about the program, and both sides at once
#   kill   SIGKILL of the sequencer, again and again
#   fuzz   random and mutated frames
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

# Without one of these the tests could only be left out.
need_parts() {
    ((EUID == 0)) || die "namespaces and programs in the kernel need root: sudo $0"
    command -v ip >/dev/null || die "ip is needed (Debian: iproute2)"
    command -v clang >/dev/null || die "clang is needed (Debian: clang)"
    [[ -r /usr/include/bpf/bpf_helpers.h ]] || die "libbpf's headers are needed (Debian: libbpf-dev)"
}

main() {
    local which=${1:-} tests output status=0
    case $which in
    suite) tests=(backends xdp xdp_host xdp_both) ;;
    kill) tests=(xdp_kill) ;;
    fuzz) tests=(xdp_fuzz) ;;
    *) misuse "suite, kill or fuzz, not '$which'" ;;
    esac
    need_parts
    [[ ${FEATURES[*]} == *xdp* ]] || die "STRIPELOG_FEATURES leaves the program out: it is to be shown"
    output=$(output_of_tests "${tests[@]}") || status=$?
    WHICH=$which STATUS=$status python3 -c "$REPORT" <<<"$output"
}

# shellcheck disable=SC2034
read -r -d '' REPORT <<'END' || true
import json, os, re, sys

which, output = os.environ["WHICH"], sys.stdin.read()
# What a test prints may stand between its name and its outcome.
passed, failed = (sum(int(n) for n in re.findall(rf"^test result: .* (\d+) {what};", output, re.M)) for what in ("passed", "failed"))
ignored = sum(int(n) for n in re.findall(r"(\d+) ignored;", output))
figures, missed = {"passed": passed}, []

def bar(name, value, text, holds):
    figures[name] = {"value": value, "bar": text}
    if not holds:
        missed.append(name)

def lines(first):
    """The figures that tests have printed, of each line that begins with this one."""
    found = re.findall(rf"\b({first}=\S+(?: \w+=\S+)*)", output)
    return [dict(pair.split("=", 1) for pair in line.split(" ")) for line in found]

def exactly(name, value, expected):
    bar(name, value, expected, value == expected)

def at_least(name, value, least):
    bar(name, value, f">= {least}", value >= least)

exactly("failed", failed, 0)
exactly("ignored", ignored, 0)
if which == "suite":
    for name, least in (("poll", 9), ("io_uring", 9), ("xdp", 9), ("xdp_ipv6", 9), ("xdp_generic", 9)):
        at_least(f"tests_{name}", len(set(re.findall(rf"^test {name}::(\w+) \.\.\.", output, re.M))), least)
    at_least("tests_of_the_program", len(set(re.findall(r"^test (\w+) \.\.\.", output, re.M))), 14)
    figures["both_at_once"] = lines("requests")
elif which == "kill":
    line = (lines("rounds") or [{}])[-1]
    at_least("rounds", int(line.get("rounds", 0)), 20)
    at_least("rounds_stopped_before", int(line.get("stopped_before", 0)), 5)
    at_least("tokens", int(line.get("tokens", 0)), 1000)
    for name in ("granted_twice", "above_the_reservation", "left_behind"):
        exactly(name, int(line.get(name, -1)), 0)
else:
    seeds, runs = lines("STRIPELOG_XDP_SEED"), lines("frames")
    figures["seeds"] = [int(run["STRIPELOG_XDP_SEED"]) for run in seeds]
    figures["runs"] = runs
    total = lambda name: sum(int(run[name]) for run in runs)
    at_least("frames", max([int(run["frames"]) for run in runs], default=0), 1_000_000)
    at_least("frames_of_all_runs", total("frames"), 1_400_000)
    for name in ("replies", "answered", "tokens", "second_tokens"):
        figures[name] = total(name)
    exactly("granted_twice", total("granted_twice") if runs else -1, 0)
    exactly("lost_to_another_socket", total("others_sent") - total("others_arrived") if runs else -1, 0)
ok = not missed and passed > 0 and os.environ["STATUS"] == "0"
if not ok:
    print("\n".join(re.findall(r"^(?:test .* FAILED|.*panicked.*|error.*|assertion.*)$", output, re.M)), file=sys.stderr)
print(json.dumps({"point": f"xdp-{which}", "figures": figures, "missed": missed, "ok": ok}))
sys.exit(not ok)
END

main "$@"
