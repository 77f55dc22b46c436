#!/usr/bin/env bash
# Tests scripts/tune-host.sh on made-up trees of /proc and /sys, and as root also on the queues of a real interface
# in a network namespace of its own. Prints one line of JSON: for each test how many checks held. Changes nothing
# of this host.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

script=$ROOT/scripts/tune-host.sh
temporary=$(mktemp -d "${TMPDIR:-/tmp}/tune-host.XXXXXX")
trap 'rm -rf -- "$temporary"' EXIT

# --- Checks -----------------------------------------------------------------------------------------------
test='' held=0 missed=0
names=() counts=() failed=()

# WHAT GOT WANTED
same() {
    if [[ $2 == "$3" ]]; then
        held=$((held + 1))
    else
        missed=$((missed + 1))
        say "$test: $1 is '$2' and should be '$3'"
    fi
}

# WHAT TEXT PART
has() {
    if [[ $2 == *"$3"* ]]; then
        held=$((held + 1))
    else
        missed=$((missed + 1))
        say "$test: $1 should hold '$3': $2"
    fi
}

# Runs the script on the tree; leaves its output in `output` and its exit code in `status`.
tune() {
    status=0
    output=$("$script" --root "$tree" --state "$tree.state" "$@" 2>&1) || status=$?
}

# A file of the tree, and all of them.
value() { cat -- "$tree$1"; }
everything() { (cd -- "$tree" && find . -type f -print0 | sort -z | xargs -0 grep -H ''); }

# --- Trees ------------------------------------------------------------------------------------------------
put() { mkdir -p -- "$(dirname -- "$tree$1")" && printf '%s\n' "$2" >"$tree$1"; }

# A host of four cores with a card of two queues, a second card and a disk.
plant() {
    local core queue irq net=/proc/sys/net/core
    tree=$temporary/$test
    put /proc/sys/kernel/random/boot_id 0f3c-first
    put /proc/cmdline 'console=ttyS0 quiet'
    for core in 0 1 2 3; do
        put "/sys/devices/system/cpu/cpu$core/cpufreq/scaling_governor" schedutil
    done
    mkdir -p -- "$tree/sys/class/net/eth0" "$tree/sys/devices/pci0/0000:00:05.0/msi_irqs"
    ln -s "$tree/sys/devices/pci0/0000:00:05.0" "$tree/sys/class/net/eth0/device"
    for irq in 30 31 32; do put "/sys/devices/pci0/0000:00:05.0/msi_irqs/$irq" msix; done
    for irq in 30 31 32 33 34; do put "/proc/irq/$irq/smp_affinity_list" 0-3; done
    put /proc/interrupts '            CPU0       CPU1       CPU2       CPU3
 30:          0          0          0          0 PCI-MSIX-0000:00:05.0   0-edge      ena-mgmnt@pci:0000:00:05.0
 31:         12          0          0          7 PCI-MSIX-0000:00:05.0   1-edge      eth0-Tx-Rx-0
 32:          0         99          0          0 PCI-MSIX-0000:00:05.0   2-edge      eth0-Tx-Rx-1
 33:          0         99          0          0 PCI-MSIX-0000:00:06.0   0-edge      nvme0q1
 34:          0         99          0          0 PCI-MSIX-0000:00:07.0   0-edge      veth0-TxRx-0
LOC:    2139991    2356582   23565821    2356582   Local timer interrupts'
    for queue in 0 1; do
        put "/sys/class/net/eth0/queues/rx-$queue/rps_cpus" 00000000,0000000f
        put "/sys/class/net/eth0/queues/rx-$queue/rps_flow_cnt" 4096
        put "/sys/class/net/eth0/queues/tx-$queue/xps_cpus" 00000000,00000003
    done
    put $net/rmem_max 212992
    put $net/wmem_max 16777216
    put $net/netdev_max_backlog 1000
    put $net/busy_read 0
    put $net/busy_poll 0
    put $net/rps_sock_flow_entries 32768
    put /sys/kernel/mm/transparent_hugepage/enabled '[always] madvise never'
}

host=(--interface eth0 --cores '2,3')

# --- Tests ------------------------------------------------------------------------------------------------
test_shows_and_changes_nothing() {
    local before
    before=$(everything)
    tune "${host[@]}"
    same code "$status" 0
    has output "$output" '/proc/irq/31/smp_affinity_list: 0-3 -> 2 ('
    has output "$output" '/proc/sys/net/core/rmem_max: 212992 -> 8388608 ('
    has output "$output" 'as wanted: /proc/sys/net/core/wmem_max: 16777216 ('
    has output "$output" 'isolcpus=managed_irq,domain,2,3 nohz_full=2,3 rcu_nocbs=2,3 irqaffinity=0,1'
    same tree "$(everything)" "$before"
    same record "$(ls -- "$tree.state" 2>/dev/null || true)" ''
    tune --check "${host[@]}"
    same 'code of --check' "$status" 1
    same tree "$(everything)" "$before"
}

test_applies_and_takes_back() {
    local before after record
    before=$(everything)
    tune --apply "${host[@]}"
    same code "$status" 0
    same 'interrupt of queue 0' "$(value /proc/irq/31/smp_affinity_list)" 2
    same 'interrupt of queue 1' "$(value /proc/irq/32/smp_affinity_list)" 3
    same 'interrupt of no queue' "$(value /proc/irq/30/smp_affinity_list)" 0-3
    same 'interrupt of a disk' "$(value /proc/irq/33/smp_affinity_list)" 0-3
    same 'interrupt of another card' "$(value /proc/irq/34/smp_affinity_list)" 0-3
    same RPS "$(value /sys/class/net/eth0/queues/rx-1/rps_cpus)" 0
    same RFS "$(value /sys/class/net/eth0/queues/rx-1/rps_flow_cnt)" 0
    same 'XPS of queue 0' "$(value /sys/class/net/eth0/queues/tx-0/xps_cpus)" 4
    same 'XPS of queue 1' "$(value /sys/class/net/eth0/queues/tx-1/xps_cpus)" 8
    same 'governor of a shard' "$(value /sys/devices/system/cpu/cpu2/cpufreq/scaling_governor)" performance
    same 'governor of another core' "$(value /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor)" schedutil
    same rmem_max "$(value /proc/sys/net/core/rmem_max)" 8388608
    same 'wmem_max, larger before' "$(value /proc/sys/net/core/wmem_max)" 16777216
    same busy_poll "$(value /proc/sys/net/core/busy_poll)" 50
    same 'huge pages' "$(value /sys/kernel/mm/transparent_hugepage/enabled)" madvise
    tune --check "${host[@]}"
    same 'code of --check' "$status" 0
    after=$(everything) record=$(<"$tree.state")
    tune --apply "${host[@]}"
    same 'code of the second --apply' "$status" 0
    has output "$output" 'nothing to change'
    same 'tree after the second --apply' "$(everything)" "$after"
    same record "$(<"$tree.state")" "$record"
    tune --undo
    same 'code of --undo' "$status" 0
    # A switch reads in the kernel as a choice of words, in the tree as what was written.
    put /sys/kernel/mm/transparent_hugepage/enabled '[always] madvise never'
    same 'tree after --undo' "$(everything)" "$before"
    same record "$(ls -- "$tree".state* 2>/dev/null || true)" ''
    tune --undo
    same 'code of the second --undo' "$status" 1
}

test_keeps_the_first_value_when_others_change_it() {
    tune --apply --interface eth0
    put /proc/sys/net/core/busy_poll 7
    tune --check "${host[@]}"
    same 'code of --check' "$status" 1
    tune --apply "${host[@]}"
    same busy_poll "$(value /proc/sys/net/core/busy_poll)" 50
    tune --undo
    same busy_poll "$(value /proc/sys/net/core/busy_poll)" 0
    same 'interrupt, from the second --apply' "$(value /proc/irq/31/smp_affinity_list)" 0-3
    same 'RPS, from the first' "$(value /sys/class/net/eth0/queues/rx-0/rps_cpus)" 00000000,0000000f
}

# The kernel refuses what is written to the one file, and gives back another value than was written to the other.
test_a_failure_in_the_middle_takes_everything_back() {
    local before record file
    for file in /proc/sys/kernel/ngroups_max /proc/self/comm; do
        ln -sf "$file" "$tree/proc/sys/net/core/rps_sock_flow_entries"
        before=$(everything)
        tune --apply "${host[@]}"
        same code "$status" 1
        has output "$output" 'cannot set /proc/sys/net/core/rps_sock_flow_entries'
        has output "$output" 'put back: 14 setting(s)'
        same tree "$(everything)" "$before"
        same record "$(ls -- "$tree".state* 2>/dev/null || true)" ''
    done
    # With a record from before, that record is left.
    rm -- "$tree/proc/sys/net/core/rps_sock_flow_entries"
    tune --apply --interface eth0
    ln -s /proc/sys/kernel/ngroups_max "$tree/proc/sys/net/core/rps_sock_flow_entries"
    before=$(everything) record=$(<"$tree.state")
    same 'values in the record' "$(($(wc -l <"$tree.state") - 1))" 9
    tune --apply "${host[@]}"
    same code "$status" 1
    same tree "$(everything)" "$before"
    same record "$(<"$tree.state")" "$record"
}

# A `cat` that sends a signal to the script as soon as a value has changed.
signalling_cat() {
    mkdir -p -- "$tree.bin"
    cat >"$tree.bin/cat" <<END
#!/bin/sh
if [ ! -e '$tree.sent' ] && grep -qx 50 '$tree/proc/sys/net/core/busy_read'; then
    touch '$tree.sent'
    kill -$1 "\$(/bin/cat '$tree.pid')"
fi
exec /bin/cat "\$@"
END
    chmod +x -- "$tree.bin/cat"
    rm -f -- "$tree.sent"
}

test_a_signal_in_the_middle_loses_nothing() {
    local before signal status=0
    before=$(everything)
    for signal in TERM KILL; do
        signalling_cat $signal
        status=0
        # shellcheck disable=SC2016
        {
            PATH=$tree.bin:$PATH bash -c 'echo $$ >"$1.pid" && shift && exec "$@"' _ "$tree" \
                "$script" --root "$tree" --state "$tree.state" --apply "${host[@]}" >/dev/null || status=$?
        } 2>/dev/null
        same "signal $signal was sent" "$(ls -- "$tree.sent")" "$tree.sent"
        # The one puts back by itself, the other leaves the record to --undo.
        if [[ $signal == TERM ]]; then
            same code "$status" 143
        else
            same code "$status" 137
            same 'a value that was changed' "$(value /proc/sys/net/core/rmem_max)" 8388608
            tune --undo
            same 'code of --undo' "$status" 0
        fi
        put /sys/kernel/mm/transparent_hugepage/enabled '[always] madvise never'
        same tree "$(everything)" "$before"
        same record "$(ls -- "$tree.state" 2>/dev/null || true)" ''
    done
}

test_bad_arguments_change_nothing() {
    local before arguments
    before=$(everything)
    while read -r arguments; do
        # shellcheck disable=SC2086
        tune --apply $arguments
        same "code of '$arguments'" "$status" 2
        same "lines of '$arguments'" "$(wc -l <<<"$output")" 1
    done <<'END'
--interface eth9
--interface ../net/eth0
--interface .
--interface
--cores 4
--cores 2,2
--cores 3-2
--cores 1-3,2
--cores 2,
--cores a
--cores -1
--cores 99999999999999999999
--root
--state
--undo
--what
eth0
END
    same tree "$(everything)" "$before"
    same record "$(ls -- "$tree.state" 2>/dev/null || true)" ''
}

test_says_what_is_not_there() {
    rm -r -- "$tree"/sys/devices/system/cpu/cpu*/cpufreq "$tree/sys/kernel" "$tree/proc/interrupts" \
        "$tree/sys/class/net/eth0/queues/tx-1"
    tune --apply "${host[@]}"
    same code "$status" 0
    has output "$output" 'skipped: governor of core 2'
    has output "$output" 'skipped: eth0 has no interrupts of queues'
    has output "$output" 'skipped: XPS of eth0'
    has output "$output" 'skipped: /sys/kernel/mm/transparent_hugepage/enabled'
    same rmem_max "$(value /proc/sys/net/core/rmem_max)" 8388608
    tune
    has output "$output" 'without --interface'
    has output "$output" 'without --cores'
    put /proc/4711/comm irqbalance
    tune
    has output "$output" 'irqbalance runs'
    tune --interface eth0 --cores 1
    has output "$output" 'ethtool -L eth0 combined 1'
}

test_a_record_of_an_earlier_boot_is_dropped() {
    local before
    tune --apply "${host[@]}"
    put /proc/sys/kernel/random/boot_id 77aa-second
    put /proc/irq/31/smp_affinity_list 1
    before=$(everything)
    tune --undo
    same code "$status" 0
    has output "$output" 'earlier boot'
    same tree "$(everything)" "$before"
    same record "$(ls -- "$tree.state" 2>/dev/null || true)" ''
    tune --apply "${host[@]}"
    put /proc/sys/kernel/random/boot_id 88bb-third
    put /proc/irq/31/smp_affinity_list 0
    tune --apply "${host[@]}"
    tune --undo
    same 'interrupt' "$(value /proc/irq/31/smp_affinity_list)" 0
}

test_a_foreign_record_writes_nothing() {
    local before line
    put /proc/sys/kernel/core_pattern core
    put /etc/passwd root
    before=$(everything)
    for line in $'/proc/sys/kernel/core_pattern\tx' $'/etc/passwd\tx' $'/proc/sys/net/core/../../kernel/core_pattern\tx' \
        $'/sys/class/net/../queues/rx-0/rps_cpus\tx' $'/proc/sys/net/core/busy_poll\t5 5' 'nothing'; do
        printf 'boot 0f3c-first\n/proc/sys/net/core/busy_read\t9\n%s\n' "$line" >"$tree.state"
        tune --undo
        same "code with $line" "$status" 1
        same tree "$(everything)" "$before"
    done
    echo 'something else' >"$tree.state"
    tune --apply "${host[@]}"
    same code "$status" 1
    same 'a file that is no record' "$(<"$tree.state")" 'something else'
    same tree "$(everything)" "$before"
}

test_knows_the_names_of_drivers() {
    local name core irq=50 rows=''
    # virtio: the interrupts belong to the device above.
    mkdir -p -- "$tree/sys/devices/pci0/0000:00:09.0/msi_irqs" "$tree/sys/devices/pci0/0000:00:09.0/virtio2"
    mkdir -p -- "$tree/sys/class/net/enp9/queues/rx-0" "$tree/sys/class/net/enp9/queues/tx-0"
    ln -s "$tree/sys/devices/pci0/0000:00:09.0/virtio2" "$tree/sys/class/net/enp9/device"
    local expected=(virtio2-config:0-3 virtio2-input.0:2 virtio2-output.0:2 virtio2-input.1:3 i40e-enp9-TxRx-2:2
        mlx5_comp3@pci:0000:00:09.0:3 mlx5_async0@pci:0000:00:09.0:0-3 ens5-Tx-Rx-08:2 enp9-rx-1:3 enp9:2)
    for name in "${expected[@]}"; do
        rows+=" $irq:   0   0   0   0  PCI-MSIX  1-edge   ${name%:*}"$'\n'
        put "/proc/irq/$irq/smp_affinity_list" 0-3
        put "/sys/devices/pci0/0000:00:09.0/msi_irqs/$irq" msix
        irq=$((irq + 1))
    done
    put /proc/interrupts "$rows"
    tune --apply --interface enp9 --cores 2,3
    irq=50
    for name in "${expected[@]}"; do
        core=${name##*:}
        same "core of ${name%:*}" "$(value "/proc/irq/$irq/smp_affinity_list")" "$core"
        irq=$((irq + 1))
    done
}

test_masks_of_many_cores() {
    local core
    for core in 31 32 33 70; do mkdir -p -- "$tree/sys/devices/system/cpu/cpu$core"; done
    tune --apply --interface eth0 --cores 31,32-33,70
    same code "$status" 0
    # Four shards on two queues: each queue sends for two.
    same 'XPS of queue 0' "$(value /sys/class/net/eth0/queues/tx-0/xps_cpus)" 2,80000000
    same 'XPS of queue 1' "$(value /sys/class/net/eth0/queues/tx-1/xps_cpus)" 40,00000001,00000000
    tune --check --interface eth0 --cores 31-33,70
    same 'code of --check' "$status" 0
    put /sys/class/net/eth0/queues/tx-0/xps_cpus 00000000,00000002,80000000
    tune --check --interface eth0 --cores 31-33,70
    same 'code of --check with leading zeros' "$status" 0
}

test_asks_for_the_buffers_of_the_sequencer() {
    local source
    source=$(grep -rhoP 'SOCKET_BUFFER_BYTES: usize = \K[0-9_< ]+' "$ROOT/sequencer-fast/src")
    same 'socket buffer' "$(sed -n 's/^socket_buffer=//p' "$script")" "$((${source//_/}))"
}

# Namespaces with a veth pair of two queues take root, and a container may refuse them nevertheless.
pair='mount -t sysfs none /sys && ip link add tune0 numtxqueues 2 numrxqueues 2 type veth peer name tune1'
can_make_a_pair() { unshare --net --mount bash -c "$pair" 2>/dev/null; }

# The kernel's own files: a veth pair of two queues in namespaces of its own.
test_on_the_queues_of_a_real_interface() {
    local result
    mkdir -p -- "$tree/sys/devices/system/cpu/cpu1"
    rm -r -- "$tree/sys/class/net"
    # shellcheck disable=SC2016
    result=$(unshare --net --mount bash -c '
        set -euo pipefail
        eval "$3"
        ln -s /sys/class/net "$2/sys/class/net"
        echo 3 >/sys/class/net/tune0/queues/rx-0/rps_cpus
        echo 1 >/sys/class/net/tune0/queues/tx-1/xps_cpus
        queues() { head -n 9 /sys/class/net/tune0/queues/*/{rps_cpus,rps_flow_cnt,xps_cpus} 2>/dev/null | md5sum; }
        run() { "$1" --root "$2" --state "$2.state" --interface tune0 --cores 0,1 "$3" >&2 || true; }
        before=$(queues)
        run "$1" "$2" --apply
        cat /sys/class/net/tune0/queues/{rx-0/rps_cpus,tx-0/xps_cpus,tx-1/xps_cpus} | sed "s/^[0,]*\(.\)/\1/" | paste -sd " "
        [[ $(queues) != "$before" ]] && echo changed
        run "$1" "$2" --undo
        [[ $(queues) == "$before" ]] && echo back' _ "$script" "$tree" "$pair" 2>"$tree.log") || result+=" failed: $(<"$tree.log")"
    same 'what the kernel says' "$result" $'0 1 2\nchanged\nback'
}

# ----------------------------------------------------------------------------------------------------------
run_one() {
    test=$1 held=0 missed=0
    plant
    "test_$test"
    names+=("$test") counts+=("$held")
    if ((missed > 0 || held == 0)); then failed+=("\"$test\""); fi
}

main() {
    local name i tests='' kernel=true
    for name in $(compgen -A function test_); do
        if [[ $name == test_on_the_queues_of_a_real_interface ]] && ! can_make_a_pair; then
            say "no namespace with a veth pair can be made here: nothing is tried on a real interface"
            kernel=false
            continue
        fi
        run_one "${name#test_}"
    done
    for i in "${!names[@]}"; do tests+=",\"${names[i]}\":${counts[i]}"; done
    printf '{"point":"tune-host","tests":{%s},"real_interface":%s,"failed":{"value":[%s],"bar":[]},"ok":%s}\n' \
        "${tests#,}" $kernel "$(IFS=, && echo "${failed[*]}")" "$( ((${#failed[@]})) && echo false || echo true)"
    ((${#failed[@]} == 0))
}

main "$@"
