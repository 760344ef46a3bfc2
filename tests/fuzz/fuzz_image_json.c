/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the reader of image.json: any bytes. */
#include <stdlib.h>
#include <string.h>

#include "trial/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[IMAGE_ERR_MAX];
    struct image image;
    int ret;

    err[0] = '\0';
    ret = image_parse((const char *)data, size, &image, err, sizeof(err));
    if (ret < 0 && (err[0] == '\0' || strpbrk(err, "\n\r\x1b") != NULL))
        abort();
    if (ret < 0)
        return 0;
    /* What the rest of the program relies on. */
    if (strchr(image.kernel.path, '/') != NULL || image.cmdline == NULL ||
        image.env[image.env_count] != NULL || image.rootfs.bytes == 0)
        abort();
    image_fini(&image);
    return 0;
}
