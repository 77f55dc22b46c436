#!/usr/bin/env bash
# What a user would otherwise take for a counter: Redis, memcached and PostgreSQL, from Debian's packages. See --help.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'END'
Usage: scripts/peers.sh install
       scripts/peers.sh serve (redis | memcached | postgresql) DIRECTORY ADDRESS PORT

`install` downloads the packages and what they need, and unpacks them into target/peers (or $STRIPELOG_PEERS). It
installs nothing into the system. `serve` becomes the server: it listens on ADDRESS and PORT, keeps its data in
DIRECTORY, which has to be empty, and ends with SIGTERM. Redis and memcached keep nothing. PostgreSQL refuses to
run as root and is then run as nobody. Nobody is asked for a password: ADDRESS must not be reachable by others.
END
}

peers=${STRIPELOG_PEERS:-${CARGO_TARGET_DIR:-$ROOT/target}/peers}
root=$peers/root

# The version of PostgreSQL is that of the distribution.
packages=(redis-server memcached postgresql)

install() {
    if [[ -f $peers/done ]]; then return; fi
    command -v apt-get >/dev/null || die "apt-get is needed: the peers come from Debian's packages"
    say "downloading ${packages[*]} into $peers"
    rm -rf -- "${peers:?}"
    mkdir -p -- "$peers/debs/partial" "$root"
    # What the machine has already is not downloaded; it is used where it is.
    fetch || { as_root apt-get update -qq && fetch; } || die "cannot download ${packages[*]}"
    local deb
    for deb in "$peers"/debs/*.deb; do
        if [[ -e $deb ]]; then dpkg -x "$deb" "$root"; fi
    done
    for name in redis memcached postgresql; do program "$name" >/dev/null; done
    rm -rf -- "$peers/debs"
    touch "$peers/done"
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

fetch() {
    apt-get install --download-only --yes --quiet=2 --no-install-recommends \
        -o Debug::NoLocking=1 -o Dir::Cache::archives="$peers/debs" "${packages[@]}" >/dev/null
}

# Prints the path of a server, unpacked or installed.
program() {
    local place found
    for place in "$root" ''; do
        case $1 in
        redis) found=$(compgen -G "$place/usr/bin/redis-server") || continue ;;
        memcached) found=$(compgen -G "$place/usr/bin/memcached") || continue ;;
        postgresql) found=$(compgen -G "$place/usr/lib/postgresql/*/bin/postgres" | sort -V | tail -n 1) || continue ;;
        *) misuse "unknown peer '$1', see --help" ;;
        esac
        # The link of a package may lead to what another package has.
        if [[ -n $found && -x $found ]]; then
            echo "$found"
            return
        fi
    done
    die "no program of $1: scripts/peers.sh install"
}

libraries() { echo "$1/usr/lib/$(uname -m)-linux-gnu"; }

serve() {
    local name=$1 data=$2 address=$3 port=$4 server
    server=$(program "$name")
    mkdir -p -- "$data"
    LD_LIBRARY_PATH=$(libraries "$root")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    case $name in
    redis)
        exec "$server" --bind "$address" --port "$port" --dir "$data" --save '' --appendonly no \
            --protected-mode no --daemonize no
        ;;
    memcached)
        local user=()
        if ((EUID == 0)); then user=(-u nobody); fi
        exec "$server" -l "$address" -p "$port" -U 0 -t 1 -m 64 "${user[@]}"
        ;;
    postgresql) serve_postgresql "$(dirname -- "$server")" "$data" "$address" "$port" ;;
    esac
}

serve_postgresql() {
    local bin=$1 data=$2 address=$3 port=$4 as_user=()
    if ((EUID == 0)); then
        as_user=(setpriv --reuid=nobody --regid=nogroup --clear-groups --)
        # What lies in a folder of root's is copied to where nobody can read it.
        if ! "${as_user[@]}" test -x "$bin/initdb"; then
            cp -a -- "$root/usr" "$data/usr"
            chmod 755 "$data"
            bin=$data/usr/${bin#"$root/usr/"}
            LD_LIBRARY_PATH=$(libraries "$data")
            "${as_user[@]}" test -x "$bin/initdb" || die "nobody cannot run what is in $root, nor in $data"
        fi
        mkdir -p -- "$data/pg"
        chown nobody:nogroup "$data/pg"
        chmod 711 "$data"
    fi
    cd /
    "${as_user[@]}" "$bin/initdb" --pgdata="$data/pg" --username=postgres --auth=trust --locale=C >&2
    echo "host all all $address/24 trust" >>"$data/pg/pg_hba.conf"
    exec "${as_user[@]}" "$bin/postgres" -D "$data/pg" -p "$port" \
        -c "listen_addresses=$address" -c "unix_socket_directories=" -c max_connections=64
}

main() {
    local command=${1:---help}
    shift || true
    case $command in
    install) install ;;
    serve)
        (($# == 4)) || misuse "serve needs a name, a directory, an address and a port"
        serve "$@"
        ;;
    -h | --help) usage ;;
    *) misuse "unknown command '$command', see --help" ;;
    esac
}

main "$@"
