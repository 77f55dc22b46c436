#!/usr/bin/env bash
# Runs so many nodes of etcd on consecutive ports of 127.0.0.1, from PORT on for clients and from PORT + 100 on for each
# other, with their data in memory, until SIGTERM. Usage: scripts/services/etcd.sh NODES PORT
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

(($# == 2)) || misuse "needs a number of nodes and a port"
nodes=$1 port=$2 pids=() cluster=''
memory=${TMPDIR:-/tmp}
if [[ -d /dev/shm ]]; then memory=/dev/shm; fi
data=$(mktemp -d "$memory/stripelog-etcd.XXXXXX")

end() {
    trap - EXIT
    kill -TERM "${pids[@]}" 2>/dev/null || true
    wait || true
    rm -rf -- "$data"
}
trap end EXIT
trap 'exit 0' TERM INT

for ((node = 0; node < nodes; node++)); do
    cluster+=${cluster:+,}node$node=http://127.0.0.1:$((port + 100 + node))
done
for ((node = 0; node < nodes; node++)); do
    url=http://127.0.0.1:$((port + node)) peer=http://127.0.0.1:$((port + 100 + node))
    etcd --name "node$node" --data-dir "$data/node$node" --initial-cluster "$cluster" \
        --listen-client-urls "$url" --advertise-client-urls "$url" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" &
    pids+=("$!")
done
wait -n
die "a node of etcd ended"
