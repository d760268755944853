/* A compressor that finds matches by hash chains, its decompressor, and a binary tree of the matches: the mixture of
 * byte loads, short loops, calls and unforeseeable branches that programs are made of. */
#include "harness.h"

#include <string.h>

enum { LEN_BYTES = 64 * 1024, HASHES = 4096, MAX_MATCH = 255, MIN_MATCH = 4, MAX_TRIES = 8, NODES = 8192 };

const char workload_name[] = "lz-tree";
const uint32_t workload_expected = 0x0b9f0318u; /* the same algorithm in Python; the unpacked bytes are compared here */

struct node {
    struct node *left, *right;
    uint32_t key, count;
};

static uint8_t input[LEN_BYTES], packed[2 * LEN_BYTES], unpacked[LEN_BYTES];
static int head[HASHES], previous[LEN_BYTES];
static struct node nodes[NODES];
static uint32_t nodes_used;

static uint32_t hash(const uint8_t *p)
{
    return (((uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]) * 2654435761u) >> 20;
}

static __attribute__((noinline)) uint32_t match_length(const uint8_t *a, const uint8_t *b, uint32_t most)
{
    uint32_t n = 0;
    while (n < most && a[n] == b[n])
        n++;
    return n;
}

static __attribute__((noinline)) struct node *insert(struct node *at, uint32_t key)
{
    if (!at) {
        if (nodes_used == NODES)
            return NULL;
        at = &nodes[nodes_used++];
        *at = (struct node){ NULL, NULL, key, 1 };
    } else if (key == at->key)
        at->count++;
    else if (key < at->key)
        at->left = insert(at->left, key);
    else
        at->right = insert(at->right, key);
    return at;
}

static __attribute__((noinline)) uint32_t tree_sum(const struct node *at)
{
    return at ? at->key * at->count + tree_sum(at->left) * 3 + tree_sum(at->right) : 1;
}

/* Packed form: 0, byte; or length, distance low, distance high. @return bytes packed */
static uint32_t pack(struct node **matches)
{
    uint8_t *out = packed;
    uint32_t i = 0;
    memset(head, 0xff, sizeof head);
    while (i + MIN_MATCH < LEN_BYTES) {
        uint32_t h = hash(input + i), most = LEN_BYTES - i < MAX_MATCH ? LEN_BYTES - i : MAX_MATCH, best = 0, from = 0;
        int at = head[h];
        for (int tries = 0; at >= 0 && tries < MAX_TRIES; tries++, at = previous[at]) {
            uint32_t n = match_length(input + at, input + i, most);
            if (n > best && i - (uint32_t)at < 65536) {
                best = n;
                from = i - (uint32_t)at;
            }
        }
        previous[i] = head[h];
        head[h] = (int)i;
        if (best >= MIN_MATCH) {
            *out++ = (uint8_t)best;
            *out++ = (uint8_t)from;
            *out++ = (uint8_t)(from >> 8);
            *matches = insert(*matches, from * 2654435761u >> 16);
            i += best;
        } else {
            *out++ = 0;
            *out++ = input[i++];
        }
    }
    for (; i < LEN_BYTES; i++) {
        *out++ = 0;
        *out++ = input[i];
    }
    return (uint32_t)(out - packed);
}

static void unpack(const uint8_t *p, uint32_t n)
{
    const uint8_t *end = p + n;
    uint8_t *out = unpacked;
    while (p < end) {
        if (*p == 0) {
            *out++ = p[1];
            p += 2;
            continue;
        }
        const uint8_t *from = out - (p[1] | (uint32_t)p[2] << 8);
        for (uint32_t k = *p; k; k--)
            *out++ = *from++;
        p += 3;
    }
}

void workload_setup(void)
{
    uint32_t random = 7;
    for (uint32_t i = 0; i < LEN_BYTES; i++) /* stretches of few letters and of many */
        input[i] = (uint8_t)(next_random(&random) >> 24 & (i & 512 ? 3 : 31));
}

uint32_t workload_run(void)
{
    struct node *matches = NULL;
    nodes_used = 0;
    memset(unpacked, 0, sizeof unpacked);
    uint32_t n = pack(&matches);
    unpack(packed, n);
    if (memcmp(input, unpacked, sizeof input) != 0)
        return 0;
    return n + tree_sum(matches);
}
