/* Reads the wire contract's binary vectors with nothing but C99: frames, fragments, weight files, sha256.
 *
 * vectors.h is made by `python tools/protocol_vectors.py --c-header`. Compiled for the host, or for a Cortex-M whose
 * console is the debugger's (semihosting). Ends with 0 and the line "ok" if it reads what the vectors say and refuses
 * what they refuse; else with the line of the check that failed.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct blob {
    const unsigned char *bytes;
    size_t size;
};
#include "vectors.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define CHECK(what) do { if (!(what)) { printf("line %d: " #what "\n", __LINE__); return 1; } } while (0)

/* ------------------------------------------------------------------ sha256, FIPS 180-4 */

static uint32_t turned(uint32_t x, int by) { return x >> by | x << (32 - by); }

/* The constants are the fractions of the cube roots of the first 64 primes, the state begins with those of square roots. */
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static void block(uint32_t state[8], const unsigned char *data)
{
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)data[4 * i] << 24 | data[4 * i + 1] << 16 | data[4 * i + 2] << 8 | data[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) + w[i - 7] + (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
    }
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t up = v[7] + (turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
        uint32_t low = (turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += up;
        v[0] = up + low;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
}

static void sha256(const unsigned char *data, size_t size, unsigned char digest[32])
{
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    unsigned char last[128] = {0};
    size_t whole = size / 64 * 64, rest = size - whole, end = rest < 56 ? 64 : 128;
    for (size_t at = 0; at < whole; at += 64) block(state, data + at);
    memcpy(last, data + whole, rest);
    last[rest] = 0x80;
    for (int i = 0; i < 8; i++) last[end - 1 - i] = (unsigned char)((uint64_t)size * 8 >> 8 * i);
    for (size_t at = 0; at < end; at += 64) block(state, last + at);
    for (int i = 0; i < 32; i++) digest[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)));
}

/* ------------------------------------------------------------------ readers; each gives 0 for what it refuses */

static uint32_t big(const unsigned char *at, int bytes)
{
    uint32_t number = 0;
    while (bytes--) number = number << 8 | *at++;
    return number;
}

static uint64_t little(const unsigned char *at, int bytes)
{
    uint64_t number = 0;
    while (bytes--) number = number << 8 | at[bytes];
    return number;
}

/* The bytes of data of a frame of this artifact, put at their place in `into`. */
static size_t read_frame(struct blob frame, unsigned char *into)
{
    const size_t chunk = 1024, size = whole[0].size;
    unsigned char digest[32];
    if (frame.size < 24 || memcmp(frame.bytes, artifact[0].bytes, 16) != 0) return 0;
    size_t index = big(frame.bytes + 16, 4), length = big(frame.bytes + 20, 4);
    if (length == 0 || length != frame.size - 24 || index >= (size + chunk - 1) / chunk) return 0;
    size_t expected = (index + 1) * chunk > size ? size - index * chunk : chunk;
    if (length != expected) return 0;
    sha256(frame.bytes + 24, length, digest);
    if (memcmp(digest, chunk_digests[0].bytes + 32 * index, 32) != 0) return 0;
    memcpy(into + index * chunk, frame.bytes + 24, length);
    return length;
}

/* How many pieces the message of this fragment has. */
static unsigned read_fragment(struct blob fragment, unsigned *index)
{
    static const unsigned char magic[8] = {0, 'm', 'a', 's', '-', 'f', 'r', '1'};
    if (fragment.size <= 20 || memcmp(fragment.bytes, magic, 8) != 0) return 0;
    unsigned count = big(fragment.bytes + 18, 2);
    *index = big(fragment.bytes + 16, 2);
    return count < 2 || count > 2048 || *index >= count ? 0 : count;
}

/* Where the numbers of a weight file begin. A board that knows its layout need not read the names. */
static size_t read_weights(struct blob file)
{
    if (file.size < 8) return 0;
    uint64_t length = little(file.bytes, 8);
    return length > file.size - 8 || length % 8 != 0 ? 0 : 8 + (size_t)length;
}

int main(void)
{
    static unsigned char put[4096];
    unsigned char digest[32];
    unsigned index;
    size_t done = 0;

    sha256((const unsigned char *)"abc", 3, digest);
    CHECK(big(digest, 4) == 0xba7816bf);
    for (size_t i = 0; i < COUNT(frames); i++) done += read_frame(frames[i], put);
    CHECK(done == whole[0].size && memcmp(put, whole[0].bytes, done) == 0);
    sha256(put, done, digest);
    CHECK(memcmp(digest, artifact[0].bytes, 32) == 0);
    for (size_t i = 0; i < COUNT(frames_refused); i++) CHECK(read_frame(frames_refused[i], put) == 0);

    memset(put, 0, sizeof put);
    done = 0;
    for (size_t i = COUNT(fragments); i-- > 0;) { /* backwards: the order they come in says nothing */
        CHECK(read_fragment(fragments[i], &index) == COUNT(fragments) && index == i);
        size_t piece = fragments[0].size - 20;
        memcpy(put + index * piece, fragments[i].bytes + 20, fragments[i].size - 20);
        done += fragments[i].size - 20;
    }
    CHECK(done == whole[0].size && memcmp(put, whole[0].bytes, done) == 0);
    for (size_t i = 0; i < COUNT(fragments_refused); i++) CHECK(read_fragment(fragments_refused[i], &index) == 0);

    done = read_weights(weights_file[0]);
    CHECK(done + weights_numbers[0].size == weights_file[0].size);
    CHECK(memcmp(weights_file[0].bytes + done, weights_numbers[0].bytes, weights_numbers[0].size) == 0);
    sha256(weights_file[0].bytes, weights_file[0].size, digest);
    CHECK(memcmp(digest, weights_artifact[0].bytes, 32) == 0);
    CHECK(read_weights(weights_refused[0]) == 0 && read_weights(weights_refused[1]) == 0);
    puts("ok");
    return 0;
}
