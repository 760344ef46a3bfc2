/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An init that speaks the agent's protocol until the harness asks for the
 * workload, and then does what only the owner of a guest's kernel or agent
 * can do: panic, halt, lie, hang up. The kernel's command line says what:
 * hostile=MODE. Static, the whole initrd; built by tests/vm/lib.sh.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "guest/proto.h"

static char mode[32];

static void __attribute__((noreturn)) halt(int how)
{
    reboot(how);
    for (;;)
        pause();
}

static void read_mode(void)
{
    static char line[4096];
    const char *word;
    int fd;

    mkdir("/proc", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    fd = open("/proc/cmdline", O_RDONLY);
    if (fd < 0 || read(fd, line, sizeof(line) - 1) <= 0)
        halt(RB_POWER_OFF);
    close(fd);
    word = strstr(line, "hostile=");
    if (word)
        sscanf(word, "hostile=%31[a-z_]", mode);
}

static bool is(const char *name)
{
    return !strcmp(mode, name);
}

static int listen_at(unsigned port)
{
    struct sockaddr_vm addr = {
        .svm_family = AF_VSOCK,
        .svm_cid = VMADDR_CID_ANY,
        .svm_port = port,
    };
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) ||
        listen(fd, 8))
        halt(RB_POWER_OFF);
    return fd;
}

static void send_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);

        if (n <= 0)
            return;
        bytes += n;
        len -= (size_t)n;
    }
}

static void send_hello(int fd)
{
    struct proto_hello hello = {
        .version = PROTO_VERSION,
        .features = PROTO_FEATURES_LIMITS,
        .memory_total = 1 << 28,
        .release = "6.1-\x1b[31mhostile\"\n",
    };
    uint8_t buf[512];
    struct proto_writer w;

    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_hello(&w, &hello);
    send_all(fd, buf, w.used);
}

static const char TEXT[] = "started\n";

static void send_started(int fd, uint32_t id)
{
    uint8_t buf[512];
    struct proto_writer w;

    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_empty(&w, PROTO_EXEC_STARTED, id);
    proto_put_data(&w, id, PROTO_STDOUT, TEXT, sizeof(TEXT) - 1);
    send_all(fd, buf, w.used);
}

/* The end with status 0, of a command that wrote that much. */
static void send_exit(int fd, uint32_t id, uint64_t stdout_bytes)
{
    struct proto_exec_exit status = {.stdout_bytes = stdout_bytes};
    uint8_t buf[512];
    struct proto_writer w;

    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_exec_exit(&w, id, &status);
    send_all(fd, buf, w.used);
}

/* Output without regard to credit. */
static void send_flood(int fd, uint32_t id)
{
    static uint8_t buf[PROTO_FRAME_MAX], zeros[PROTO_DATA_MAX];
    struct proto_writer w;

    for (int i = 0; i < 8; i++) {
        proto_writer_init(&w, buf, sizeof(buf));
        proto_put_data(&w, id, PROTO_STDOUT, zeros, sizeof(zeros));
        send_all(fd, buf, w.used);
    }
}

static void send_garbage(int fd)
{
    static uint8_t bytes[4096];

    memset(bytes, 0xa5, sizeof(bytes));
    send_all(fd, bytes, sizeof(bytes));
}

/* Waits for the request to run something and gives its id. */
static uint32_t await_exec(int fd)
{
    static struct proto_inbox inbox;
    struct proto_header header;
    const uint8_t *payload;

    proto_inbox_init(&inbox, PROTO_FROM_HOST);
    for (;;) {
        size_t room;
        uint8_t *space = proto_inbox_space(&inbox, &room);
        ssize_t n = read(fd, space, room);

        if (n <= 0)
            return 0;
        proto_inbox_add(&inbox, (size_t)n);
        while (proto_inbox_next(&inbox, &header, &payload) == 1) {
            if (header.type == PROTO_EXEC_STRINGS)
                return header.id;
        }
    }
}

static void misbehave(int fd, uint32_t id)
{
    if (is("stall"))
        return;
    if (is("forge_id")) {
        send_exit(fd, id + 1, 0);
        return;
    }
    send_started(fd, id);
    sleep(1);
    if (is("panic"))
        exit(1); /* nobody survives the end of PID 1 */
    else if (is("halt"))
        halt(RB_POWER_OFF);
    else if (is("reset"))
        halt(RB_AUTOBOOT);
    else if (is("garbage"))
        send_garbage(fd);
    else if (is("flood"))
        send_flood(fd, id);
    else if (is("hangup"))
        close(fd);
    else if (is("lie"))
        send_exit(fd, id, sizeof(TEXT) + 5);
    else if (is("forge_ok")) {
        send_exit(fd, id, sizeof(TEXT) - 1);
        send_garbage(fd);
    }
}

static void serve(int fd)
{
    if (is("mute"))
        return;
    if (is("hangup_first")) {
        close(fd);
        return;
    }
    if (is("garbage_first")) {
        send_garbage(fd);
        return;
    }
    if (is("panic_first"))
        exit(1);
    if (is("halt_first"))
        halt(RB_POWER_OFF);
    send_hello(fd);
    misbehave(fd, await_exec(fd));
}

int main(void)
{
    int fd;

    read_mode();
    fd = listen_at(PROTO_VSOCK_PORT);
    for (;;) {
        int conn = accept(fd, NULL, NULL);

        if (conn >= 0)
            serve(conn);
    }
}
