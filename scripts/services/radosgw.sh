#!/usr/bin/env bash
# One Ceph of this user's own, with its S3 gateway, in the foreground: PORT DATA. Ends all of it when it is ended.
# Programs: the Debian packages ceph-mon, ceph-osd, ceph-common and radosgw.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

port=$1 data=$2
conf=$data/ceph.conf
mon_port=$(free_port 0)
# The store's file: sparse, it takes what is written.
osd_bytes=$((20 << 30))

write_conf() {
    [[ -r $data/fsid ]] || cat /proc/sys/kernel/random/uuid >"$data/fsid"
    cat >"$conf" <<END
[global]
fsid = $(<"$data/fsid")
mon host = v2:127.0.0.1:$mon_port
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
ms bind ipv6 = false
public addr = 127.0.0.1
run dir = $data/run
log file = $data/log/\$name.log
admin socket =
pid file =
keyring = $data/keyring
# The gateway's own default is a connection that is encrypted with a key.
ms mon client mode = crc
[mon]
mon data = $data/mon
[osd]
osd data = $data/osd
osd objectstore = bluestore
bluestore block create = true
bluestore block size = $osd_bytes
osd memory target = 939524096
[client.rgw]
# Without tcp_nodelay each small operation takes 44 ms.
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw run sync thread = false
rgw data = $data/rgw
# What is deleted makes room at once, not in hours.
rgw gc obj min wait = 1
rgw gc processor period = 2
END
}

ceph_() { timeout 60 ceph --conf "$conf" "$@"; }

children=()
child() {
    "$@" >>"$data/log/out" 2>&1 &
    children+=($!)
}

end_all() {
    trap - TERM INT EXIT
    # The gateway first: it waits for the others.
    for ((i = ${#children[@]} - 1; i >= 0; i--)); do stop_pid "${children[i]}" 10 || true; done
}

main() {
    mkdir -p -- "$data/run" "$data/log" "$data/rgw"
    local new=no
    [[ -d $data/osd ]] || new=yes
    trap end_all EXIT
    trap 'exit 0' TERM INT
    write_conf
    # Nobody asks for a key, but the gateway wants to have one.
    ceph-authtool --create-keyring "$data/keyring" --gen-key --name client.rgw >/dev/null
    if [[ $new == yes ]]; then
        mkdir -p -- "$data/mon" "$data/osd"
        monmaptool --create --fsid "$(<"$data/fsid")" --addv a "[v2:127.0.0.1:$mon_port]" "$data/monmap" >/dev/null
        ceph-mon --conf "$conf" --mkfs --id a --monmap "$data/monmap"
    else
        # The port is another one than last time.
        monmaptool --rm a "$data/monmap" >/dev/null
        monmaptool --addv a "[v2:127.0.0.1:$mon_port]" "$data/monmap" >/dev/null
        ceph-mon --conf "$conf" --id a --inject-monmap "$data/monmap"
    fi
    child ceph-mon --conf "$conf" --id a --foreground
    if [[ $new == yes ]]; then
        cat /proc/sys/kernel/random/uuid >"$data/osd.uuid"
        ceph_ osd new "$(<"$data/osd.uuid")" >/dev/null
        ceph-osd --conf "$conf" --id 0 --mkfs --osd-uuid "$(<"$data/osd.uuid")"
    fi
    child ceph-osd --conf "$conf" --id 0 --foreground
    if [[ $new == yes ]]; then
        radosgw-admin --conf "$conf" --name client.rgw user create --uid test --display-name test \
            --access-key test --secret-key testtest >/dev/null
    fi
    child radosgw --conf "$conf" --name client.rgw --foreground
    wait -n "${children[@]}"
    die "a part of it has ended, see $data/log"
}

main
