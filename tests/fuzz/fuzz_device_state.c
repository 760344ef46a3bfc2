/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device loads a state that nobody saved, over guest memory that nobody
 * filled in sensibly. If it takes it, the device is driven, saved, moved to
 * another machine and driven again: see tests/state_rig.h.
 *
 * Input: one byte (which device; 3 is the serial port), the length of the state
 * (2, little-endian), the state, and what guest memory begins with.
 */
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "devices/serial/serial8250.h"
#include "tests/state_rig.h"

#define HEADER_SIZE 3u
#define KINDS (STATE_RIG_KINDS + 1)
#define SERIAL_STATE_MAX 1024u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void fuzz_virtio(enum state_rig_kind kind, const uint8_t *state,
                        size_t len, const uint8_t *memory, size_t memory_len)
{
    struct state_rig rig;

    state_rig_init(&rig, kind);
    if (memory_len > 0)
        memcpy(fake_guest_ptr(&rig.d.guest, FAKE_GUEST_BASE, memory_len),
               memory, memory_len);
    if (fake_driver_load(&rig.d, state, len) == 0)
        state_rig_exercise(&rig);
    state_rig_fini(&rig);
}

/* What is loaded is saved again as it was. */
static void serial_round_trip(struct serial8250 *port, const uint8_t *state,
                              size_t len)
{
    uint8_t bytes[SERIAL_STATE_MAX];
    struct state_writer w;

    state_writer_init(&w, bytes, sizeof(bytes));
    serial8250_save(port, &w);
    must(w.error == 0 && w.used == len && memcmp(bytes, state, len) == 0);
}

static void fuzz_serial(const uint8_t *state, size_t len)
{
    struct serial8250_options options = {.in_fd = -1, .out_fd = -1};
    struct serial8250 *port;
    struct state_reader r;

    must(evloop_new(NULL, &options.loop) == 0);
    must(serial8250_new(&options, &port) == 0);
    state_reader_init(&r, state, len);
    if (serial8250_load(port, &r) == 0) {
        serial_round_trip(port, state, len);
        serial8250_restored(port);
        for (unsigned i = 0; i < 64u * SERIAL8250_PORTS; i++) {
            unsigned reg = i % SERIAL8250_PORTS;

            (void)serial8250_bus_ops.read(port, reg, 1);
            serial8250_bus_ops.write(port, reg, 1, i);
        }
    }
    serial8250_free(port);
    evloop_free(options.loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned kind;
    size_t len;

    if (size < HEADER_SIZE)
        return 0;
    kind = data[0] % KINDS;
    len = (size_t)num_min(num_get_le16(data + 1), size - HEADER_SIZE);
    data += HEADER_SIZE;
    size -= HEADER_SIZE + len;
    if (kind == STATE_RIG_KINDS)
        fuzz_serial(data, len);
    else
        fuzz_virtio((enum state_rig_kind)kind, data, len, data + len,
                    (size_t)num_min(size, STATE_RIG_MEMORY));
    return 0;
}
