/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256; see the header. */
#include "base/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"

struct digest {
    EVP_MD_CTX *ctx;
};

struct digest *digest_new(void)
{
    struct digest *d = calloc(1, sizeof(*d));

    if (!d)
        return NULL;
    d->ctx = EVP_MD_CTX_new();
    if (!d->ctx || EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1) {
        digest_free(d);
        return NULL;
    }
    return d;
}

void digest_update(struct digest *d, const void *bytes, size_t len)
{
    EVP_DigestUpdate(d->ctx, bytes, len);
}

void digest_hex(const struct digest *d, char ret_hex[DIGEST_HEX_SIZE])
{
    uint8_t sum[EVP_MAX_MD_SIZE] = {0};
    EVP_MD_CTX *copy = EVP_MD_CTX_new();

    if (copy && EVP_MD_CTX_copy_ex(copy, d->ctx) == 1)
        EVP_DigestFinal_ex(copy, sum, NULL);
    EVP_MD_CTX_free(copy);
    for (int i = 0; i < 32; i++)
        snprintf(ret_hex + 2 * i, 3, "%02x", sum[i]);
}

void digest_free(struct digest *d)
{
    if (!d)
        return;
    EVP_MD_CTX_free(d->ctx);
    free(d);
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
