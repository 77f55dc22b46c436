#!/usr/bin/env bash
# Two network namespaces with a wire between them, in which everything about the network is measured. See --help.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'END'
Usage: scripts/bed.sh up
       scripts/bed.sh down
       scripts/bed.sh status
       scripts/bed.sh exec (srv|cli) COMMAND...

  srv  the namespace of the server, 10.99.0.1 on the device srv0
  cli  the namespace of the load, 10.99.0.2 and 10.99.0.3 on the device cli0

The two devices are the ends of a veth pair with one queue each (or as many as STRIPELOG_BED_QUEUES says) and fixed
neighbours, so that no packet but those that are measured crosses it. `up` does nothing where the bed is there, and
`down` nothing where it is not.
The namespaces are called slg-srv and slg-cli, or NAME-srv and NAME-cli with STRIPELOG_BED=NAME. Nothing
outside of them is changed. Needs root, and ip (Debian: iproute2).
END
}

bed=${STRIPELOG_BED:-slg}
if [[ ! $bed =~ ^[a-z0-9]{1,8}$ ]]; then
    misuse "STRIPELOG_BED='$bed': allowed: one to eight small letters and digits"
fi
queues=${STRIPELOG_BED_QUEUES:-1}
if [[ ! $queues =~ ^[1-9]$ ]]; then
    misuse "STRIPELOG_BED_QUEUES='$queues': allowed: 1 to 9"
fi
srv=$bed-srv cli=$bed-cli
srv_mac=02:99:00:00:00:01 cli_mac=02:99:00:00:00:02

need_root() {
    ((EUID == 0)) || die "namespaces need root: sudo $0"
    command -v ip >/dev/null || die "ip is needed (Debian: iproute2)"
}

there() { [[ -e /run/netns/$srv && -e /run/netns/$cli ]] && ip -n "$cli" link show cli0 >/dev/null 2>&1; }

has_queues() { [[ $(ip -d -n "$srv" link show srv0) =~ numrxqueues\ ([0-9]+) ]] && ((BASH_REMATCH[1] >= queues)); }

up() {
    if there; then
        has_queues || die "the bed is up, with fewer than $queues queues: take it down before"
        return
    fi
    down
    ip netns add "$srv"
    ip netns add "$cli"
    ip link add srv0 numrxqueues "$queues" numtxqueues "$queues" netns "$srv" type veth \
        peer name cli0 numrxqueues "$queues" numtxqueues "$queues" netns "$cli"
    ip -n "$srv" addr add 10.99.0.1/24 dev srv0
    ip -n "$cli" addr add 10.99.0.2/24 dev cli0
    # A second sender, for what the sequencer counts by address.
    ip -n "$cli" addr add 10.99.0.3/24 dev cli0
    # No address of IPv6 of its own, which would be asked about: packets that nobody measures.
    ip -n "$srv" link set srv0 addrgenmode none
    ip -n "$cli" link set cli0 addrgenmode none
    ip -n "$srv" link set lo up
    ip -n "$cli" link set lo up
    ip -n "$srv" link set srv0 address "$srv_mac" up
    ip -n "$cli" link set cli0 address "$cli_mac" up
    ip -n "$srv" neigh replace 10.99.0.2 lladdr "$cli_mac" dev srv0 nud permanent
    ip -n "$srv" neigh replace 10.99.0.3 lladdr "$cli_mac" dev srv0 nud permanent
    ip -n "$cli" neigh replace 10.99.0.1 lladdr "$srv_mac" dev cli0 nud permanent
}

# The devices go with their namespaces.
down() {
    local name
    for name in "$srv" "$cli"; do
        if [[ -e /run/netns/$name ]]; then ip netns del "$name"; fi
    done
}

status() {
    if there; then echo "$srv and $cli are up"; else echo "$srv and $cli are down"; fi
}

main() {
    local command=${1:---help} end
    shift || true
    case $command in
    up) need_root && up ;;
    down) need_root && down ;;
    status) need_root && status ;;
    exec)
        need_root
        case ${1:-} in
        srv) end=$srv ;;
        cli) end=$cli ;;
        *) misuse "exec needs srv or cli, and a command" ;;
        esac
        shift
        (($#)) || misuse "exec needs a command"
        there || die "the bed is not up: $0 up"
        exec ip netns exec "$end" "$@"
        ;;
    -h | --help) usage ;;
    *) misuse "unknown command '$command', see --help" ;;
    esac
}

main "$@"
