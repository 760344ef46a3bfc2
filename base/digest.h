/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 by libcrypto. The monitor digests its guest's memory by it (to prove
 * what was loaded), and nothing else: it checks no digest.
 */
#ifndef MICROSBX_BASE_DIGEST_H
#define MICROSBX_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST_SIZE 32
#define DIGEST_HEX_SIZE 65 /* 64 hex digits and a NUL */

struct digest;

/* A running SHA-256, or NULL if memory is short. */
struct digest *digest_new(void);
void digest_update(struct digest *d, const void *bytes, size_t len);
/* The digest of what came so far, as lower-case hex; d stays usable. */
void digest_hex(const struct digest *d, char ret_hex[DIGEST_HEX_SIZE]);
/* The same as bytes. */
void digest_bytes(const struct digest *d, uint8_t ret_bytes[DIGEST_SIZE]);
/* Begins anew. */
void digest_reset(struct digest *d);
void digest_free(struct digest *d);

/* The digest of len bytes at once. */
void digest_sum(const void *bytes, size_t len, uint8_t ret_sum[DIGEST_SIZE]);
/* As lower-case hex. */
void digest_to_hex(const uint8_t sum[DIGEST_SIZE],
                   char ret_hex[DIGEST_HEX_SIZE]);

/* Digest of a whole file from its beginning: 0 or a negative errno. */
int digest_file(int fd, char ret_hex[DIGEST_HEX_SIZE])
    __attribute__((warn_unused_result));

#endif
