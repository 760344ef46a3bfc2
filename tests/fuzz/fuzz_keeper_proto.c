/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may come over a keeper's socket, either way: the first byte is the
 * message's type. What decodes must encode to the same bytes again.
 */
#include <stdlib.h>
#include <string.h>

#include "trial/keeper_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t buf[MSG_PAYLOAD_MAX];
    static union keeper_body body;
    size_t len = 0;
    uint32_t type;

    if (size-- == 0 || size > MSG_PAYLOAD_MAX)
        return 0;
    type = *data++;
    if (keeper_decode(type, data, size, &body) != 0)
        return 0;
    if (keeper_encode((enum keeper_message)type, &body, buf, &len) != 0 ||
        len != size || memcmp(buf, data, len) != 0)
        abort();
    return 0;
}
