/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256; see the header. */
#include "base/digest.h"

#include <errno.h>
/*
 * The plain functions, which OpenSSL 3 calls old: its new ones load providers
 * and a configuration, half a megabyte of memory and milliseconds, for the
 * same sum. Linked statically they are 25 KiB.
 */
#define OPENSSL_API_COMPAT 0x10100000L
#include <openssl/sha.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"

_Static_assert(DIGEST_SIZE == SHA256_DIGEST_LENGTH, "32 bytes");

struct digest {
    SHA256_CTX ctx;
};

struct digest *digest_new(void)
{
    struct digest *d = calloc(1, sizeof(*d));

    if (d)
        SHA256_Init(&d->ctx);
    return d;
}

void digest_update(struct digest *d, const void *bytes, size_t len)
{
    SHA256_Update(&d->ctx, bytes, len);
}

void digest_bytes(const struct digest *d, uint8_t ret_bytes[DIGEST_SIZE])
{
    SHA256_CTX copy = d->ctx;

    SHA256_Final(ret_bytes, &copy);
}

void digest_reset(struct digest *d)
{
    SHA256_Init(&d->ctx);
}

void digest_hex(const struct digest *d, char ret_hex[DIGEST_HEX_SIZE])
{
    uint8_t sum[DIGEST_SIZE];

    digest_bytes(d, sum);
    digest_to_hex(sum, ret_hex);
}

void digest_free(struct digest *d)
{
    free(d);
}

void digest_sum(const void *bytes, size_t len, uint8_t ret_sum[DIGEST_SIZE])
{
    SHA256_CTX ctx;

    /* Not SHA256(): that one is new inside, and loads providers. */
    SHA256_Init(&ctx);
    SHA256_Update(&ctx, bytes, len);
    SHA256_Final(ret_sum, &ctx);
}

void digest_to_hex(const uint8_t sum[DIGEST_SIZE],
                   char ret_hex[DIGEST_HEX_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < DIGEST_SIZE; i++) {
        ret_hex[2 * i] = digits[sum[i] >> 4];
        ret_hex[2 * i + 1] = digits[sum[i] & 15];
    }
    ret_hex[2 * DIGEST_SIZE] = '\0';
}

int digest_file(int fd, char ret_hex[DIGEST_HEX_SIZE])
{
    enum { CHUNK = 65536 };
    struct digest *d = digest_new();
    uint8_t *buf = malloc(CHUNK);
    uint64_t offset = 0;
    ssize_t n = -ENOMEM;

    if (!d || !buf)
        goto out_free;
    while ((n = io_pread_full(fd, buf, CHUNK, offset)) > 0) {
        digest_update(d, buf, (size_t)n);
        offset += (uint64_t)n;
    }
    if (n == 0)
        digest_hex(d, ret_hex);
out_free:
    free(buf);
    digest_free(d);
    return (int)n;
}
