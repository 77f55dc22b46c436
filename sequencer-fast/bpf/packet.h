/* Headers of a frame, as they stand in it, and the sums over them. */
#pragma once

#include <linux/types.h>

/* None of these has gaps. They are not declared as packed, which would have each field read byte by byte: the programs
 * are for machines that read words at any address. */

#define inline_always static __attribute__((always_inline)) inline
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* The byte order of the network, of constants and fields of 16 bits. */
#define net16(x) __builtin_bswap16(x)

struct ethernet {
    __u8 to[6];
    __u8 from[6];
    __u16 type;
};

struct ipv4 {
    __u8 version;    /* and length of the header */
    __u8 service;
    __u16 length;
    __u16 id;
    __u16 fragment;
    __u8 ttl;
    __u8 protocol;
    __u16 check;
    __u32 from;
    __u32 to;
};

struct ipv6 {
    __u32 version;   /* class and flow */
    __u16 length;
    __u8 next;
    __u8 hops;
    __u32 from[4];
    __u32 to[4];
};

struct udp {
    __u16 from;
    __u16 to;
    __u16 length;
    __u16 check;
};

#define TYPE_IPV4 net16(0x0800)
#define TYPE_IPV6 net16(0x86dd)
#define PROTOCOL_UDP 17
#define DONT_FRAGMENT net16(0x4000)
#define REPLY_TTL 64

/* A ones' complement sum of 32-bit words, folded to 16 bits. */
inline_always __u16 fold(__u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (__u16)((sum & 0xffff) + (sum >> 16));
}

/* Whether a sum of at most 16 words, which is not 0, folds to all ones. */
inline_always int is_all_ones(__u64 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

/* A 64-bit word as a term of such a sum. */
inline_always __u64 term(__u64 word)
{
    return (word & 0xffffffff) + (word >> 32);
}

/* The sum of an IPv4 header: 0xffff once folded if its checksum is right. */
inline_always __u64 sum_ipv4(const struct ipv4 *ip)
{
    const __u32 *words = (const void *)ip;
    return (__u64)words[0] + words[1] + words[2] + words[3] + words[4];
}

/* The sum of both addresses. */
inline_always __u64 sum_ipv6(const struct ipv6 *ip)
{
    return (__u64)ip->from[0] + ip->from[1] + ip->from[2] + ip->from[3] + ip->to[0] + ip->to[1] + ip->to[2] +
           ip->to[3];
}
