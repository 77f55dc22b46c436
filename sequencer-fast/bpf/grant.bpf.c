/* A sequencer in the driver hook: grants what can be granted at once, and passes everything else up.
 *
 * What is not surely a plain grant request for this sequencer is passed up before a single byte of it was written
 * (S-9), to the socket of the same port or whomever it is for. What is granted is decided as in user space
 * (sequencer-fast/src/logic), on the same counter, so that the rules hold with both at work:
 *
 *   S-1  the counter is moved by a compare-and-exchange; a closed counter is above every limit
 *   S-2  never past the limit, which is the durable reservation
 *   S-5  never from the deadline on, by the clock that user space looks at, if not for each datagram
 *   S-6  in blocks of lanes that are locked from the look to the answer; whoever finds one locked is passed up
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "frame.h"
#include "grant.h"
#include "lanes.h"
#include "packet.h"

#define MAGIC 0x474f4c53 /* SLOG */
#define VERSION 1
#define KIND_GRANT 1
#define REPLY_BIT 0x80

/* Tries to move the counter, against other cores. */
#define TRIES 4

/* Datagrams of a core that one look at the clock may be for, as many as a driver hands over at once: a shard looks once
 * a batch. */
#define LOOK_DATAGRAMS 63

/* How old such a look may be while the kernel runs. One core counts the ticks for all; where it stands still another one
 * takes over after five of its own (since Linux 5.18), 60 ms where they are rarest (100 a second). */
#define LOOK_AGE_NS 70000000ULL

/* Set before the program is loaded, one program a reign. */
const volatile __u64 LOG[2] = {};
const volatile __u64 EPOCH = 0;  /* 0 before the first */
const volatile __u16 PORT = 0;   /* in the order of the network */
const volatile __u64 SEED = 0;   /* of the places of blocks, a secret */
const volatile __u32 BLOCKS = 1; /* a power of two */

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct state);
} STATE SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct block);
} TABLE SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct counts);
} COUNTS SEC(".maps");

static const __u32 only = 0;

inline_always int pass_up(struct counts *counts, enum up why)
{
    counts->up[why & 7]++;
    return XDP_PASS;
}

/* Stores a word where it is what was expected, and returns what it was. */
inline_always __u64 swap(__u64 *word, __u64 expected, __u64 next)
{
    __u64 found = __sync_val_compare_and_swap(word, expected, next);
    /* Or else the compiler makes a truth value of each use, with a branch. */
    asm volatile("" : "+r"(found));
    return found;
}

/* Everything that was written is seen by whoever takes the lock next. */
inline_always void unlock(struct block *block)
{
#ifdef STORES_IN_ORDER
    asm volatile("" ::: "memory");
    *(volatile __u64 *)&block->lock = 0;
#else
    __sync_lock_test_and_set(&block->lock, 0);
#endif
}

/* Where the block of a client's group of lanes is: as `Table::place` says. */
inline_always __u32 place(__u64 client, __u32 group)
{
    __u64 hash = (client ^ SEED) * 0x9e3779b97f4a7c15ULL;
    hash = (hash ^ (hash >> 32) ^ group) * 0xff51afd7ed558ccdULL;
    return (__u32)(hash >> 32) & (BLOCKS - 1);
}

/* Whether this is a plain grant request without a MAC, and as long as it says. */
inline_always int is_grant(const struct header *header, __u32 bytes)
{
    /* Magic, version, kind, count and flags. */
    __u64 head = *(const __u64 *)header, count = head >> 48 & 0xff;
    return (head & ~(0xffULL << 48)) == (MAGIC | (__u64)VERSION << 32 | (__u64)KIND_GRANT << 40) && count >= 1 &&
           count <= MAX_ENTRIES && bytes == sizeof(*header) + count * sizeof(struct entry) &&
           header->log[0] == LOG[0] && header->log[1] == LOG[1] && !(header->mac[0] | header->mac[1]);
}

/* [S-5] Whether the reign had not run out at the last look at the clock: for this datagram, or for one of the
 * LOOK_DATAGRAMS before it on this core and in the same tick of the kernel. */
inline_always int in_time(struct counts *counts, const struct state *state)
{
    __u64 tick = bpf_jiffies64();
    if (likely(counts->tick == tick && counts->answered < counts->look_at))
        return 1;
    if (bpf_ktime_get_boot_ns() + LOOK_AGE_NS >= *(volatile __u64 *)&state->deadline_ns)
        return 0;
    counts->tick = tick;
    counts->look_at = counts->answered + LOOK_DATAGRAMS + 1;
    return 1;
}

inline_always int above(__u64 tail)
{
    return tail >> 63 ? UP_STOPPED : UP_LIMIT;
}

/* Takes the positions, at most to the limit; below 0, or why it does not. */
inline_always int take(struct state *state, __u64 limit, __u64 tail, __u64 positions, __u64 *first)
{
    __u64 low_water = *(volatile __u64 *)&state->low_water;
    for (int i = 0; i < TRIES; i++) {
        __u64 next = tail + positions;
        /* [S-1] [S-2] A closed counter is above it as well. */
        if (unlikely(next > limit))
            return above(tail);
        if (unlikely(next >= low_water) && swap(&state->low_water, low_water, ~0ULL) == low_water)
            return UP_LIMIT;
        __u64 found = swap(&state->tail, tail, next);
        if (likely(found == tail)) {
            *first = tail;
            return -1;
        }
        tail = found;
        low_water = ~0ULL;
    }
    return UP_BUSY;
}

/* Decides about requests for lanes of a block that is locked, and answers them; below 0, or why they are passed up. */
inline_always int decide(struct state *state, struct counts *counts, struct block *block, const struct header *header,
                         struct entry *entries, void *end, __u64 *sum)
{
    /* After the lock: a shard that found the counter closed has told the block nothing since it was (S-1). */
    __u64 limit = *(volatile __u64 *)&state->limit, tail = *(volatile __u64 *)&state->tail;
    if (unlikely(tail >= limit))
        return limit ? above(tail) : UP_STOPPED;
    struct wants wants = { .group = entries->lane / LANES };
    __u64 lanes = block->lanes_known;
    if (block->client == header->client && (__u32)lanes == wants.group)
        wants.valid = lanes >> 32;
    /* Nothing, but the verifier is not told: it would follow each sum that there can be. */
    wants.positions = state->nothing;
    int up;
    if (header->count == 1)
        up = add(&wants, entries, block, limit);
    else
        up = add_up(&wants, entries, end, block, limit);
    __u64 first = 0;
    if (up < 0 && likely(wants.positions))
        up = take(state, limit, tail, wants.positions, &first);
    if (unlikely(up >= 0))
        return up;
    block->client = header->client;
    block->lanes_known = (__u64)(wants.valid | wants.seen) << 32 | wants.group;
    __u32 fresh = header->count;
    if (unlikely(wants.fresh != wants.seen)) {
        fresh = (__u32)__builtin_popcount(wants.fresh);
        counts->retries += header->count - fresh;
    }
    counts->granted += fresh;
    counts->tokens += wants.positions;
    if (header->count == 1)
        *sum += answer(entries, block, wants.fresh, &first);
    else
        *sum += answer_all(entries, end, block, wants.fresh, first);
    return up;
}

/* Answers a request; below 0, or why it is passed up. `sum` gets the sum of the entries of the reply. */
inline_always int grant(struct counts *counts, struct block *block, struct header *header, void *end, __u64 *sum)
{
    struct entry *entries = (void *)(header + 1);
    struct state *state = bpf_map_lookup_elem(&STATE, &only);
    if (!state || (void *)(entries + 1) > end)
        return UP_ODD;
    if (!in_time(counts, state))
        return UP_STOPPED;
    /* [S-6] From here to the answer nobody else looks at these lanes. */
    if (unlikely(swap(&block->lock, 0, PROGRAM) != 0))
        return UP_BUSY;
    int up = decide(state, counts, block, header, entries, end, sum);
    unlock(block);
    if (unlikely(up >= 0))
        return up;
    header->kind |= REPLY_BIT;
    header->epoch = EPOCH;
    counts->answered++;
    return up;
}

inline_always __u64 sum_header(const struct header *header)
{
    const __u64 *words = (const void *)header;
    __u64 sum = 0;
    for (int i = 0; i < (int)sizeof(*header) / 8; i++)
        sum += term(words[i]);
    return sum;
}

inline_always int serve(struct xdp_md *context, int ipv6)
{
    void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
    struct ethernet *frame = data;
    void *ip = frame + 1;
    struct udp *udp = ip + (ipv6 ? sizeof(struct ipv6) : sizeof(struct ipv4));
    struct header *header = (void *)(udp + 1);
    struct entry *entries = (void *)(header + 1);
    if ((void *)(entries + 1) > end)
        return XDP_PASS;
    if (frame->type != (ipv6 ? TYPE_IPV6 : TYPE_IPV4) || udp->to != PORT)
        return XDP_PASS;
    __u32 index = place(header->client, entries->lane / LANES);
    struct block *block = bpf_map_lookup_elem(&TABLE, &index);
    if (!block)
        return XDP_PASS;
    /* It takes longer to come than all that is looked at before it is needed. */
    *(volatile __u64 *)&block->lock;
    __u32 bytes = (__u32)(end - ip);
    __u64 pseudo = 0;
    if (!(ipv6 ? addressed_ipv6(ip, udp, bytes, &pseudo) : addressed_ipv4(ip, udp, bytes, &pseudo)))
        return XDP_PASS;
    struct counts *counts = bpf_map_lookup_elem(&COUNTS, &only);
    if (!counts)
        return XDP_PASS;
    if (!EPOCH)
        return pass_up(counts, UP_STOPPED);
    __u32 payload = (__u32)(end - (void *)header);
    if (!addressed_ethernet(frame) || udp->length != net16((__u16)(payload + sizeof(*udp))) || !udp->from || !is_grant(header, payload))
        return pass_up(counts, UP_ODD);
    enum check check = intact(udp, end, pseudo, ipv6);
    if (check == BROKEN)
        return pass_up(counts, UP_CHECKSUM);
    __u64 sum = pseudo;
    int up = grant(counts, block, header, end, &sum);
    if (up >= 0)
        return pass_up(counts, up);
    turn_ethernet(frame);
    turn_udp(udp);
    if (ipv6)
        turn_ipv6(ip);
    else
        turn_ipv4(ip);
    /* Both ways the pseudo-header has the same sum. */
    if (check == UNFINISHED)
        return XDP_TX;
    udp->check = 0;
    if (ipv6) {
        __u16 inverse = (__u16)~fold(sum + udp->from + udp->to + udp->length + sum_header(header));
        udp->check = inverse ? inverse : 0xffff;
    }
    return XDP_TX;
}

SEC("xdp")
int grant_ipv4(struct xdp_md *context)
{
    return serve(context, 0);
}

SEC("xdp")
int grant_ipv6(struct xdp_md *context)
{
    return serve(context, 1);
}

/* No helper is used that is for programs under the GPL alone. */
char LICENSE[] SEC("license") = "MIT OR Apache-2.0";
