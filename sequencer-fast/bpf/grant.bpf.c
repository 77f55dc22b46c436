/* A sequencer in the driver hook: grants what can be granted at once, and passes everything else up.
 *
 * What is not surely a plain grant request for this sequencer is passed up before a single byte of it was written
 * (S-9), to the socket of the same port or whomever it is for. What is granted is decided as in user space
 * (sequencer-fast/src/logic), on the same counter, so that the rules hold with both at work:
 *
 *   S-1  the counter is moved by a compare-and-exchange; a closed counter is above every limit
 *   S-2  never past the limit, which is the durable reservation
 *   S-5  never from the deadline on, by the clock that user space looks at
 *   S-6  in blocks of lanes that are locked from the look to the answer; whoever finds one locked is passed up
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "grant.h"
#include "packet.h"

#define MAGIC 0x474f4c53 /* SLOG */
#define VERSION 1
#define KIND_GRANT 1
#define REPLY_BIT 0x80
#define MAX_ENTRIES 29
#define MAX_GRANT (1 << 20)

/* Tries to move the counter, against other cores. */
#define TRIES 4

/* The header of a datagram, and an entry: a request, and the reply in its place. See `wire::datagram`. */
struct header {
    __u32 magic;
    __u8 version;
    __u8 kind;
    __u8 count;
    __u8 flags;
    __u64 log[2];
    __u64 client;
    __u64 epoch;
    __u64 tag;
    __u64 mac[2];
};

struct entry {
    __u64 request;
    __u32 lane;
    __u32 count;
    __u64 first;
    __u64 rest[3];
};

/* Set before the program is loaded, one program a reign. */
const volatile __u64 LOG[2] = {};
const volatile __u64 EPOCH = 0;
const volatile __u32 ADDRESS[4] = {}; /* in the order of the network; IPv4 has the first word */
const volatile __u16 PORT = 0;        /* in the order of the network */
const volatile __u16 MAC[3] = {};     /* of the interface */
const volatile __u64 SEED = 0;        /* of the places of blocks, a secret */
const volatile __u32 BLOCKS = 1;      /* a power of two */

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

/* Whether the frame is for this host alone, and from another. */
inline_always int addressed_ethernet(const struct ethernet *frame)
{
    const __u16 *to = (const void *)frame->to, *from = (const void *)frame->from;
    return to[0] == MAC[0] && to[1] == MAC[1] && to[2] == MAC[2] && !(from[0] & 1);
}

/* Whether this is a whole datagram for the sequencer; `sum` gets the sum of the pseudo-header. */
inline_always int addressed_ipv4(const struct ipv4 *ip, const struct udp *udp, __u32 bytes, __u64 *sum)
{
    __u8 net = (__u8)ip->from;
    if (ip->version != 0x45 || ip->protocol != PROTOCOL_UDP || (ip->fragment & ~DONT_FRAGMENT) ||
        ip->length != net16((__u16)bytes) || ip->to != ADDRESS[0])
        return 0;
    /* Senders that nobody may answer: no host, this host, many hosts. */
    if (net == 0 || net == 127 || net >= 224 || ip->from == ADDRESS[0])
        return 0;
    if (fold(sum_ipv4(ip)) != 0xffff)
        return 0;
    *sum = (__u64)ip->from + ip->to + net16(PROTOCOL_UDP) + udp->length;
    return 1;
}

inline_always int addressed_ipv6(const struct ipv6 *ip, const struct udp *udp, __u32 bytes, __u64 *sum)
{
    __u32 ends = ip->from[0] | ip->from[1] | ip->from[2];
    if ((ip->version & 0xf0) != 0x60 || ip->next != PROTOCOL_UDP ||
        ip->length != net16((__u16)(bytes - sizeof(*ip))))
        return 0;
    if (ip->to[0] != ADDRESS[0] || ip->to[1] != ADDRESS[1] || ip->to[2] != ADDRESS[2] || ip->to[3] != ADDRESS[3])
        return 0;
    /* Multicast, the loopback and none, this host. */
    if ((ip->from[0] & 0xff) == 0xff || !ends ||
        (ip->from[0] == ip->to[0] && ip->from[1] == ip->to[1] && ip->from[2] == ip->to[2] &&
         ip->from[3] == ip->to[3]))
        return 0;
    *sum = sum_ipv6(ip) + net16(PROTOCOL_UDP) + udp->length;
    return 1;
}

/* Whether the datagram is what its sender sent. Between devices of one host the checksum is still to be completed, which
 * shows as the sum of the pseudo-header alone. */
inline_always int intact(const struct udp *udp, const void *end, __u64 pseudo, int ipv6)
{
    const __u32 *words = (const void *)udp;
    __u64 sum = pseudo;
    if (udp->check == 0)
        return !ipv6;
    if (udp->check == fold(pseudo))
        return 1;
    for (int i = 0; i < (int)(sizeof(struct udp) + sizeof(struct header) + MAX_ENTRIES * sizeof(struct entry)) / 4; i++) {
        if ((const void *)(words + 1) > end)
            break;
        sum += *words++;
    }
    return fold(sum) == 0xffff;
}

/* Whether this is a plain grant request without a MAC, and as long as it says. */
inline_always int is_grant(const struct header *header, __u32 bytes)
{
    return header->magic == MAGIC && header->version == VERSION && header->kind == KIND_GRANT && !header->flags &&
           header->count >= 1 && header->count <= MAX_ENTRIES &&
           bytes == sizeof(*header) + header->count * sizeof(struct entry) && header->log[0] == LOG[0] &&
           header->log[1] == LOG[1] && !header->mac[0] && !header->mac[1];
}

/* What the requests of a datagram want together. */
struct wants {
    __u64 positions;
    __u32 fresh; /* a bit for each lane with a new request */
    __u32 repeated; /* whether there are others */
    __u32 group;
    __u32 valid; /* the lanes of the block that something is known of */
    int up;      /* why it is passed up, or below 0 */
};

/* Adds up what is new. A datagram is simple if its lanes are neighbours and each is in it once. */
inline_always void add_up(struct wants *wants, const struct header *header, const struct entry *entry,
                          const void *end, const struct block *block, __u64 limit)
{
    __u32 seen = 0;
    for (int i = 0; i < MAX_ENTRIES; i++, entry++) {
        if (i >= header->count)
            return;
        wants->up = UP_ODD;
        if ((const void *)(entry + 1) > end)
            return;
        __u32 slot = entry->lane % LANES, bit = 1U << slot, count = entry->count;
        if (entry->lane / LANES != wants->group || (seen & bit) || count - 1 >= MAX_GRANT)
            return;
        seen |= bit;
        const struct known *known = &block->lanes[slot];
        if (!(wants->valid & bit) || entry->request > known->request) {
            wants->positions += count;
            wants->fresh |= bit;
        } else if (entry->request < known->request) {
            wants->up = UP_STALE;
            return;
        } else if (known->first + known->count > limit) {
            /* It is held in user space. */
            wants->up = UP_LIMIT;
            return;
        } else {
            wants->repeated = 1;
        }
        wants->up = -1;
    }
}

/* Writes the tokens over the requests, and into the memory; returns the sum of what was written. */
inline_always __u64 answer(const struct wants *wants, const struct header *header, struct entry *entry,
                           const void *end, struct block *block, __u64 first)
{
    __u64 sum = 0;
    for (int i = 0; i < MAX_ENTRIES; i++, entry++) {
        if (i >= header->count || (const void *)(entry + 1) > end)
            break;
        __u32 slot = entry->lane % LANES, bit = 1U << slot;
        struct known *known = &block->lanes[slot];
        if (wants->fresh & bit) {
            known->request = entry->request;
            known->first = first;
            known->count = entry->count;
            first += entry->count;
        } else {
            entry->count = (__u32)known->count;
        }
        entry->first = known->first;
        entry->rest[0] = 0;
        entry->rest[1] = 0;
        entry->rest[2] = 0;
        sum += term(entry->request) + entry->lane + entry->count + term(entry->first);
    }
    block->valid = wants->valid | wants->fresh;
    return sum;
}

/* Takes the positions, at most to the limit; below 0 and why if it does not. */
inline_always int take(struct state *state, __u64 limit, __u64 tail, __u64 positions, __u64 *first)
{
    __u64 low_water = *(volatile __u64 *)&state->low_water;
    for (int i = 0; i < TRIES; i++) {
        __u64 next = tail + positions;
        /* [S-1] [S-2] A closed counter is above it as well. */
        if (tail > limit || next > limit)
            return UP_LIMIT;
        if (next >= low_water && __sync_val_compare_and_swap(&state->low_water, low_water, ~0ULL) == low_water)
            return UP_LIMIT;
        __u64 found = __sync_val_compare_and_swap(&state->tail, tail, next);
        if (found == tail) {
            *first = tail;
            return -1;
        }
        tail = found;
        low_water = ~0ULL;
    }
    return UP_BUSY;
}

/* Decides and answers a request; below 0, or why it is passed up. `sum` gets the sum of the reply without its lower
 * headers. */
inline_always int grant(struct counts *counts, struct header *header, void *end, __u64 *sum)
{
    struct entry *entries = (void *)(header + 1);
    struct state *state = bpf_map_lookup_elem(&STATE, &only);
    if (!state || (void *)(entries + 1) > end)
        return UP_ODD;
    __u64 limit = *(volatile __u64 *)&state->limit, tail = *(volatile __u64 *)&state->tail;
    if (tail >= limit)
        return tail >> 63 || !limit ? UP_STOPPED : UP_LIMIT;
    /* [S-5] */
    if (bpf_ktime_get_boot_ns() >= *(volatile __u64 *)&state->deadline_ns)
        return UP_STOPPED;

    struct wants wants = { .group = entries->lane / LANES, .up = UP_ODD };
    __u32 index = place(header->client, wants.group);
    struct block *block = bpf_map_lookup_elem(&TABLE, &index);
    if (!block)
        return UP_ODD;
    /* [S-6] From here to the answer nobody else looks at these lanes. */
    if (__sync_val_compare_and_swap(&block->lock, 0, PROGRAM) != 0)
        return UP_BUSY;
    int known = block->client == header->client && block->group == wants.group;
    wants.valid = known ? block->valid : 0;
    /* Nothing, but the verifier is not told: it would follow each sum that there can be. */
    wants.positions = state->nothing;
    add_up(&wants, header, entries, end, block, limit);
    __u64 first = 0;
    if (wants.up < 0 && wants.positions)
        wants.up = take(state, limit, tail, wants.positions, &first);
    if (wants.up >= 0) {
        unlock(block);
        return wants.up;
    }
    block->client = header->client;
    block->group = wants.group;
    *sum += answer(&wants, header, entries, end, block, first);
    unlock(block);

    header->kind |= REPLY_BIT;
    header->epoch = EPOCH;
    counts->answered++;
    __u32 fresh = header->count;
    if (wants.repeated)
        fresh = (__u32)__builtin_popcount(wants.fresh);
    counts->granted += fresh;
    counts->tokens += wants.positions;
    counts->retries += header->count - fresh;
    return -1;
}

inline_always __u64 sum_header(const struct header *header)
{
    const __u64 *words = (const void *)header;
    __u64 sum = 0;
    for (int i = 0; i < (int)sizeof(*header) / 8; i++)
        sum += term(words[i]);
    return sum;
}

inline_always void turn_ethernet(struct ethernet *frame)
{
    __u16 *to = (void *)frame->to, *from = (void *)frame->from;
    for (int i = 0; i < 3; i++) {
        __u16 other = to[i];
        to[i] = from[i];
        from[i] = other;
    }
}

inline_always void turn_ipv4(struct ipv4 *ip)
{
    __u32 other = ip->from;
    ip->from = ip->to;
    ip->to = other;
    /* The checksum was right, and does not tell the addresses apart. */
    if (ip->service == 0 && ip->ttl == REPLY_TTL)
        return;
    ip->service = 0;
    ip->ttl = REPLY_TTL;
    ip->check = 0;
    ip->check = (__u16)~fold(sum_ipv4(ip));
}

inline_always void turn_ipv6(struct ipv6 *ip)
{
    for (int i = 0; i < 4; i++) {
        __u32 other = ip->from[i];
        ip->from[i] = ip->to[i];
        ip->to[i] = other;
    }
    ip->version = 0x60;
    ip->hops = REPLY_TTL;
}

inline_always void turn_udp(struct udp *udp)
{
    __u16 other = udp->from;
    udp->from = udp->to;
    udp->to = other;
    udp->check = 0;
}

inline_always int serve(struct xdp_md *context, int ipv6)
{
    void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
    struct ethernet *frame = data;
    void *ip = frame + 1;
    struct udp *udp = ip + (ipv6 ? sizeof(struct ipv6) : sizeof(struct ipv4));
    struct header *header = (void *)(udp + 1);
    if ((void *)(header + 1) > end)
        return XDP_PASS;
    if (frame->type != (ipv6 ? TYPE_IPV6 : TYPE_IPV4) || udp->to != PORT)
        return XDP_PASS;
    __u32 bytes = (__u32)(end - ip);
    __u64 pseudo = 0;
    if (!(ipv6 ? addressed_ipv6(ip, udp, bytes, &pseudo) : addressed_ipv4(ip, udp, bytes, &pseudo)))
        return XDP_PASS;
    struct counts *counts = bpf_map_lookup_elem(&COUNTS, &only);
    if (!counts || !addressed_ethernet(frame))
        return XDP_PASS;
    __u32 payload = (__u32)(end - (void *)header);
    if (udp->length != net16((__u16)(payload + sizeof(*udp))) || !udp->from || !is_grant(header, payload))
        return pass_up(counts, UP_ODD);
    if (!intact(udp, end, pseudo, ipv6))
        return pass_up(counts, UP_CHECKSUM);
    __u64 sum = pseudo;
    int up = grant(counts, header, end, &sum);
    if (up >= 0)
        return pass_up(counts, up);
    turn_ethernet(frame);
    turn_udp(udp);
    if (ipv6) {
        turn_ipv6(ip);
        __u16 check = (__u16)~fold(sum + udp->from + udp->to + udp->length + sum_header(header));
        udp->check = check ? check : 0xffff;
    } else {
        turn_ipv4(ip);
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
