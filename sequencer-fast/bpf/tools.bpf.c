/* What stands around the program that grants while it is tested and measured: never on a host that serves. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "packet.h"

#define HEADER 64
#define ENTRY 48
#define MAX_ENTRIES 29
#define KIND 5
#define CLIENT 24
#define REPLY_BIT 0x80
#define COUNT 12
#define FIRST 16
#define STATUS 32

/* The port that the frames of a source come from. */
#define SOURCE_PORT net16(4000)

/* Queues that are told apart, a power of two. */
#define QUEUES 4

/* Positions of an element of GRANTED, a bit each. */
#define WORDS 512

/* Set before the program is loaded. */
const volatile __u16 PORT = 0;     /* of the server, in the order of the network */
const volatile __u32 CLIENTS = 1;  /* that the source asks for, a power of two */
const volatile __u64 FIRST_REQUEST = 1;

/* Of each core: frames that the source made, what came to the sink of the size of a reply and what else. */
struct counts {
    __u64 made;
    __u64 replies;
    __u64 others;
    __u64 turned;
    __u64 twice;          /* positions that were granted before */
    __u64 unchecked;      /* entries that were refused, or that are not of one position below the bound */
    __u64 queues[QUEUES]; /* replies by the queue that they came by */
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct counts);
} COUNTS SEC(".maps");

/* Which positions were granted. As many elements as the one who loads it asks for. */
struct granted {
    __u64 words[WORDS];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct granted);
} GRANTED SEC(".maps");

/* The headers of a frame as an IPv4 host sends it. */
struct frame {
    struct ethernet *ethernet;
    struct ipv4 *ip;
    struct udp *udp;
    __u8 *header;
    __u8 *entries;
};

/* Finds the headers; false if it is no such frame, with one entry at the least. */
inline_always int find(struct xdp_md *context, struct frame *frame)
{
    void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
    frame->ethernet = data;
    frame->ip = (void *)(frame->ethernet + 1);
    frame->udp = (void *)(frame->ip + 1);
    frame->header = (void *)(frame->udp + 1);
    frame->entries = frame->header + HEADER;
    return (void *)(frame->entries + ENTRY) <= end && frame->ethernet->type == TYPE_IPV4 &&
           frame->ip->version == 0x45 && frame->ip->protocol == PROTOCOL_UDP;
}

inline_always void turn(const struct frame *frame)
{
    __u16 *to = (void *)frame->ethernet->to, *from = (void *)frame->ethernet->from;
    for (int i = 0; i < 3; i++) {
        __u16 other = to[i];
        to[i] = from[i];
        from[i] = other;
    }
    __u32 ip = frame->ip->from;
    frame->ip->from = frame->ip->to;
    frame->ip->to = ip;
    __u16 port = frame->udp->from;
    frame->udp->from = frame->udp->to;
    frame->udp->to = port;
    frame->udp->check = 0;
}

inline_always struct counts *own_counts(void)
{
    __u32 only = 0;
    return bpf_map_lookup_elem(&COUNTS, &only);
}

/* Lets everything through. Where a device is the peer of one whose program sends, it needs some program. */
SEC("xdp")
int pass(struct xdp_md *context)
{
    (void)context;
    return XDP_PASS;
}

/* Sends what is for the server back as it came: the floor of a server in the driver hook. */
SEC("xdp")
int reflect(struct xdp_md *context)
{
    struct frame frame;
    if (!find(context, &frame) || frame.udp->to != PORT)
        return XDP_PASS;
    struct counts *counts = own_counts();
    if (!counts)
        return XDP_PASS;
    counts->turned++;
    turn(&frame);
    return XDP_TX;
}

/* Takes what comes from the server. */
SEC("xdp")
int sink(struct xdp_md *context)
{
    struct frame frame;
    if (!find(context, &frame) || frame.udp->from != PORT)
        return XDP_PASS;
    struct counts *counts = own_counts();
    if (!counts)
        return XDP_PASS;
    if (frame.header[KIND] & REPLY_BIT)
        counts->replies++;
    else
        counts->others++;
    return XDP_DROP;
}

/* Enters the position of an entry. */
inline_always void enter(struct counts *counts, const __u8 *entry)
{
    __u64 first = *(const __u64 *)(entry + FIRST), bit = 1ULL << (first % 64);
    __u32 index = (__u32)(first / 64 / WORDS);
    struct granted *granted = bpf_map_lookup_elem(&GRANTED, &index);
    if (!granted || first >> 40 || *(const __u32 *)(entry + STATUS) || *(const __u32 *)(entry + COUNT) != 1) {
        counts->unchecked++;
        return;
    }
    if (__sync_fetch_and_or(&granted->words[first / 64 % WORDS], bit) & bit)
        counts->twice++;
}

/* Takes replies to frames of a source, and looks at every position whether it was granted before. Lets through what else
 * comes from the server. */
SEC("xdp")
int check(struct xdp_md *context)
{
    void *end = (void *)(long)context->data_end;
    struct frame frame;
    if (!find(context, &frame) || frame.udp->from != PORT || frame.udp->to != SOURCE_PORT)
        return XDP_PASS;
    struct counts *counts = own_counts();
    if (!counts)
        return XDP_PASS;
    if (!(frame.header[KIND] & REPLY_BIT)) {
        counts->others++;
        return XDP_DROP;
    }
    counts->replies++;
    counts->queues[context->rx_queue_index % QUEUES]++;
    __u8 *entry = frame.entries;
    for (int i = 0; i < MAX_ENTRIES; i++, entry += ENTRY) {
        if ((void *)(entry + ENTRY) > end)
            break;
        enter(counts, entry);
    }
    return XDP_DROP;
}

/* Makes requests of frames that may have been answered before: each asks anew, for one client after the other. */
SEC("xdp")
int source(struct xdp_md *context)
{
    void *end = (void *)(long)context->data_end;
    struct frame frame;
    struct counts *counts = own_counts();
    if (!counts || !find(context, &frame))
        return XDP_DROP;
    if (frame.udp->to != PORT)
        turn(&frame);
    __u64 made = counts->made++, core = bpf_get_smp_processor_id();
    frame.header[KIND] &= (__u8)~REPLY_BIT;
    *(__u64 *)(frame.header + CLIENT) = core << 32 | (made & (CLIENTS - 1));
    __u8 *entry = frame.entries;
    for (int i = 0; i < MAX_ENTRIES; i++, entry += ENTRY) {
        if ((void *)(entry + ENTRY) > end)
            break;
        *(__u64 *)entry = FIRST_REQUEST + made;
    }
    return XDP_TX;
}

/* No helper is used that is for programs under the GPL alone. */
char LICENSE[] SEC("license") = "MIT OR Apache-2.0";
