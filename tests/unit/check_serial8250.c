/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serial port: registers, the probing a driver does, interrupts that are
 * never lost, and both directions with readers and writers of every temper.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/serial/serial8250.h"
#include "tests/fake_guest.h"

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
#define RLSI 4u
#define MSI 8u
#define DR 1u
#define OE 2u
#define READY 0x60u /* THRE, TEMT */
#define RTS 2u
#define LOOP 0x10u

static struct evloop *loop;
static struct serial8250 *port;
static unsigned interrupts;
static int host_in;  /* what we write, the guest reads */
static int host_out; /* what the guest writes, we read */

static void count_interrupt(void *ctx)
{
    (void)ctx;
    interrupts++;
}

static void start_with(int in_fd, int out_fd)
{
    struct serial8250_options options = {.in_fd = in_fd, .out_fd = out_fd};

    signal(SIGPIPE, SIG_IGN);
    interrupts = 0;
    ck_assert_int_eq(evloop_new(NULL, &loop), 0);
    options.loop = loop;
    options.irq.raise = count_interrupt;
    ck_assert_int_eq(serial8250_new(&options, &port), 0);
}

static void start(void)
{
    int in[2], out[2];

    ck_assert_int_eq(pipe(in), 0);
    ck_assert_int_eq(pipe2(out, O_NONBLOCK), 0);
    host_in = in[1];
    host_out = out[0];
    start_with(in[0], out[1]);
}

static void finish(void)
{
    serial8250_free(port);
    evloop_free(loop);
    close(host_in);
    close(host_out);
}

static uint8_t rd(unsigned reg)
{
    return (uint8_t)serial8250_bus_ops.read(port, reg, 1);
}

static void wr(unsigned reg, uint8_t value)
{
    serial8250_bus_ops.write(port, reg, 1, value);
}

static void print(const char *s)
{
    for (; *s; s++)
        wr(DATA, (uint8_t)*s);
}

/* What has come out so far. */
static const char *output(void)
{
    static char buf[65536];
    ssize_t n = read(host_out, buf, sizeof(buf) - 1);

    buf[n > 0 ? n : 0] = '\0';
    return buf;
}

static void run_loop(int timeout_ms)
{
    while (evloop_run_once(loop, timeout_ms) > 0)
        timeout_ms = 0;
}

/* Handles what is left, a few rounds at most; then the loop must sleep. */
static void expect_quiet(void)
{
    for (unsigned rounds = 0; evloop_run_once(loop, 30) > 0; rounds++)
        ck_assert_msg(rounds < 4, "the event loop spins");
}

/* ---- registers ---- */

/* Which bits of a register keep what is written, without loopback. */
static const struct {
    unsigned reg;
    uint8_t lcr;
    uint8_t keeps;
} registers[] = {
    {IER, 0, 0x0f},     {LCR, 0, 0xff},    {MCR, 0, 0x1f},    {SCR, 0, 0xff},
    {DATA, 0x80, 0xff}, {IER, 0x80, 0xff}, {SCR, 0x80, 0xff}, {MCR, 0x80, 0x1f},
};

START_TEST(stores)
{
    unsigned reg = registers[_i].reg;

    start();
    for (unsigned value = 0; value < 256; value++) {
        wr(LCR, registers[_i].lcr);
        wr(reg, (uint8_t)value);
        ck_assert_uint_eq(rd(reg), value & registers[_i].keeps);
    }
    finish();
}
END_TEST

START_TEST(power_on)
{
    start();
    ck_assert_uint_eq(rd(IER), 0);
    ck_assert_uint_eq(rd(IIR), 1);
    ck_assert_uint_eq(rd(LCR), 0);
    ck_assert_uint_eq(rd(MCR), 0);
    ck_assert_uint_eq(rd(LSR), READY);
    ck_assert_uint_eq(rd(MSR), 0xb0); /* a terminal is connected */
    ck_assert_uint_eq(rd(SCR), 0);
    ck_assert_uint_eq(rd(DATA), 0);
    wr(LCR, 0x80);
    ck_assert_uint_eq(rd(DATA), 12); /* 9600 baud */
    ck_assert_uint_eq(rd(IER), 0);
    finish();
}
END_TEST

START_TEST(read_only)
{
    start();
    for (unsigned value = 0; value < 256; value++) {
        wr(LSR, (uint8_t)value);
        wr(MSR, (uint8_t)value);
        ck_assert_uint_eq(rd(LSR), READY);
        ck_assert_uint_eq(rd(MSR), 0xb0);
    }
    finish();
}
END_TEST

START_TEST(fifo_bits)
{
    start();
    for (unsigned value = 0; value < 256; value++) {
        wr(FCR, (uint8_t)value);
        ck_assert_uint_eq(rd(IIR), value & 1 ? 0xc1 : 0x01);
    }
    finish();
}
END_TEST

/*
 * Every register with every value, at every width, from many states: nothing
 * but the invariants that hold always is asked for (and ASan and UBSan watch).
 */
START_TEST(everything)
{
    start();
    for (unsigned lcr = 0; lcr < 256; lcr += 0x80) {
        for (unsigned mcr = 0; mcr < 32; mcr++) {
            for (unsigned reg = 0; reg < SERIAL8250_PORTS; reg++) {
                for (unsigned value = 0; value < 256; value++) {
                    wr(LCR, (uint8_t)lcr);
                    wr(MCR, (uint8_t)mcr);
                    wr(reg, (uint8_t)value);
                    for (unsigned r = 0; r < SERIAL8250_PORTS; r++)
                        rd(r);
                    if ((rd(MSR) & 0x0f) || (rd(LSR) & 0x1e))
                        ck_abort_msg("reading did not clear");
                }
            }
            output();
        }
    }
    for (unsigned size = 2; size <= 8; size *= 2) {
        for (unsigned reg = 0; reg + size <= SERIAL8250_PORTS; reg++) {
            serial8250_bus_ops.write(port, reg, size, UINT64_MAX);
            serial8250_bus_ops.read(port, reg, size);
        }
    }
    finish();
}
END_TEST

/* A wide access is one of each port. */
START_TEST(wide_access)
{
    start();
    serial8250_bus_ops.write(port, SCR - 1, 2, 0x5a00);
    ck_assert_uint_eq(rd(SCR), 0x5a);
    ck_assert_uint_eq(serial8250_bus_ops.read(port, LSR, 2), 0xb000 | READY);
    ck_assert_uint_eq(serial8250_bus_ops.read(port, 0, 8), 0x5ab0600000010000);
    finish();
}
END_TEST

/* ---- what Linux's driver does to find out what this is ---- */

START_TEST(probe)
{
    start();
    /* Is there an interrupt enable register? */
    wr(IER, 0);
    ck_assert_uint_eq(rd(IER) & 0x0f, 0);
    wr(IER, 0x0f);
    ck_assert_uint_eq(rd(IER) & 0x0f, 0x0f);
    wr(IER, 0);
    /* Do the modem outputs come back in loopback? */
    wr(MCR, LOOP | 0x0a);
    ck_assert_uint_eq(rd(MSR) & 0xf0, 0x90);
    wr(MCR, 0);
    /* No extended features behind the LCR key. */
    wr(LCR, 0xbf);
    wr(IIR, 0);
    wr(LCR, 0);
    wr(FCR, 1);
    ck_assert_uint_eq(rd(IIR) >> 6, 3);
    wr(LCR, 0x80);
    ck_assert_uint_ne(rd(IIR), 0);
    wr(LCR, 0xbf);
    ck_assert_uint_ne(rd(IIR), 0);
    /* No 64-byte FIFO, in either mode. */
    wr(LCR, 0);
    wr(FCR, 0x21);
    ck_assert_uint_eq(rd(IIR) >> 5, 6);
    wr(FCR, 1);
    wr(LCR, 0x80);
    wr(FCR, 0x21);
    ck_assert_uint_eq(rd(IIR) >> 5, 6);
    wr(FCR, 1);
    wr(LCR, 0);
    /* No XScale unit enable bit. */
    wr(IER, 0x40);
    ck_assert_uint_eq(rd(IER) & 0x40, 0);
    /* Is the THRE interrupt raised again each time it is enabled? */
    interrupts = 0;
    for (unsigned i = 0; i < 3; i++) {
        wr(IER, THRI);
        ck_assert_uint_eq(rd(IIR) & 0x0f, 0x02);
        ck_assert_uint_eq(rd(IIR) & 0x0f, 0x01);
        wr(IER, 0);
        ck_assert_uint_eq(rd(IIR) & 0x0f, 0x01);
    }
    ck_assert_uint_eq(interrupts, 3);
    finish();
}
END_TEST

/* Loopback shows the depth of the hardware FIFO, and its overrun. */
START_TEST(loopback_depth)
{
    unsigned depth = _i ? 16 : 1;

    start();
    wr(FCR, _i ? 1 : 0);
    wr(MCR, LOOP);
    wr(IER, RLSI);
    for (unsigned i = 0; i < 100; i++)
        wr(DATA, (uint8_t)i);
    ck_assert_uint_eq(rd(IIR) & 0x0f, 0x06);
    ck_assert_uint_eq(rd(LSR), READY | DR | OE);
    ck_assert_uint_eq(rd(IIR) & 0x0f, 0x01);
    for (unsigned i = 0; i < depth; i++) {
        ck_assert_uint_eq(rd(LSR) & DR, DR);
        ck_assert_uint_eq(rd(DATA), i);
    }
    ck_assert_uint_eq(rd(LSR), READY);
    serial8250_flush(port);
    ck_assert_str_eq(output(), ""); /* nothing left the port */
    finish();
}
END_TEST

START_TEST(modem_deltas)
{
    start();
    wr(IER, MSI);
    ck_assert_uint_eq(interrupts, 0);
    wr(MCR, LOOP); /* CTS, DSR, DCD fall */
    ck_assert_uint_eq(interrupts, 1);
    ck_assert_uint_eq(rd(IIR) & 0x0f, 0x00);
    ck_assert_uint_eq(rd(MSR), 0x0b);
    ck_assert_uint_eq(rd(IIR) & 0x0f, 0x01);
    wr(MCR, LOOP | 0x04); /* RI rises: no event */
    ck_assert_uint_eq(rd(MSR), 0x40);
    wr(MCR, LOOP); /* and falls */
    ck_assert_uint_eq(interrupts, 2);
    ck_assert_uint_eq(rd(MSR), 0x04);
    finish();
}
END_TEST

/* ---- output ---- */

START_TEST(output_is_batched)
{
    start();
    wr(DATA, 'a'); /* the line was idle: at once */
    ck_assert_str_eq(output(), "a");
    print("bc");
    ck_assert_str_eq(output(), "");
    print("d\n"); /* a line is out when it ends */
    ck_assert_str_eq(output(), "bcd\n");
    print("prompt$ ");
    ck_assert_str_eq(output(), "");
    run_loop(1000); /* the batch ends */
    ck_assert_str_eq(output(), "prompt$ ");
    run_loop(1000); /* an empty batch: idle again */
    ck_assert_int_eq(evloop_run_once(loop, 30), 0); /* and silent */
    wr(DATA, 'x');
    ck_assert_str_eq(output(), "x");
    ck_assert_uint_eq(serial8250_stats(port)->bytes_out, 14);
    finish();
}
END_TEST

START_TEST(output_without_newlines)
{
    start();
    for (unsigned i = 0; i < SERIAL8250_FLUSH_BYTES + 1; i++)
        wr(DATA, 'x');
    ck_assert_uint_eq(strlen(output()), SERIAL8250_FLUSH_BYTES + 1);
    finish();
}
END_TEST

START_TEST(flush_and_free_lose_nothing)
{
    start();
    print("abc");
    ck_assert_uint_eq(serial8250_flush(port), 0);
    ck_assert_str_eq(output(), "abc");
    print("panic");
    serial8250_free(port);
    ck_assert_str_eq(output(), "panic");
    evloop_free(loop);
}
END_TEST

/* Fills the pipe behind the port, until the port says "not ready". */
static size_t fill_output(void)
{
    size_t sent = 0;

    while ((rd(LSR) & READY) == READY) {
        wr(DATA, (uint8_t)('a' + sent % 26));
        sent++;
    }
    return sent;
}

static void check_pattern(const char *s, size_t offset, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] != (char)('a' + (offset + i) % 26))
            ck_abort_msg("byte %zu is wrong", offset + i);
}

START_TEST(end_of_output)
{
    const struct serial8250_stats *stats;
    uint64_t dropped;
    size_t sent;

    start();
    stats = serial8250_stats(port);
    sent = fill_output();
    ck_assert_uint_eq(stats->bytes_dropped, 0);
    serial8250_end_output(port);
    dropped = stats->bytes_dropped;
    ck_assert_uint_gt(dropped, SERIAL8250_OUTPUT_MAX - 16);
    ck_assert_uint_eq(stats->bytes_out + dropped, sent);
    serial8250_end_output(port); /* a machine may be halted twice */
    ck_assert_uint_eq(stats->bytes_dropped, dropped);
}
END_TEST

START_TEST(slow_reader)
{
    size_t sent, got = 0;

    start();
    wr(IER, THRI);
    rd(IIR);
    sent = fill_output();
    ck_assert_uint_gt(sent, SERIAL8250_OUTPUT_MAX);
    ck_assert_uint_eq(rd(IIR) & 0x0f, 0x01); /* no THRE while full */
    /* A guest that does not look: a whole FIFO fits, the rest is dropped. */
    for (unsigned i = 0; i < 100; i++)
        wr(DATA, '!');
    ck_assert_uint_ge(serial8250_stats(port)->bytes_dropped, 84);
    ck_assert_uint_eq(serial8250_flush(port), SERIAL8250_OUTPUT_MAX);
    expect_quiet();
    interrupts = 0;
    while (got < sent) {
        const char *s = output();

        if (!*s) {
            ck_assert_int_gt(evloop_run_once(loop, 1000), 0);
            continue;
        }
        check_pattern(s, got, strcspn(s, "!"));
        got += strcspn(s, "!");
    }
    ck_assert_uint_eq(got, sent);
    ck_assert_uint_eq(interrupts, 1); /* the driver may go on */
    ck_assert_uint_eq(rd(IIR) & 0x0f, 0x02);
    ck_assert_uint_eq(rd(LSR), READY);
    run_loop(30);
    output();
    expect_quiet(); /* nothing is watched */
    finish();
}
END_TEST

START_TEST(reader_is_gone)
{
    start();
    close(host_out);
    host_out = -1;
    print("into the void\n");
    ck_assert_uint_eq(serial8250_stats(port)->bytes_out, 0);
    ck_assert_uint_eq(serial8250_stats(port)->bytes_dropped, 14);
    ck_assert_uint_eq(rd(LSR), READY); /* the guest goes on */
    run_loop(30);
    finish();
}
END_TEST

START_TEST(reader_goes_while_full)
{
    start();
    wr(IER, THRI);
    fill_output();
    rd(IIR);
    interrupts = 0;
    close(host_out);
    host_out = -1;
    run_loop(1000);
    ck_assert_uint_eq(rd(LSR), READY);
    ck_assert_uint_eq(interrupts, 1);
    ck_assert_uint_eq(rd(IIR) & 0x0f, 0x02);
    expect_quiet();
    finish();
}
END_TEST

/*
 * The driver's interrupt handler, run only when the line was raised, sends
 * everything: a THRE that got lost would stop it.
 */
START_TEST(interrupt_driven_output)
{
    size_t left = 100000, got = 0;
    unsigned handled = 0;

    start();
    wr(FCR, 1);
    interrupts = 0;
    wr(IER, THRI);
    while (left > 0) {
        if (interrupts == handled) {
            got += strlen(output()); /* the pipe was full */
            ck_assert_int_gt(evloop_run_once(loop, 1000), 0);
            continue;
        }
        handled = interrupts;
        while (!(rd(IIR) & 1))
            if (rd(LSR) & 0x20)
                for (unsigned i = 0; i < 16 && left > 0; i++, left--)
                    wr(DATA, 'x');
    }
    wr(IER, 0);
    while (got < 100000) {
        size_t n = strlen(output());

        got += n;
        if (n == 0)
            ck_assert_int_gt(evloop_run_once(loop, 1000), 0);
    }
    ck_assert_uint_eq(serial8250_stats(port)->bytes_dropped, 0);
    finish();
}
END_TEST

/* ---- input ---- */

START_TEST(input_waits_for_the_driver)
{
    start();
    ck_assert_int_eq(write(host_in, "early", 5), 5);
    run_loop(20);
    ck_assert_uint_eq(rd(LSR), READY);
    /* A driver starts: it clears FIFOs and reads what is there. */
    wr(FCR, 7);
    rd(DATA);
    wr(MCR, LOOP | 0x0a); /* RTS, but of a probe */
    run_loop(20);
    ck_assert_uint_eq(rd(LSR), READY);
    wr(MCR, 0);
    interrupts = 0;
    wr(IER, RDI);
    run_loop(1000);
    ck_assert_uint_eq(interrupts, 1);
    ck_assert_uint_eq(rd(IIR) & 0x0f, 0x04);
    for (const char *s = "early"; *s; s++) {
        ck_assert_uint_eq(rd(LSR) & DR, DR);
        ck_assert_uint_eq(rd(DATA), (uint8_t)*s);
    }
    ck_assert_uint_eq(rd(IIR) & 0x0f, 0x01);
    ck_assert_uint_eq(rd(LSR), READY);
    ck_assert_uint_eq(serial8250_stats(port)->bytes_in, 5);
    finish();
}
END_TEST

START_TEST(polled_input)
{
    start();
    wr(MCR, RTS);
    ck_assert_int_eq(write(host_in, "k", 1), 1);
    run_loop(1000);
    ck_assert_uint_eq(interrupts, 0);
    ck_assert_uint_eq(rd(LSR) & DR, DR);
    ck_assert_uint_eq(rd(DATA), 'k');
    wr(FCR, 1);
    ck_assert_int_eq(write(host_in, "gone", 4), 4);
    run_loop(1000);
    wr(FCR, 3); /* clears what has arrived */
    ck_assert_uint_eq(rd(LSR) & DR, 0);
    finish();
}
END_TEST

/* More than fits: nothing is lost, nothing grows, nothing spins. */
START_TEST(input_backpressure)
{
    unsigned sent = 0, got = 0;

    start();
    for (unsigned i = 0; i < 60000; i++)
        sent += (unsigned)write(host_in, &(char){(char)(i % 251)}, 1);
    close(host_in); /* end of file comes after the last byte */
    host_in = -1;
    wr(FCR, 1);
    interrupts = 0;
    wr(IER, RDI);
    while (got < sent) {
        if (interrupts == 0) {
            ck_assert_int_gt(evloop_run_once(loop, 1000), 0);
            continue;
        }
        /* Full, and hung up at the other end: the loop must sleep. */
        if (serial8250_stats(port)->bytes_in < sent)
            ck_assert_int_eq(evloop_run_once(loop, 0), 0);
        interrupts = 0;
        while (!(rd(IIR) & 1))
            while (rd(LSR) & DR)
                if (rd(DATA) != got++ % 251)
                    ck_abort_msg("byte %u is wrong", got - 1);
    }
    expect_quiet();
    ck_assert_uint_eq(serial8250_stats(port)->bytes_in, sent);
    finish();
}
END_TEST

/* New data behind data not yet read makes a new edge. */
START_TEST(new_data_new_edge)
{
    start();
    wr(IER, RDI);
    ck_assert_int_eq(write(host_in, "1", 1), 1);
    run_loop(1000);
    ck_assert_uint_eq(interrupts, 1);
    ck_assert_int_eq(write(host_in, "2", 1), 1);
    run_loop(1000);
    ck_assert_uint_eq(interrupts, 2);
    /* So does enabling the interrupt with data waiting. */
    wr(IER, 0);
    wr(IER, RDI);
    ck_assert_uint_eq(interrupts, 3);
    finish();
}
END_TEST

/* The highest priority first, each until its own cause is served. */
START_TEST(priorities)
{
    start();
    wr(FCR, 1);
    wr(MCR, LOOP);
    for (unsigned i = 0; i < 20; i++)
        wr(DATA, 'x');
    wr(IER, RDI | THRI | RLSI | MSI);
    ck_assert_uint_eq(rd(IIR), 0xc6);
    rd(LSR);
    ck_assert_uint_eq(rd(IIR), 0xc4);
    ck_assert_uint_eq(rd(IIR), 0xc4); /* reading IIR acknowledges only THRE */
    for (unsigned i = 0; i < 16; i++)
        rd(DATA);
    ck_assert_uint_eq(rd(IIR), 0xc2);
    ck_assert_uint_eq(rd(IIR), 0xc0);
    rd(MSR);
    ck_assert_uint_eq(rd(IIR), 0xc1);
    finish();
}
END_TEST

/* ---- odd descriptors ---- */

START_TEST(regular_files)
{
    FILE *in = tmpfile(), *out = tmpfile();
    char buf[16] = "";

    ck_assert(in && out);
    fputs("from a file", in);
    rewind(in);
    start_with(dup(fileno(in)), dup(fileno(out)));
    print("to a file");
    wr(IER, RDI);
    ck_assert_uint_eq(interrupts, 1);
    for (unsigned i = 0; rd(LSR) & DR; i++)
        buf[i] = (char)rd(DATA);
    ck_assert_str_eq(buf, "from a file");
    expect_quiet();
    host_in = host_out = -1;
    finish();
    ck_assert_int_eq(pread(fileno(out), buf, 9, 0), 9);
    ck_assert_int_eq(memcmp(buf, "to a file", 9), 0);
    fclose(in);
    fclose(out);
}
END_TEST

START_TEST(dev_null)
{
    start_with(open("/dev/null", O_RDONLY), open("/dev/null", O_WRONLY));
    wr(IER, RDI);
    print("hello\n");
    ck_assert_uint_eq(rd(LSR), READY);
    ck_assert_uint_eq(serial8250_stats(port)->bytes_out, 6);
    expect_quiet();
    host_in = host_out = -1;
    finish();
}
END_TEST

START_TEST(no_descriptors)
{
    start_with(-1, -1);
    wr(IER, RDI);
    print("hello\n");
    ck_assert_uint_eq(rd(LSR), READY);
    ck_assert_uint_eq(serial8250_stats(port)->bytes_dropped, 6);
    host_in = host_out = -1;
    finish();
    serial8250_free(NULL);
}
END_TEST

/* A terminal: one descriptor for both directions. */
START_TEST(one_descriptor)
{
    int ends[2];
    char buf[8] = "";

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    start_with(ends[0], ends[0]);
    wr(IER, RDI);
    ck_assert_int_eq(write(ends[1], "in", 2), 2);
    run_loop(1000);
    ck_assert_uint_eq(rd(DATA), 'i');
    print("out\n");
    ck_assert_int_eq(read(ends[1], buf, sizeof(buf)), 4);
    ck_assert_str_eq(buf, "out\n");
    host_in = ends[1];
    host_out = -1;
    finish();
}
END_TEST

START_TEST(bad_descriptor)
{
    struct serial8250_options options = {.in_fd = -1, .out_fd = 999};

    ck_assert_int_eq(evloop_new(NULL, &options.loop), 0);
    port = NULL;
    ck_assert_int_eq(serial8250_new(&options, &port), -EBADF);
    ck_assert_ptr_null(port);
    evloop_free(options.loop);
}
END_TEST

/* No descriptor for the n-th thing it needs: what was given is closed. */
START_TEST(out_of_descriptors)
{
    struct serial8250_options options = {0};
    struct rlimit limit = {0, 1024};
    int ends[2];

    ck_assert_int_eq(evloop_new(NULL, &options.loop), 0);
    for (rlim_t spare = 0; spare < 2; spare++) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        options.in_fd = options.out_fd = ends[0]; /* needs a double, a timer */
        limit.rlim_cur = (rlim_t)ends[1] + 1 + spare;
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        ck_assert_int_eq(serial8250_new(&options, &port), -EMFILE);
        ck_assert_int_eq(fcntl(ends[0], F_GETFD), -1);
        ck_assert_int_eq(fcntl(ends[1] + 1, F_GETFD), -1);
        limit.rlim_cur = 1024;
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        close(ends[1]);
    }
    evloop_free(options.loop);
}
END_TEST

START_TEST(out_of_memory)
{
    struct serial8250_options options = {0};
    int ends[2];
    int ret;

    ck_assert_int_eq(evloop_new(NULL, &options.loop), 0);
    ck_assert_int_eq(pipe(ends), 0);
    options.in_fd = ends[0];
    options.out_fd = ends[1];
    if (fake_out_of_memory_begin()) {
        ret = serial8250_new(&options, &port);
        fake_out_of_memory_end();
        ck_assert_int_eq(ret, -ENOMEM);
        ck_assert_int_eq(fcntl(ends[0], F_GETFD), -1);
        ck_assert_int_eq(fcntl(ends[1], F_GETFD), -1);
    }
    evloop_free(options.loop);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("serial8250");
    TCase *tc = tcase_create("all");

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, stores, 0,
                        (int)(sizeof(registers) / sizeof(registers[0])));
    tcase_add_test(tc, power_on);
    tcase_add_test(tc, read_only);
    tcase_add_test(tc, fifo_bits);
    tcase_add_test(tc, everything);
    tcase_add_test(tc, wide_access);
    tcase_add_test(tc, probe);
    tcase_add_loop_test(tc, loopback_depth, 0, 2);
    tcase_add_test(tc, modem_deltas);
    tcase_add_test(tc, output_is_batched);
    tcase_add_test(tc, output_without_newlines);
    tcase_add_test(tc, flush_and_free_lose_nothing);
    tcase_add_test(tc, end_of_output);
    tcase_add_test(tc, slow_reader);
    tcase_add_test(tc, reader_is_gone);
    tcase_add_test(tc, reader_goes_while_full);
    tcase_add_test(tc, interrupt_driven_output);
    tcase_add_test(tc, input_waits_for_the_driver);
    tcase_add_test(tc, polled_input);
    tcase_add_test(tc, input_backpressure);
    tcase_add_test(tc, new_data_new_edge);
    tcase_add_test(tc, priorities);
    tcase_add_test(tc, regular_files);
    tcase_add_test(tc, dev_null);
    tcase_add_test(tc, no_descriptors);
    tcase_add_test(tc, one_descriptor);
    tcase_add_test(tc, bad_descriptor);
    tcase_add_test(tc, out_of_descriptors);
    tcase_add_test(tc, out_of_memory);
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    SRunner *sr = srunner_create(suite());
    int failed;

    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
