/* Requests of a datagram, held against what is remembered of their lanes. */
#pragma once

#include "grant.h"
#include "packet.h"

#define MAX_ENTRIES 29
#define MAX_GRANT (1 << 20)

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

/* What the requests of a datagram want together. */
struct wants {
    __u64 positions;
    __u32 seen;  /* a bit for each lane of the datagram */
    __u32 fresh; /* and for each with a new request */
    __u32 group;
    __u32 valid; /* the lanes of the block that something is known of */
};

/* Adds one request to what is wanted; below 0, or why the datagram is passed up. */
inline_always int add(struct wants *wants, const struct entry *entry, const struct block *block, __u64 limit)
{
    __u32 slot = entry->lane % LANES, bit = 1U << slot, count = entry->count;
    if (entry->lane / LANES != wants->group || (wants->seen & bit) || count - 1 >= MAX_GRANT)
        return UP_ODD;
    wants->seen |= bit;
    const struct known *known = &block->lanes[slot];
    if (!(wants->valid & bit) || entry->request > known->request) {
        wants->positions += count;
        wants->fresh |= bit;
    } else if (entry->request < known->request) {
        return UP_STALE;
    } else if (known->first + known->count > limit) {
        /* It is held in user space. */
        return UP_LIMIT;
    }
    return -1;
}

/* The same for all requests of a datagram, which ends where the last of them does. They are simple if their lanes are
 * neighbours and each is there once. */
inline_always int add_up(struct wants *wants, const struct entry *entry, const void *end, const struct block *block,
                         __u64 limit)
{
    int up = UP_ODD;
    for (int i = 0; i < MAX_ENTRIES && (const void *)(entry + 1) <= end; i++, entry++) {
        up = add(wants, entry, block, limit);
        if (up >= 0)
            break;
    }
    return up;
}

/* Writes a token over its request; returns the sum of what was written. */
inline_always __u64 write_token(struct entry *entry, __u64 first)
{
    entry->first = first;
    entry->rest[0] = 0;
    entry->rest[1] = 0;
    entry->rest[2] = 0;
    return term(entry->request) + entry->lane + entry->count + term(first);
}

/* Writes a token over its request, a new one where it is new; returns the sum of what was written. */
inline_always __u64 answer(struct entry *entry, struct block *block, __u32 fresh, __u64 *first)
{
    __u32 slot = entry->lane % LANES;
    struct known *known = &block->lanes[slot];
    if (fresh & 1U << slot) {
        known->request = entry->request;
        known->first = *first;
        known->count = entry->count;
        __u64 own = *first;
        *first += entry->count;
        return write_token(entry, own);
    }
    entry->count = (__u32)known->count;
    return write_token(entry, known->first);
}

inline_always __u64 answer_all(struct entry *entry, const void *end, struct block *block, __u32 fresh, __u64 first)
{
    __u64 sum = 0;
    for (int i = 0; i < MAX_ENTRIES && (const void *)(entry + 1) <= end; i++, entry++)
        sum += answer(entry, block, fresh, &first);
    return sum;
}
