/* What the program and user space share: sequencer-fast/src/logic/table.rs and src/logic/tail.rs have the same layout. */
#pragma once

#include <linux/types.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "numbers in datagrams are little-endian: this program does not turn them round"
#endif

/* Lanes of a block of the retry memory. */
#define LANES 32

/* A lock word with this bit is the program's; below it are the batches of user space that are in the block. */
#define PROGRAM (1ULL << 63)

/* The reign, as far as the program is to know it. */
struct state {
    __u64 tail;          /* the counter, which both sides take from */
    __u64 pad_tail[15];  /* keeps it off the cache lines of what is only read */
    __u64 limit;         /* positions below may be granted: the durable reservation (S-2) */
    __u64 deadline_ns;   /* CLOCK_BOOTTIME: nothing is granted from then on (S-5) */
    __u64 low_water;     /* who reaches it is passed up, so that user space extends the reservation */
    __u64 nothing;       /* 0 */
    __u64 pad[12];
};

/* The last request of a lane, and its token. */
struct known {
    __u64 request;
    __u64 first;
    __u64 count;
};

/* What is remembered of 32 neighbouring lanes of a client (S-6). */
struct block {
    __u64 lock;
    __u64 client;
    __u64 lanes_known; /* lane / LANES, and above it a bit for each lane that something is known of */
    struct known lanes[LANES];
    __u64 pad[5]; /* to whole cache lines */
};

/* What the program counts, each core for itself. */
struct counts {
    __u64 answered;   /* datagrams */
    __u64 granted;    /* requests given a token, each once */
    __u64 tokens;     /* positions */
    __u64 retries;    /* requests given the token that they had before */
    __u64 up[8];      /* datagrams to the sequencer that were passed up, by reason */
    __u64 tick;       /* of the kernel, at the last look at the clock */
    __u64 look_at;    /* the count of answered datagrams up to which it is good */
};

/* Why a datagram to the sequencer is passed up. */
enum up {
    UP_ODD,       /* nothing that the program knows: user space knows better */
    UP_STOPPED,   /* the reign does not grant, or not any more */
    UP_LIMIT,     /* above the reservation, or at the low-water mark */
    UP_STALE,     /* below what its lane has reached */
    UP_BUSY,      /* user space or another core is in its block, or was faster at the counter */
    UP_CHECKSUM,  /* not what the checksum says, or not to be checked */
};
