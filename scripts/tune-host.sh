#!/usr/bin/env bash
# Tunes a host that a sequencer has to itself: shows, applies, checks and takes back. See --help.
# Needs bash and coreutils, and no other file of the repository, so that it can be copied to the host.
set -euo pipefail

usage() {
    cat <<'END'
Usage: tune-host.sh [--apply | --undo | --check] [--interface NAME] [--cores LIST] [--state FILE] [--root DIR]

Without an action it prints what it would change, one line a setting, and changes nothing.

  --apply           change it, and record the old values; if one cannot be changed, all are put back
  --undo            put every recorded value back, and remove the record
  --check           print the same lines, and exit with 1 if a setting differs from what is wanted
  --interface NAME  network interface at which requests arrive; without it none is touched
  --cores LIST      cores of the shards in their order, as in 2,3 or 2-3 (the setting sequencer.cores without the
                    core of the checkpoint thread); without it no core is touched
  --state FILE      where old values are recorded [default: /var/lib/stripelog/tune-host.state]
  --root DIR        look for /proc and /sys below this directory: for tests

The values live until the next boot; a record of an earlier boot is worth nothing and is dropped.
Exit codes: 0 done, 1 something differs (--check) or failed, 2 wrong arguments.
END
}

# What the sequencer asks for each socket: SOCKET_BUFFER_BYTES in sequencer-fast/src/net/socket.rs.
socket_buffer=8388608

action=show interface='' root='' state=/var/lib/stripelog/tune-host.state
cores=()

say() { printf '%s\n' "$*"; }
warn() { printf 'tune-host.sh: %s\n' "$*" >&2; }
die() { warn "$*" && exit 1; }
misused() { warn "$*, see --help" && exit 2; }

parse_arguments() {
    local list=''
    while (($#)); do
        case $1 in
        --apply | --undo | --check)
            [[ $action == show ]] || misused "--$action and $1 exclude each other"
            action=${1#--}
            ;;
        --interface | --cores | --state | --root)
            [[ -n ${2:-} ]] || misused "$1 needs a value"
            case $1 in
            --interface) interface=$2 ;;
            --cores) list=$2 ;;
            --state) state=$2 ;;
            --root) root=${2%/} ;;
            esac
            shift
            ;;
        -h | --help) usage && exit 0 ;;
        *) misused "unknown argument '$1'" ;;
        esac
        shift
    done
    if [[ -n $list ]]; then parse_cores "$list"; fi
    if [[ -n $interface ]]; then
        [[ $interface =~ ^[A-Za-z0-9_.@:-]+$ && $interface != .* && -d $root/sys/class/net/$interface ]] ||
            misused "there is no interface '$interface'"
    fi
}

parse_cores() {
    local part core first last
    local -A seen=()
    while IFS= read -r -d , part; do
        [[ $part =~ ^([0-9]{1,4})(-([0-9]{1,4}))?$ ]] || misused "'$1' is not a list of cores"
        first=$((10#${BASH_REMATCH[1]})) last=$((10#${BASH_REMATCH[3]:-${BASH_REMATCH[1]}}))
        ((first <= last)) || misused "'$part' is not a range of cores"
        for ((core = first; core <= last; core++)); do
            [[ -d $root/sys/devices/system/cpu/cpu$core ]] || misused "there is no core $core"
            [[ -z ${seen[$core]:-} ]] || misused "core $core is listed twice"
            seen[$core]=yes
            cores+=("$core")
        done
    done <<<"$1,"
}

# --- What is wanted ---------------------------------------------------------------------------------------
# Files without the root, their kinds, wanted values, and why.
paths=() kinds=() wanted=() reasons=()
notes=()

want() {
    paths+=("$1") kinds+=("$2") wanted+=("$3") reasons+=("$4")
}

note() { notes+=("$*"); }

# The mask of cores as the kernel writes it: groups of 32 bits, the highest first.
mask_of() {
    local core group text=''
    local words=(0)
    for core in "$@"; do
        while ((${#words[@]} <= core / 32)); do words+=(0); done
        words[core / 32]=$((words[core / 32] | 1 << core % 32))
    done
    for ((group = ${#words[@]} - 1; group >= 0; group--)); do
        printf -v text '%s%08x,' "$text" "${words[group]}"
    done
    text=${text%,}
    echo "${text#"${text%%[!0]*}"}"
}

# Cores that are not those of shards, as a list.
other_cores() {
    local directory core list=''
    for directory in "$root"/sys/devices/system/cpu/cpu[0-9]*; do
        core=${directory##*/cpu}
        if [[ " ${cores[*]} " != *" $core "* ]]; then list+=$core$'\n'; fi
    done
    sort -n <<<"${list%$'\n'}" | paste -sd ,
}

# Prints number and name of each interrupt of the interface, by its device or else by its name.
interrupts() {
    local device=$root/sys/class/net/$interface/device line irq name parent=''
    local -A own=()
    for irq in "$device"/msi_irqs/* "$device"/../msi_irqs/*; do
        if [[ -e $irq ]]; then own[${irq##*/}]=yes; fi
    done
    if [[ -L $device ]]; then parent=$(basename -- "$(readlink -- "$device")"); fi
    [[ -r $root/proc/interrupts ]] || return 0
    while read -r line; do
        [[ $line =~ ^([0-9]+):.*[[:space:]]([^[:space:]]+)$ ]] || continue
        irq=${BASH_REMATCH[1]} name=${BASH_REMATCH[2]}
        if [[ -n ${own[$irq]:-} || $name == "$interface" || -$name == *-"$interface"-* ]] ||
            [[ -n $parent && ($name == "$parent"-* || $name == *"@pci:$parent") ]]; then
            echo "$irq $name"
        fi
    done <"$root/proc/interrupts"
}

# Prints the queue that an interrupt serves, from its name: eth0-TxRx-3, ens5-Tx-Rx-3, virtio2-input.3,
# mlx5_comp3@pci:… Fails for those of a device that serve no queue.
queue_of() {
    local name=${1%%@*}
    if [[ ${name,,} =~ (txrx|rxtx|rx|tx|input|output|comp)[-._]?([0-9]{1,4})$ ]]; then
        echo $((10#${BASH_REMATCH[2]}))
    elif [[ $name == "$interface" ]]; then
        echo 0
    else
        return 1
    fi
}

want_interrupts() {
    local irq name queue found=no others=''
    while read -r irq name; do
        if queue=$(queue_of "$name"); then
            found=yes
            want "/proc/irq/$irq/smp_affinity_list" text "${cores[queue % ${#cores[@]}]}" \
                "interrupt $name of queue $queue, on the core of its shard"
        else
            others+=" $name"
        fi
    done < <(interrupts)
    if [[ $found == no ]]; then
        note "skipped: $interface has no interrupts of queues here (a virtual interface? give the one below it)"
    fi
    if [[ -n $others ]]; then note "left alone: interrupts that serve no queue:$others"; fi
}

# Prints the numbers of the interface's queues of one kind (rx, tx), in order.
queues() {
    local directory
    for directory in "$root/sys/class/net/$interface/queues/$1"-*; do
        if [[ -d $directory ]]; then echo "${directory##*-}"; fi
    done | sort -n
}

want_receive_queues() {
    local queue base
    for queue in $(queues rx); do
        base=/sys/class/net/$interface/queues/rx-$queue
        want "$base/rps_cpus" mask 0 "RPS off: the core that was interrupted also receives"
        want "$base/rps_flow_cnt" text 0 "RFS off: as RPS"
    done
}

# A core sends through the queue whose interrupt it takes. Where there are fewer queues, cores share them.
want_send_queues() {
    local queue shard count mine
    count=$(queues tx | wc -l)
    if ((count < 2)); then
        note "skipped: XPS of $interface, it has one queue to send by"
        return
    fi
    for queue in $(queues tx); do
        mine=()
        for ((shard = 0; shard < ${#cores[@]}; shard++)); do
            if ((shard == queue % ${#cores[@]} || shard % count == queue)); then mine+=("${cores[shard]}"); fi
        done
        want "/sys/class/net/$interface/queues/tx-$queue/xps_cpus" mask "$(mask_of "${mine[@]}")" \
            "XPS: a shard sends by the queue of its own core"
    done
}

want_interface() {
    if [[ -z $interface ]]; then
        note "skipped: interrupts, RPS and XPS, without --interface"
        return
    fi
    want_receive_queues
    if ((${#cores[@]} == 0)); then
        note "skipped: interrupts and XPS of $interface, without --cores"
        return
    fi
    want_interrupts
    want_send_queues
    local count
    count=$(queues rx | wc -l)
    if ((count != ${#cores[@]})); then
        note "by hand: $interface has $count receive queue(s) for ${#cores[@]} shard(s):" \
            "ethtool -L $interface combined ${#cores[@]} (where the driver can), then this script again"
    fi
}

want_cores() {
    if ((${#cores[@]} == 0)); then
        note "skipped: governor and boot line, without --cores"
        return
    fi
    local core others list base=/sys/devices/system/cpu
    for core in "${cores[@]}"; do
        if [[ -d $root$base/cpu$core/cpufreq ]]; then
            want "$base/cpu$core/cpufreq/scaling_governor" text performance \
                "no slow clock when a request comes after a pause"
        else
            note "skipped: governor of core $core, no cpufreq here (a virtual machine, or the firmware decides)"
        fi
    done
    list=$(IFS=, && echo "${cores[*]}") others=$(other_cores)
    if [[ -z $others ]]; then
        note "boot line: none, no core would be left for the system"
        return
    fi
    local line="isolcpus=managed_irq,domain,$list nohz_full=$list rcu_nocbs=$list irqaffinity=$others"
    if [[ " $(cat -- "$root/proc/cmdline" 2>/dev/null || true) " == *" $line "* ]]; then
        note "boot line: as wanted ($line)"
    else
        note "boot line, for the boot loader, never applied here: $line"
    fi
    note "C-states: a shard that waits by block sleeps deeply; processor.max_cstate=1 in the boot line limits" \
        "that, and one that spins never sleeps"
}

want_system() {
    local net=/proc/sys/net/core
    want $net/rmem_max least $socket_buffer "each shard's socket asks for 8 MiB"
    want $net/wmem_max least $socket_buffer "each shard's socket asks for 8 MiB"
    want $net/netdev_max_backlog least 16384 "packets that wait for a core where no queue keeps them"
    want $net/busy_read least 50 "us that a receive looks at the queue before it gives up"
    want $net/busy_poll least 50 "us that poll looks at the queue before it sleeps"
    want $net/rps_sock_flow_entries text 0 "RFS off"
    want /sys/kernel/mm/transparent_hugepage/enabled pages madvise "no huge pages behind the back of a program"
}

irqbalance_note() {
    local file name
    for file in "$root"/proc/[0-9]*/comm; do
        name=''
        { read -r name <"$file"; } 2>/dev/null || true
        if [[ $name == irqbalance ]]; then
            note "irqbalance runs and moves interrupts away again: systemctl disable --now irqbalance"
            return
        fi
    done
}

# --- Values -----------------------------------------------------------------------------------------------
# Prints the value of a file as it would have to be written. Fails if there is none.
value_of() {
    local text
    text=$(cat -- "$root$1" 2>/dev/null) || return 1
    if [[ $1 == */transparent_hugepage/enabled && $text =~ \[([a-z]+)\] ]]; then text=${BASH_REMATCH[1]}; fi
    [[ -n $text && $text != *$'\n'* ]] && printf '%s\n' "$text"
}

# A mask without what depends on the number of cores that the kernel was built for.
plain_mask() {
    local text=${1//,/}
    text=${text#"${text%%[!0]*}"}
    echo "${text:-0}"
}

# Whether a value is as good as the wanted one: KIND VALUE WANTED.
satisfies() {
    case $1 in
    mask) [[ $(plain_mask "${2,,}") == "$(plain_mask "$3")" ]] ;;
    least) [[ $2 =~ ^[0-9]{1,18}$ ]] && ((10#$2 >= $3)) ;;
    pages) [[ $2 != always ]] ;;
    *) [[ $2 == "$3" ]] ;;
    esac
}

# Writes a value and looks whether it stays: KIND FILE VALUE.
write_value() {
    local now
    { printf '%s\n' "$3" >"$root$2"; } 2>/dev/null || return 1
    now=$(value_of "$2") && satisfies "$1" "$now" "$3"
}

# Prints the lines, and leaves the indexes of the settings that differ in `differing`, their values in `before`.
differing=() before=()
compare() {
    local i now line
    for i in "${!paths[@]}"; do
        if ! now=$(value_of "${paths[i]}"); then
            say "skipped: ${paths[i]} cannot be read here (${reasons[i]})"
        elif satisfies "${kinds[i]}" "$now" "${wanted[i]}"; then
            say "as wanted: ${paths[i]}: $now (${reasons[i]})"
        else
            say "${paths[i]}: $now -> ${wanted[i]} (${reasons[i]})"
            differing+=("$i") before[i]=$now
        fi
    done
    for line in "${notes[@]}"; do say "$line"; done
}

# --- The record -------------------------------------------------------------------------------------------
# A line that tells the boot, then one line a value: file, tab, value before the first --apply.
boot() { cat -- "$root/proc/sys/kernel/random/boot_id" 2>/dev/null || echo unknown; }

recorded_paths=() recorded_values=()
read_record() {
    local path value first=''
    [[ -e $state ]] || return 0
    exec {record}<"$state" || die "cannot read '$state'"
    read -r first <&"$record" || true
    if [[ $first != "boot "* ]]; then die "'$state' is not a record of this script"; fi
    if [[ $first != "boot $(boot)" ]]; then
        say "the record is of an earlier boot, nothing of it is in force: $state"
    else
        while IFS=$'\t' read -r path value <&"$record"; do
            known "$path" "$value" || die "'$state' is not a record of this script: '$path'"
            recorded_paths+=("$path") recorded_values+=("$value")
        done
    fi
    exec {record}<&-
}

# Whether a recorded line is one that this script may write. Others may own the directory of the record.
known() {
    local name='[A-Za-z0-9_@:-][A-Za-z0-9_.@:-]*'
    [[ $2 =~ ^[A-Za-z0-9_,-]+$ ]] || return 1
    [[ $1 =~ ^/proc/irq/[0-9]+/smp_affinity_list$ ]] ||
        [[ $1 =~ ^/proc/sys/net/core/[a-z_]+$ ]] ||
        [[ $1 =~ ^/sys/class/net/$name/queues/[rt]x-[0-9]+/(rps_cpus|rps_flow_cnt|xps_cpus)$ ]] ||
        [[ $1 =~ ^/sys/devices/system/cpu/cpu[0-9]+/cpufreq/scaling_governor$ ]] ||
        [[ $1 == /sys/kernel/mm/transparent_hugepage/enabled ]]
}

# Replaces the record by what is in `recorded_…`, as a whole; by nothing if that is empty.
write_record() {
    local i text draft=$state.$$
    if ((${#recorded_paths[@]} == 0)); then
        rm -f -- "$state"
        return
    fi
    text="boot $(boot)"
    for i in "${!recorded_paths[@]}"; do text+=$'\n'${recorded_paths[i]}$'\t'${recorded_values[i]}; done
    rm -f -- "$draft"
    # noclobber: a link that somebody else has put there is not followed.
    if ! (umask 022 && set -o noclobber && printf '%s\n' "$text" >"$draft") ||
        ! sync -- "$draft" || ! mv -f -- "$draft" "$state"; then
        die "cannot write '$state'"
    fi
}

# --- Actions ----------------------------------------------------------------------------------------------
changed=() kept=0

# Puts back what this run changed, the last first, and the record that was there before. Runs on every way out
# of an --apply that did not end well.
roll_back() {
    local status=$? i at count=0 failed=0
    trap - EXIT
    # A second signal must not end this in the middle.
    trap '' INT TERM HUP
    for ((i = ${#changed[@]} - 1; i >= 0; i--)); do
        at=${changed[i]}
        # The write that failed has changed nothing, as a rule.
        if [[ $(value_of "${paths[at]}") == "${before[at]}" ]]; then continue; fi
        if write_value text "${paths[at]}" "${before[at]}"; then
            count=$((count + 1))
        else
            failed=$((failed + 1))
            warn "cannot put back ${paths[at]}, it was ${before[at]}"
        fi
    done
    warn "what had been changed was put back: $count setting(s)"
    if ((failed == 0)); then
        recorded_paths=("${recorded_paths[@]:0:kept}") recorded_values=("${recorded_values[@]:0:kept}")
        write_record
    else
        warn "the old values are in $state"
    fi
    exit "$status"
}

apply() {
    local i
    if ((${#differing[@]} == 0)); then
        say "nothing to change"
        return
    fi
    mkdir -p -- "$(dirname -- "$state")"
    read_record
    kept=${#recorded_paths[@]}
    for i in "${differing[@]}"; do
        # What was changed since by somebody else is changed again; what is put back stays the first value.
        if [[ " ${recorded_paths[*]} " == *" ${paths[i]} "* ]]; then continue; fi
        known "${paths[i]}" "${before[i]}" || die "${paths[i]} holds '${before[i]}', which cannot be recorded"
        recorded_paths+=("${paths[i]}") recorded_values+=("${before[i]}")
    done
    trap roll_back EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    # Before the first change: whatever ends this run, --undo knows the old values.
    write_record
    for i in "${differing[@]}"; do
        changed+=("$i")
        write_value "${kinds[i]}" "${paths[i]}" "${wanted[i]}" || die "cannot set ${paths[i]} to ${wanted[i]}"
    done
    trap - EXIT INT TERM HUP
    say "changed ${#differing[@]} setting(s); the old values are in $state"
}

undo() {
    local i left_paths=() left_values=()
    [[ -e $state ]] || die "there is nothing to undo: no '$state'"
    read_record
    for ((i = ${#recorded_paths[@]} - 1; i >= 0; i--)); do
        if write_value text "${recorded_paths[i]}" "${recorded_values[i]}"; then
            say "${recorded_paths[i]}: ${recorded_values[i]}"
        else
            warn "cannot put back ${recorded_paths[i]}, it was ${recorded_values[i]}"
            left_paths=("${recorded_paths[i]}" "${left_paths[@]}")
            left_values=("${recorded_values[i]}" "${left_values[@]}")
        fi
    done
    recorded_paths=("${left_paths[@]}") recorded_values=("${left_values[@]}")
    write_record
    ((${#left_paths[@]} == 0)) || die "${#left_paths[@]} value(s) stay recorded in $state"
}

main() {
    parse_arguments "$@"
    if [[ $action == apply || $action == undo ]]; then
        [[ -n $root ]] || ((EUID == 0)) || die "--$action needs root"
    fi
    if [[ $action == undo ]]; then
        undo
        return
    fi
    want_interface
    want_cores
    want_system
    irqbalance_note
    compare
    case $action in
    apply) apply ;;
    check) ((${#differing[@]} == 0)) || die "${#differing[@]} setting(s) differ" ;;
    esac
}

main "$@"
