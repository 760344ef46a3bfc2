/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for people: bytes of a guest made harmless for a terminal, and the
 * nearest word to a misspelt one.
 */
#ifndef MICROSBX_BASE_TEXT_H
#define MICROSBX_BASE_TEXT_H

#include <stddef.h>

/*
 * Copies len bytes as printable ASCII; everything else becomes \xNN (and \n,
 * \t, \\ as themselves escaped). Always terminated, cut to fit.
 */
void text_escape(const void *bytes, size_t len, char *buf, size_t size);

/*
 * The word of a NULL-terminated list that is nearest to a misspelt one, or
 * NULL if none is near enough to be meant.
 */
const char *text_nearest(const char *word, const char *const *candidates);

#endif
