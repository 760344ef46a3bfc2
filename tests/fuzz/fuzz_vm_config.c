/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's description: the first byte says how many descriptors came. */
#include <errno.h>
#include <stdlib.h>

#include "base/msg.h"
#include "vmm/vm_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t again[MSG_PAYLOAD_MAX];
    int fds[MSG_FDS_MAX];
    struct vm_config config;
    size_t fd_count, len;

    if (size == 0)
        return 0;
    fd_count = data[0] % (MSG_FDS_MAX + 1);
    for (size_t i = 0; i < fd_count; i++)
        fds[i] = 1000 + (int)i; /* numbers only: nothing is closed here */
    if (vm_config_decode(data + 1, size - 1, fds, fd_count, &config) != 0)
        return 0;
    /* What decodes encodes to the same number of bytes and descriptors. */
    if (vm_config_encode(&config, again, sizeof(again), &len, fds, &fd_count) !=
            0 ||
        len != size - 1 || fd_count != data[0] % (MSG_FDS_MAX + 1))
        abort();
    return 0;
}
