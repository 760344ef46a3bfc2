/* SPDX-License-Identifier: Apache-2.0 */
/* Non-temporal copies by SSE2, which every x86-64 CPU has; see the header. */
#include "vmm/x86/page_copy.h"

#include <emmintrin.h>

void page_copy(void *to, const void *from, size_t bytes)
{
    const __m128i zero = _mm_setzero_si128();
    const __m128i *s = from;
    __m128i *d = to;

    for (size_t i = 0; i < bytes / sizeof(*d); i += 4) {
        _mm_stream_si128(d + i, s ? _mm_load_si128(s + i) : zero);
        _mm_stream_si128(d + i + 1, s ? _mm_load_si128(s + i + 1) : zero);
        _mm_stream_si128(d + i + 2, s ? _mm_load_si128(s + i + 2) : zero);
        _mm_stream_si128(d + i + 3, s ? _mm_load_si128(s + i + 3) : zero);
    }
}

void page_copy_end(void)
{
    /* Such stores become visible in any order, until here. */
    _mm_sfence();
}
