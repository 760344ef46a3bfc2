/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the client: any bytes from the guest, with every kind of handle open.
 * The first byte says in what pieces they come.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "trial/agent_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const argv[] = {"x", NULL};
static size_t delivered;

static void on_output(void *arg, uint32_t id, uint32_t stream,
                      const void *bytes, size_t len)
{
    struct agent_client **c = arg;

    (void)bytes;
    delivered += len;
    /* Half of the streams have a reader. */
    if (stream == PROTO_STDOUT &&
        agent_client_consumed(*c, id, stream, len) != 0)
        abort();
}

static void on_hello(void *arg, const struct proto_hello *hello)
{
    struct agent_client **c = arg;
    struct agent_exec_request request = {.argv = argv, .open_stdin = true};
    const struct agent_attach_request attach = {0};
    const struct proto_restore restore = {.flags = PROTO_RESTORE_SAME};
    static int fds[2] = {-1, -1};
    uint32_t id;

    if (fds[0] < 0) {
        fds[0] = memfd_create("file", MFD_CLOEXEC);
        fds[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (fds[1] < 0 || ftruncate(fds[0], 300000) < 0)
            abort();
    }
    (void)!lseek(fds[0], 0, SEEK_SET);
    if (agent_client_exec(*c, &request, &id) != 0 ||
        agent_client_read_file(*c, "/f", NULL, 1000, fds[1], &id) != 0 ||
        agent_client_write_file(*c, "/f", NULL, 0600, fds[0], &id) != 0 ||
        agent_client_stat(*c, "/f", NULL, &id) != 0)
        abort();
    (void)!agent_client_stdin_write(*c, 1, "abc", 3);
    if ((hello->features & PROTO_FEATURE_SNAPSHOT) &&
        (agent_client_attach(*c, &attach, &id) != 0 ||
         agent_client_quiesce(*c, 0) != 0 ||
         agent_client_restore(*c, &restore) != 0))
        abort();
}

/* What is handed on has the form it is said to have. */
static void on_restored(void *arg, const struct proto_restored *restored)
{
    (void)arg;
    if (strlen(restored->boot_id) != (restored->err ? 0 : 36))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct agent_client_ops ops = {
        .hello = on_hello, .output = on_output, .restored = on_restored};
    static uint8_t sink[1 << 18];
    struct agent_client *c;
    size_t step, at = 1;
    int sv[2], ret = 0;

    if (size < 2)
        return 0;
    step = data[0] ? data[0] : 65536;
    delivered = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0 ||
        agent_client_new(sv[0], &ops, &c, &c) < 0)
        abort();
    while (ret == 0 && at < size) {
        size_t len = size - at < step ? size - at : step;
        ssize_t n = send(sv[1], data + at, len, MSG_DONTWAIT);

        at += n > 0 ? (size_t)n : 0;
        ret = agent_client_process(c, POLLIN);
        (void)!recv(sv[1], sink, sizeof(sink), MSG_DONTWAIT);
    }
    /* What it delivers came in; and an error always has its sentence. */
    if (delivered > size || (ret && agent_client_reason(c)[0] == '\0'))
        abort();
    agent_client_free(c);
    close(sv[1]);
    return 0;
}
