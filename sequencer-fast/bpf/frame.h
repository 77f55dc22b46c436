/* Which frames are whole datagrams for the sequencer, and how their replies find back. */
#pragma once

#include "packet.h"

/* Bytes of the longest datagram with its UDP header. */
#define MAX_DATAGRAM (8 + 64 + 29 * 48)

/* Set before the program is loaded. */
const volatile __u32 ADDRESS[4] = {}; /* in the order of the network; IPv4 has the first word */
const volatile __u64 MAC = 0;         /* of the interface, its first byte in the lowest; the two highest are 0 */
const volatile __u32 GENERIC = 0;     /* whether the kernel runs the program, and not the driver */

/* Whether the frame is for this host alone, and from another. */
inline_always int addressed_ethernet(const struct ethernet *frame)
{
    __u64 head = *(const __u64 *)frame;
    return (head & 0xffffffffffffULL) == MAC && !(head & 1ULL << 48);
}

/* Whether this is a whole datagram for the sequencer; `sum` gets the sum of the pseudo-header. */
inline_always int addressed_ipv4(const struct ipv4 *ip, const struct udp *udp, __u32 bytes, __u64 *sum)
{
    /* Version, length of the header and of all; fragment and protocol. */
    __u32 head = *(const __u32 *)ip, middle = *(const __u32 *)&ip->fragment;
    if ((head & ~0xff00U) != (0x45 | (__u32)net16((__u16)bytes) << 16) ||
        (middle & ~(0xff0000U | DONT_FRAGMENT)) != PROTOCOL_UDP << 24)
        return 0;
    /* Senders that nobody may answer: no host, this host, many hosts. */
    __u32 from = ip->from, to = ADDRESS[0];
    __u8 net = (__u8)from;
    if (ip->to != to || from == to || net == 0 || net == 127 || net >= 224)
        return 0;
    if (!is_all_ones(sum_ipv4(ip)))
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

/* What a checksum says. */
enum check {
    BROKEN,
    WHOLE,
    UNFINISHED, /* whoever sends the reply on may complete it */
};

/* Whether the datagram is what its sender sent. Between devices of one host the checksum is still to be completed, which
 * shows as the sum of the pseudo-header alone. A driver makes something new of the reply. The kernel sends on what has come,
 * and a device behind it may still complete the checksum: the reply needs the sum that it begins with. */
inline_always enum check intact(const struct udp *udp, const void *end, __u64 pseudo, int ipv6)
{
    const __u32 *words = (const void *)udp;
    __u64 sum = pseudo;
    if (udp->check == 0)
        return ipv6 ? BROKEN : WHOLE;
    int begun = udp->check == fold(pseudo);
    if (begun && !GENERIC)
        return WHOLE;
    for (int i = 0; i < (int)(MAX_DATAGRAM) / 4; i++) {
        if ((const void *)(words + 1) > end)
            break;
        sum += *words++;
    }
    int whole = fold(sum) == 0xffff;
    /* Where it could be either, nobody but the kernel knows. */
    if (begun)
        return whole ? BROKEN : UNFINISHED;
    return whole ? WHOLE : BROKEN;
}

inline_always void turn_ethernet(struct ethernet *frame)
{
    __u32 *to = (void *)frame->to, *from = (void *)frame->from;
    __u32 other = *to;
    __u16 *to_end = (void *)(to + 1), *from_end = (void *)(from + 1), other_end = *to_end;
    *to = *from;
    *from = other;
    *to_end = *from_end;
    *from_end = other_end;
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
}
