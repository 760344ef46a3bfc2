/* SPDX-License-Identifier: Apache-2.0 */
/* Text for people; see the header. */
#include "base/text.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Longer words are not compared: nobody misspells them into an option. */
#define WORD_MAX 48

/* Writes one byte escaped into piece (5 bytes); returns its length. */
static size_t escape_byte(uint8_t byte, char *piece)
{
    if (byte == '\n' || byte == '\t' || byte == '\\') {
        piece[0] = '\\';
        piece[1] = byte == '\n' ? 'n' : byte == '\t' ? 't' : '\\';
        piece[2] = '\0';
        return 2;
    }
    if (byte >= 0x20 && byte < 0x7f) {
        piece[0] = (char)byte;
        piece[1] = '\0';
        return 1;
    }
    snprintf(piece, 5, "\\x%02x", byte);
    return 4;
}

void text_escape(const void *bytes, size_t len, char *buf, size_t size)
{
    const uint8_t *p = bytes;
    size_t used = 0;

    if (size == 0)
        return;
    for (size_t i = 0; i < len; i++) {
        char piece[5];
        size_t n = escape_byte(p[i], piece);

        if (used + n >= size)
            break;
        memcpy(buf + used, piece, n);
        used += n;
    }
    buf[used] = '\0';
}

/* Edit distance (insert, delete, replace); longer words are never near. */
static unsigned edit_distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    unsigned row[WORD_MAX + 1];

    if (la > WORD_MAX || lb > WORD_MAX)
        return UINT_MAX;
    for (size_t j = 0; j <= lb; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            unsigned above = row[j];
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);

            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[lb];
}

const char *text_nearest(const char *word, const char *const *candidates)
{
    const char *best = NULL;
    unsigned best_distance = (unsigned)strlen(word) / 3 + 2;

    for (; *candidates; candidates++) {
        unsigned distance = edit_distance(word, *candidates);

        if (distance < best_distance) {
            best = *candidates;
            best_distance = distance;
        }
    }
    return best;
}
