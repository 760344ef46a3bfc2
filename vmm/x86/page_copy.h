/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of whole pages past the caches: for pages that nobody here looks at
 * again. Not reading what is overwritten makes it half as long.
 */
#ifndef MICROSBX_VMM_X86_PAGE_COPY_H
#define MICROSBX_VMM_X86_PAGE_COPY_H

#include <stddef.h>

/*
 * Copies bytes, a multiple of 64; both addresses are, too. from NULL: zeros.
 * Call page_copy_end once after the last, before anybody else may look.
 */
void page_copy(void *to, const void *from, size_t bytes);
void page_copy_end(void);

#endif
