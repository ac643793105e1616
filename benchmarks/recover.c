/* Hash and recover, nothing else: the floor under any one-by-one check through the same libsecp256k1.
 *
 * data: records of | u32 length | payload | 65 B signature | 20 B publisher |. Returns how many are valid. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const uint64_t RC[24] = {
    0x0000000000000001ULL, 0x0000000000008082ULL, 0x800000000000808aULL, 0x8000000080008000ULL,
    0x000000000000808bULL, 0x0000000080000001ULL, 0x8000000080008081ULL, 0x8000000000008009ULL,
    0x000000000000008aULL, 0x0000000000000088ULL, 0x0000000080008009ULL, 0x000000008000000aULL,
    0x000000008000808bULL, 0x800000000000008bULL, 0x8000000000008089ULL, 0x8000000000008003ULL,
    0x8000000000008002ULL, 0x8000000000000080ULL, 0x000000000000800aULL, 0x800000008000000aULL,
    0x8000000080008081ULL, 0x8000000000008080ULL, 0x0000000080000001ULL, 0x8000000080008008ULL};
static const int ROT[24] = {1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14, 27, 41, 56, 8, 25, 43, 62, 18, 39, 61, 20, 44};
static const int PIL[24] = {10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4, 15, 23, 19, 13, 12, 2, 20, 14, 22, 9, 6, 1};
#define ROL(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

static void permute(uint64_t s[25]) {
    for (int round = 0; round < 24; round++) {
        uint64_t c[5], t;
        for (int i = 0; i < 5; i++) c[i] = s[i] ^ s[i + 5] ^ s[i + 10] ^ s[i + 15] ^ s[i + 20];
        for (int i = 0; i < 5; i++) {
            t = c[(i + 4) % 5] ^ ROL(c[(i + 1) % 5], 1);
            for (int j = 0; j < 25; j += 5) s[j + i] ^= t;
        }
        t = s[1];
        for (int i = 0; i < 24; i++) {
            uint64_t keep = s[PIL[i]];
            s[PIL[i]] = ROL(t, ROT[i]);
            t = keep;
        }
        for (int j = 0; j < 25; j += 5) {
            memcpy(c, s + j, sizeof c);
            for (int i = 0; i < 5; i++) s[j + i] = c[i] ^ (~c[(i + 1) % 5] & c[(i + 2) % 5]);
        }
        s[0] ^= RC[round];
    }
}

typedef struct { uint64_t state[25]; uint8_t block[136]; size_t fill; } keccak;

static void absorb(keccak *k, const uint8_t *data, size_t size) {
    while (size) {
        size_t take = 136 - k->fill < size ? 136 - k->fill : size;
        memcpy(k->block + k->fill, data, take);
        k->fill += take, data += take, size -= take;
        if (k->fill == 136) {
            uint64_t lanes[17];
            memcpy(lanes, k->block, 136);
            for (int i = 0; i < 17; i++) k->state[i] ^= lanes[i];
            permute(k->state);
            k->fill = 0;
        }
    }
}

static void finish(keccak *k, uint8_t out[32]) {
    static const uint8_t zeros[136];
    size_t fill = k->fill;
    uint8_t pad[136];
    memcpy(pad, zeros, 136);
    pad[0] = 1;
    pad[136 - fill - 1] |= 0x80;
    absorb(k, pad, 136 - fill);
    memcpy(out, k->state, 32);
}

typedef int (*parse_fn)(const void *, void *, const uint8_t *, int);
typedef int (*recover_fn)(const void *, void *, const void *, const uint8_t *);
typedef int (*serialize_fn)(const void *, uint8_t *, size_t *, const void *, unsigned);

long recover_all(const void *context, parse_fn parse, recover_fn recover, serialize_fn serialize,
                 const uint8_t *data, size_t size) {
    long valid = 0;
    for (const uint8_t *at = data; at < data + size;) {
        uint32_t length;
        memcpy(&length, at, 4);
        const uint8_t *payload = at + 4, *signature = payload + length, *publisher = signature + 65;
        at = publisher + 20;
        char head[64];
        int head_size = snprintf(head, sizeof head, "\x19" "Ethereum Signed Message:\n%u", length);
        keccak k = {{0}, {0}, 0}, a = {{0}, {0}, 0};
        uint8_t digest[32], point[65], sig[65], key[64];
        absorb(&k, (uint8_t *)head, head_size);
        absorb(&k, payload, length);
        finish(&k, digest);
        size_t point_size = 65;
        if (signature[64] < 27 || signature[64] > 28 || !parse(context, sig, signature, signature[64] - 27) ||
            !recover(context, key, sig, digest))
            continue;
        serialize(context, point, &point_size, key, 2);
        absorb(&a, point + 1, 64);
        finish(&a, digest);
        valid += !memcmp(digest + 12, publisher, 20);
    }
    return valid;
}
