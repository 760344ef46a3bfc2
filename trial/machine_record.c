/* SPDX-License-Identifier: Apache-2.0 */
/* machine.json; see the header. */
#include "trial/machine_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "trial/json_make.h"
#include "trial/json_text.h"

static const char *const STATES[] = {
    [MACHINE_STARTING] = "starting", [MACHINE_RUNNING] = "running",
    [MACHINE_EXITED] = "exited",     [MACHINE_EXPIRED] = "expired",
    [MACHINE_FAILED] = "failed",     [MACHINE_DEAD] = "dead",
};
#define STATES_COUNT (sizeof(STATES) / sizeof(STATES[0]))

const char *machine_state_name(enum machine_state state)
{
    return STATES[state];
}

/* One list of fields drives both directions, as in keeper_proto.c. */
struct walker {
    json_t *object;
    bool reading;
    size_t count; /* of fields met */
    bool bad;
};

static json_t *take(struct walker *w, const char *key)
{
    json_t *value = json_object_get(w->object, key);

    w->count++;
    if (!value)
        w->bad = true;
    return value;
}

static void put(struct walker *w, const char *key, json_t *value)
{
    if (json_object_set_new(w->object, key, value) != 0)
        w->bad = true;
}

/* A string; "" is null. */
static void walk_text(struct walker *w, const char *key, char *text,
                      size_t size)
{
    const json_t *value;

    if (!w->reading) {
        put(w, key, json_text(text[0] ? text : NULL));
        return;
    }
    value = take(w, key);
    text[0] = '\0';
    if (json_is_null(value))
        return;
    if (!json_is_string(value) || json_string_length(value) >= size ||
        strlen(json_string_value(value)) != json_string_length(value)) {
        w->bad = true;
        return;
    }
    strcpy(text, json_string_value(value));
}

static int64_t walk_number(struct walker *w, const char *key, int64_t number,
                           int64_t max)
{
    const json_t *value;

    if (!w->reading) {
        put(w, key, json_integer(number));
        return number;
    }
    value = take(w, key);
    if (json_is_integer(value) && json_integer_value(value) >= 0 &&
        json_integer_value(value) <= max)
        return json_integer_value(value);
    w->bad = true;
    return 0;
}

static enum machine_state walk_state(struct walker *w, enum machine_state state)
{
    char name[16];

    snprintf(name, sizeof(name), "%s", STATES[state]);
    walk_text(w, "state", name, sizeof(name));
    for (size_t i = 0; i < STATES_COUNT; i++) {
        if (!strcmp(name, STATES[i]))
            return (enum machine_state)i;
    }
    w->bad = true;
    return state;
}

static void walk(struct walker *w, struct machine_record *r)
{
    walk_text(w, "name", r->name, sizeof(r->name));
    r->state = walk_state(w, r->state);
    r->protocol = (uint32_t)walk_number(w, "protocol", r->protocol, UINT16_MAX);
    r->created_at = walk_number(w, "created_at", r->created_at, INT64_MAX);
    r->ended_at = walk_number(w, "ended_at", r->ended_at, INT64_MAX);
    r->ttl_ms =
        (uint64_t)walk_number(w, "ttl_ms", (int64_t)r->ttl_ms, INT64_MAX);
    r->keeper = (pid_t)walk_number(w, "keeper", r->keeper, INT32_MAX);
    /* Machines that an earlier version started have none. */
    if (!w->reading || json_object_get(w->object, "keeper_start"))
        r->keeper_start = (uint64_t)walk_number(
            w, "keeper_start", (int64_t)r->keeper_start, INT64_MAX);
    walk_text(w, "image", r->image, sizeof(r->image));
    walk_text(w, "image_sha256", r->image_sha256, sizeof(r->image_sha256));
    walk_text(w, "snapshot", r->snapshot, sizeof(r->snapshot));
    walk_text(w, "kernel", r->kernel, sizeof(r->kernel));
    r->memory_bytes =
        (uint64_t)walk_number(w, "memory", (int64_t)r->memory_bytes, INT64_MAX);
    r->disk_limit = (uint64_t)walk_number(w, "disk_limit",
                                          (int64_t)r->disk_limit, INT64_MAX);
    r->cpu_count = (uint32_t)walk_number(w, "cpus", r->cpu_count, UINT16_MAX);
    walk_text(w, "vsock", r->vsock, sizeof(r->vsock));
    walk_text(w, "command", r->command, sizeof(r->command));
    r->exit_status = (int)walk_number(w, "exit_status", r->exit_status, 255);
    walk_text(w, "outcome", r->outcome, sizeof(r->outcome));
    walk_text(w, "cause", r->cause, sizeof(r->cause));
    walk_text(w, "message", r->message, sizeof(r->message));
}

json_t *machine_record_to_json(const struct machine_record *record)
{
    struct machine_record copy = *record;
    struct walker w = {.object = json_object()};

    if (w.object)
        walk(&w, &copy);
    if (!w.bad)
        return w.object;
    json_decref(w.object);
    return NULL;
}

int machine_record_from_json(const char *text, size_t len,
                             struct machine_record *ret_record)
{
    struct machine_record r = {0};
    struct walker w = {.reading = true};

    w.object = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(w.object)) {
        json_decref(w.object);
        return -EBADMSG;
    }
    walk(&w, &r);
    if (json_object_size(w.object) != w.count)
        w.bad = true;
    json_decref(w.object);
    if (w.bad || r.state == MACHINE_DEAD || !registry_name_is_valid(r.name))
        return -EBADMSG;
    *ret_record = r;
    return 0;
}

int machine_record_write(const struct registry_entry *entry,
                         const struct machine_record *record)
{
    json_t *object = machine_record_to_json(record);
    char *text = json_write(object, JSON_COMPACT);
    int fd = -1;
    int ret = -ENOMEM;

    json_decref(object);
    if (!text)
        return ret;
    fd = openat(entry->dir_fd, "machine.json.new",
                O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ret = fd < 0 ? -errno : io_write_full(fd, text, strlen(text));
    io_close(&fd);
    if (ret == 0 && renameat(entry->dir_fd, "machine.json.new", entry->dir_fd,
                             "machine.json") != 0)
        ret = -errno;
    free(text);
    return ret;
}

static int read_file(int dir_fd, char *buf, size_t size)
{
    int fd = openat(dir_fd, "machine.json", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = io_read_full(fd, buf, size);
    io_close(&fd);
    return (int)n;
}

int machine_record_read(const struct registry_entry *entry,
                        struct machine_record *ret_record, struct failure *f)
{
    /* Asked before: a keeper writes how it ended, and then lets go. */
    bool alive = registry_is_alive(entry);
    char *buf = malloc(MACHINE_RECORD_MAX);
    int n = buf ? read_file(entry->dir_fd, buf, MACHINE_RECORD_MAX) : -ENOMEM;
    int ret = n < 0 ? n : -EBADMSG;

    if (n >= 0 && n < (int)MACHINE_RECORD_MAX)
        ret = machine_record_from_json(buf, (size_t)n, ret_record);
    free(buf);
    if (ret == 0 && !alive && ret_record->ended_at == 0)
        ret_record->state = MACHINE_DEAD;
    if (ret != 0)
        failure_set(f, "record", entry->name, "microsbx rm -f removes it",
                    "cannot read the record of the machine %s: %s", entry->name,
                    ret == -EBADMSG ? "it is damaged" : strerror(-ret));
    return ret;
}

void machine_record_command(char buf[MACHINE_COMMAND_MAX + 1],
                            const char *const *argv)
{
    char *at = buf;
    size_t room = MACHINE_COMMAND_MAX + 1;

    buf[0] = '\0';
    for (; argv && *argv && room > 1; argv++) {
        size_t len;

        if (at != buf) {
            *at++ = ' ';
            room--;
        }
        text_escape(*argv, strlen(*argv), at, room);
        len = strlen(at);
        at += len;
        room -= len;
    }
}
