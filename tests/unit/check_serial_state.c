/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serial port saved and loaded: what the guest finds, output that is not
 * printed twice, interrupts that are not lost, and states nobody saved.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/serial/serial8250.h"

#define DATA 0u
#define IER 1u
#define IIR 2u
#define FCR 2u
#define LCR 3u
#define MCR 4u
#define LSR 5u
#define MSR 6u
#define SCR 7u

#define RDI 1u
#define THRI 2u
#define ALL_INTERRUPTS 0xfu
#define IIR_NONE 1u
#define IIR_THRI 2u
#define DLAB 0x80u
#define DR 1u
#define OE 2u
#define READY 0x60u /* THRE, TEMT */
#define RTS 2u
#define LOOP 0x10u
#define RX_MAX 256u

/* The layout of a state: the format, written down once more. */
#define AT_IER 0u
#define AT_FCR 1u
#define AT_MCR 3u
#define AT_ERRORS 4u
#define AT_MSR 5u
#define AT_EVENT 9u
#define AT_RX_COUNT 10u
#define AT_RX 12u

struct port {
    struct evloop *loop;
    struct serial8250 *serial;
    unsigned interrupts;
    int in;  /* what we write, the guest reads */
    int out; /* what the guest writes, we read */
};

struct state {
    uint8_t bytes[1024];
    size_t len;
};

static struct port p;
static struct state saved;

static void count_interrupt(void *ctx)
{
    ((struct port *)ctx)->interrupts++;
}

static void port_init(struct port *port)
{
    struct serial8250_options options = {.irq = {count_interrupt, port}};
    int in[2], out[2];

    signal(SIGPIPE, SIG_IGN);
    memset(port, 0, sizeof(*port));
    ck_assert_int_eq(pipe2(in, O_NONBLOCK), 0);
    ck_assert_int_eq(pipe2(out, O_NONBLOCK), 0);
    port->in = in[1];
    port->out = out[0];
    ck_assert_int_eq(evloop_new(NULL, &port->loop), 0);
    options.loop = port->loop;
    options.in_fd = in[0];
    options.out_fd = out[1];
    ck_assert_int_eq(serial8250_new(&options, &port->serial), 0);
}

static void port_fini(struct port *port)
{
    serial8250_free(port->serial);
    evloop_free(port->loop);
    close(port->in);
    close(port->out);
}

static void setup(void)
{
    port_init(&p);
}

static void teardown(void)
{
    port_fini(&p);
}

static void put(struct port *port, unsigned reg, uint8_t value)
{
    serial8250_bus_ops.write(port->serial, reg, 1, value);
}

static uint8_t get(struct port *port, unsigned reg)
{
    return (uint8_t)serial8250_bus_ops.read(port->serial, reg, 1);
}

static void save(const struct port *port, struct state *ret_state)
{
    struct state_writer w;

    state_writer_init(&w, ret_state->bytes, sizeof(ret_state->bytes));
    serial8250_save(port->serial, &w);
    ck_assert_int_eq(w.error, 0);
    ret_state->len = w.used;
}

static int load(struct port *port, const struct state *state)
{
    /* An exact copy, so that a sanitizer sees a read beyond its end. */
    uint8_t *copy = malloc(state->len ? state->len : 1);
    unsigned interrupts = port->interrupts;
    struct state_reader r;
    int ret;

    ck_assert_ptr_nonnull(copy);
    memcpy(copy, state->bytes, state->len);
    state_reader_init(&r, copy, state->len);
    ret = serial8250_load(port->serial, &r);
    free(copy);
    ck_assert_uint_eq(port->interrupts, interrupts);
    return ret;
}

/* Another monitor goes on with the guest. */
static void move(void)
{
    struct state again;

    save(&p, &saved);
    port_fini(&p);
    port_init(&p);
    ck_assert_int_eq(load(&p, &saved), 0);
    save(&p, &again);
    ck_assert_uint_eq(again.len, saved.len);
    ck_assert_mem_eq(again.bytes, saved.bytes, saved.len);
}

static size_t host_read(struct port *port, char *ret_bytes, size_t size)
{
    ssize_t n = read(port->out, ret_bytes, size);

    return n > 0 ? (size_t)n : 0;
}

static void host_write(const char *text)
{
    ck_assert_int_eq(write(p.in, text, strlen(text)), (int)strlen(text));
    while (evloop_run_once(p.loop, 0) > 0)
        ;
}

START_TEST(test_registers)
{
    put(&p, LCR, DLAB);
    put(&p, DATA, 0x34);
    put(&p, IER, 0x12);
    put(&p, LCR, 0x1b);
    put(&p, IER, 0x0d);
    put(&p, FCR, 0xc9);
    put(&p, MCR, 0x0b);
    put(&p, SCR, 0x5a);
    (void)get(&p, MSR);
    move();
    serial8250_restored(p.serial);
    ck_assert_uint_eq(get(&p, LCR), 0x1b);
    ck_assert_uint_eq(get(&p, IER), 0x0d);
    ck_assert_uint_eq(get(&p, IIR) & 0xc0, 0xc0); /* FIFOs are on */
    ck_assert_uint_eq(get(&p, MCR), 0x0b);
    ck_assert_uint_eq(get(&p, MSR), 0xb0);
    ck_assert_uint_eq(get(&p, SCR), 0x5a);
    put(&p, LCR, DLAB);
    ck_assert_uint_eq(get(&p, DATA), 0x34);
    ck_assert_uint_eq(get(&p, IER), 0x12);
    /* An idle line has nothing to say. */
    ck_assert_uint_eq(p.interrupts, 0);
}
END_TEST

/* Errors and changed lines wait to be read. */
START_TEST(test_pending_conditions)
{
    put(&p, IER, ALL_INTERRUPTS);
    put(&p, MCR, LOOP | RTS);
    put(&p, DATA, 'a');
    put(&p, DATA, 'b'); /* no FIFO: an overrun */
    move();
    ck_assert_uint_eq(p.interrupts, 0);
    serial8250_restored(p.serial);
    ck_assert_uint_eq(p.interrupts, 1); /* whatever was on its way */
    ck_assert_uint_eq(get(&p, IIR) & 0xf, 0x06);
    ck_assert_uint_eq(get(&p, LSR), OE | DR | READY);
    ck_assert_uint_eq(get(&p, IIR) & 0xf, 0x04);
    ck_assert_uint_eq(get(&p, DATA), 'a');
    ck_assert_uint_eq(get(&p, IIR) & 0xf, IIR_THRI);
    ck_assert_uint_eq(get(&p, IIR) & 0xf, 0x00);
    ck_assert_uint_ne(get(&p, MSR) & 0x0f, 0);
    ck_assert_uint_eq(get(&p, IIR) & 0xf, IIR_NONE);
}
END_TEST

/* What was received and not read stays, in order, wherever it lay. */
START_TEST(test_received_bytes)
{
    put(&p, IER, RDI);
    host_write("0123456789");
    for (int i = 0; i < 4; i++)
        (void)get(&p, DATA);
    /* Nearly round the ring. */
    for (unsigned i = 0; i < RX_MAX - 10; i++) {
        host_write("x");
        (void)get(&p, DATA);
    }
    host_write("abcdefgh");
    move();
    ck_assert_uint_eq(saved.bytes[AT_RX_COUNT], 14);
    serial8250_restored(p.serial);
    ck_assert_uint_eq(p.interrupts, 1);
    for (unsigned i = 0; i < 6; i++)
        ck_assert_uint_eq(get(&p, DATA), 'x');
    for (unsigned i = 0; i < 8; i++)
        ck_assert_int_eq(get(&p, DATA), "abcdefgh"[i]);
    ck_assert_uint_eq(get(&p, LSR), READY);
    /* New input goes on behind it. */
    host_write("z");
    ck_assert_uint_eq(p.interrupts, 2);
    ck_assert_uint_eq(get(&p, DATA), 'z');
}
END_TEST

/* Input that waits in the descriptor is looked at only once the guest runs. */
START_TEST(test_load_reads_no_input)
{
    struct state again;

    put(&p, IER, RDI);
    save(&p, &saved);
    port_fini(&p);
    port_init(&p);
    ck_assert_int_eq(write(p.in, "early", 5), 5);
    ck_assert_int_eq(load(&p, &saved), 0);
    ck_assert_int_eq(evloop_run_once(p.loop, 0), 0);
    save(&p, &again);
    ck_assert_uint_eq(again.len, saved.len);
    serial8250_restored(p.serial);
    ck_assert_int_gt(evloop_run_once(p.loop, 0), 0);
    ck_assert_uint_eq(p.interrupts, 1);
    ck_assert_uint_eq(get(&p, DATA), 'e');
}
END_TEST

/* Fills pipe and buffer; returns the bytes sent. */
static unsigned stall_output(void)
{
    unsigned sent = 0;

    while (get(&p, LSR) & READY) {
        put(&p, DATA, (uint8_t)('a' + sent % 26));
        sent++;
    }
    return sent;
}

/*
 * A reader that was slow: what it has not read yet comes out of the run that
 * printed it, whole, and not of the one restored from it.
 */
START_TEST(test_output_is_not_printed_twice)
{
    static char bytes[1 << 20];
    struct port child;
    unsigned sent;
    size_t read_in_all = 0, n;

    put(&p, IER, THRI);
    (void)get(&p, IIR);
    sent = stall_output();
    ck_assert_uint_eq(get(&p, IIR) & 0xf, IIR_NONE);
    save(&p, &saved);

    port_init(&child);
    ck_assert_int_eq(load(&child, &saved), 0);
    serial8250_restored(child.serial);
    /* The child's transmitter is empty, and its driver hears of it. */
    ck_assert_uint_eq(child.interrupts, 1);
    ck_assert_uint_eq(get(&child, IIR) & 0xf, IIR_THRI);
    ck_assert_uint_eq(get(&child, LSR), READY);
    put(&child, DATA, '!');
    serial8250_flush(child.serial);
    n = host_read(&child, bytes, sizeof(bytes));
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(bytes[0], '!');
    ck_assert_uint_eq(serial8250_stats(child.serial)->bytes_out, 1);
    port_fini(&child);

    /* The parent goes on as if nothing had been. */
    ck_assert_uint_eq(get(&p, LSR) & READY, 0);
    do {
        n = host_read(&p, bytes, sizeof(bytes));
        for (size_t i = 0; i < n; i++)
            ck_assert_int_eq(bytes[i], (int)('a' + (read_in_all + i) % 26));
        read_in_all += n;
        while (evloop_run_once(p.loop, 0) > 0)
            ;
    } while (n > 0);
    ck_assert_uint_eq(read_in_all, sent);
}
END_TEST

/* Rolled back in place: what is buffered goes out or is lost; counts restart.
 */
START_TEST(test_load_into_a_port_in_use)
{
    static char bytes[1 << 20];
    struct state again;

    put(&p, IER, THRI | RDI);
    host_write("kept");
    save(&p, &saved);
    (void)stall_output();
    for (int i = 0; i < 3; i++)
        (void)get(&p, DATA);
    host_write("input");
    ck_assert_int_eq(load(&p, &saved), 0);
    ck_assert_int_eq(write(p.in, "early", 5), 5);
    (void)evloop_run_once(p.loop, 0); /* it listened before; not now */
    ck_assert_uint_eq(serial8250_stats(p.serial)->bytes_out, 0);
    ck_assert_uint_eq(serial8250_stats(p.serial)->bytes_in, 0);
    save(&p, &again);
    ck_assert_uint_eq(again.len, saved.len);
    ck_assert_mem_eq(again.bytes, saved.bytes, saved.len);
    serial8250_restored(p.serial);
    (void)evloop_run_once(p.loop, 0);
    for (int i = 0; i < 9; i++)
        ck_assert_int_eq(get(&p, DATA), "keptearly"[i]);
    ck_assert_uint_eq(get(&p, LSR), READY);
    while (host_read(&p, bytes, sizeof(bytes)) > 0)
        ;
    put(&p, DATA, '\n');
    ck_assert_uint_eq(host_read(&p, bytes, sizeof(bytes)), 1);
    ck_assert_uint_eq(serial8250_stats(p.serial)->bytes_out, 1);
}
END_TEST

/* ---- states nobody saved ---- */

/* A port with something in every field. */
static void make_busy(void)
{
    put(&p, IER, RDI | THRI);
    put(&p, FCR, 0xc1);
    host_write("some input");
    put(&p, MCR, 0x0b);
    put(&p, SCR, 0xff);
    (void)get(&p, DATA);
    save(&p, &saved);
}

/* Whatever was loaded: every register, many times over. */
static void exercise(void)
{
    static char bytes[8192];
    struct state again;

    serial8250_restored(p.serial);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned reg = 0; reg < SERIAL8250_PORTS; reg++)
            (void)get(&p, reg);
        for (unsigned i = 0; i < RX_MAX + 1; i++)
            (void)get(&p, DATA);
        put(&p, DATA, 'x');
        put(&p, MCR, round == 1 ? LOOP : RTS);
        host_write("more");
        (void)host_read(&p, bytes, sizeof(bytes));
    }
    save(&p, &again);
    ck_assert_int_eq(load(&p, &again), 0);
}

START_TEST(test_truncated_or_longer)
{
    struct state cut;

    make_busy();
    for (size_t len = 0; len < saved.len; len++) {
        cut = saved;
        cut.len = len;
        ck_assert_int_eq(load(&p, &cut), -EBADMSG);
        /* As it was made. */
        ck_assert_uint_eq(get(&p, LSR), READY);
        ck_assert_uint_eq(get(&p, IER), 0);
        ck_assert_uint_eq(get(&p, MSR), 0xb0);
    }
    cut = saved;
    cut.len++;
    ck_assert_int_eq(load(&p, &cut), -EBADMSG);
    ck_assert_int_eq(load(&p, &saved), 0);
    exercise();
}
END_TEST

START_TEST(test_every_bit_flipped)
{
    unsigned refused = 0;

    make_busy();
    for (size_t bit = 0; bit < saved.len * 8; bit++) {
        int ret;

        saved.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ret = load(&p, &saved);
        saved.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (ret == 0)
            exercise();
        else
            ck_assert_int_eq(ret, -EBADMSG);
        refused += ret != 0;
    }
    ck_assert_uint_gt(refused, 30);
}
END_TEST

static const struct {
    const char *name;
    unsigned at;
    uint8_t value;
    bool ok;
} patches[] = {
    {"all interrupts", AT_IER, 0x0f, true},
    {"one more", AT_IER, 0x10, false},
    {"no FIFO", AT_FCR, 0, true},
    {"a FIFO bit", AT_FCR, 0xc9, true},
    {"FIFO bits without FIFO", AT_FCR, 0xc0, false},
    {"a bit that does not stay", AT_FCR, 0x03, false},
    {"a modem bit too many", AT_MCR, 0x2b, false},
    {"loopback, but other lines", AT_MCR, 0x13, false},
    {"loopback with the same lines", AT_MCR, 0x1b, true},
    {"overrun", AT_ERRORS, OE, true},
    {"an error there is not", AT_ERRORS, 4, false},
    {"changes of lines", AT_MSR, 0xbf, true},
    {"other lines", AT_MSR, 0xf0, false},
    {"event", AT_EVENT, 0, true},
    {"two events", AT_EVENT, 2, false},
};

START_TEST(test_patched)
{
    int ret;

    make_busy();
    saved.bytes[patches[_i].at] = patches[_i].value;
    ret = load(&p, &saved);
    ck_assert_msg(ret == (patches[_i].ok ? 0 : -EBADMSG), "%s: %d",
                  patches[_i].name, ret);
    if (ret == 0)
        exercise();
}
END_TEST

/* As many bytes as the ring holds, and one more. */
START_TEST(test_received_maximum)
{
    unsigned count = RX_MAX + (unsigned)_i;

    save(&p, &saved);
    num_put_le16(saved.bytes + AT_RX_COUNT, (uint16_t)count);
    memset(saved.bytes + AT_RX, 'r', count);
    saved.len = AT_RX + count;
    ck_assert_int_eq(load(&p, &saved), _i == 0 ? 0 : -EBADMSG);
    if (_i == 0) {
        for (unsigned i = 0; i < count; i++)
            ck_assert_uint_eq(get(&p, DATA), 'r');
        ck_assert_uint_eq(get(&p, LSR), READY);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("serial_state");
    TCase *tc = tcase_create("state");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_registers);
    tcase_add_test(tc, test_pending_conditions);
    tcase_add_test(tc, test_received_bytes);
    tcase_add_test(tc, test_load_reads_no_input);
    tcase_add_test(tc, test_output_is_not_printed_twice);
    tcase_add_test(tc, test_load_into_a_port_in_use);
    tcase_add_test(tc, test_truncated_or_longer);
    tcase_add_test(tc, test_every_bit_flipped);
    tcase_add_loop_test(tc, test_patched, 0, (int)ARRAY_SIZE(patches));
    tcase_add_loop_test(tc, test_received_maximum, 0, 2);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
