/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the reader of a snapshot's manifest: any bytes. */
#include <stdlib.h>
#include <string.h>

#include "trial/snapshot_manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

/* What is accepted is the one text of what it says. */
static void check_text(const struct snapshot_manifest *m, const uint8_t *data,
                       size_t size)
{
    char err[SNAPSHOT_ERR_MAX];
    char *text = NULL;
    size_t len = 0;

    require(snapshot_manifest_encode(m, &text, &len, err) == 0);
    require(len == size && memcmp(text, data, size) == 0);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[SNAPSHOT_ERR_MAX] = "";
    struct snapshot_manifest m;
    int ret = snapshot_manifest_parse((const char *)data, size, &m, err);

    if (ret < 0) {
        require(err[0] != '\0' && strpbrk(err, "\n\r\x1b") == NULL);
        return 0;
    }
    /* What the rest of the program relies on. */
    require(m.file_count >= 3 && m.file_count <= SNAPSHOT_FILES_MAX);
    require(m.disk_count <= VM_DISKS_MAX);
    for (uint32_t i = 0; i < m.file_count; i++)
        require(strchr(m.files[i].name, '/') == NULL &&
                m.files[i].name[0] != '.');
    check_text(&m, data, size);
    snapshot_manifest_fini(&m);
    return 0;
}
