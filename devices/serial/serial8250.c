/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 16550A: registers, receive FIFO and interrupt conditions. Descriptors and
 * the output buffer are in serial_host.c.
 *
 * The line runs at infinite speed: a byte written to THR is "sent" at once, so
 * the transmitter is empty as long as the output buffer has room for a whole
 * hardware FIFO. Baud rate, parity and stop bits are stored and ignored.
 */
#include "devices/serial/serial8250.h"

#include <errno.h>
#include <stdlib.h>

#include "base/io.h"
#include "base/num.h"
#include "base/state_field.h"
#include "devices/serial/serial_host.h"

#define REG_DATA 0u /* RBR, THR; DLL */
#define REG_IER 1u  /* DLM */
#define REG_IIR_FCR 2u
#define REG_LCR 3u
#define REG_MCR 4u
#define REG_LSR 5u
#define REG_MSR 6u
#define REG_SCR 7u

#define IER_RDI 0x01u
#define IER_THRI 0x02u
#define IER_RLSI 0x04u
#define IER_MSI 0x08u
#define IER_MASK 0x0fu

/* What IIR says, highest priority first. */
#define IIR_RLSI 0x06u
#define IIR_RDI 0x04u
#define IIR_THRI 0x02u
#define IIR_MSI 0x00u
#define IIR_NO_INT 0x01u
#define IIR_FIFO_ENABLED 0xc0u

#define FCR_ENABLE 0x01u
#define FCR_CLEAR_RX 0x02u
#define FCR_MASK 0xc9u /* what stays: enable, DMA mode, trigger level */

#define LCR_DLAB 0x80u

#define MCR_DTR 0x01u
#define MCR_RTS 0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define MCR_MASK 0x1fu

#define LSR_DR 0x01u
#define LSR_OE 0x02u
#define LSR_THRE 0x20u
#define LSR_TEMT 0x40u

#define MSR_DELTA_CTS 0x01u
#define MSR_DELTA_DSR 0x02u
#define MSR_TRAILING_RI 0x04u
#define MSR_DELTA_DCD 0x08u
#define MSR_CTS 0x10u
#define MSR_DSR 0x20u
#define MSR_RI 0x40u
#define MSR_DCD 0x80u
#define MSR_LINES 0xf0u

/* 9600 baud, as a PC's firmware leaves it. */
#define DIVISOR_DEFAULT 12u

#define HARDWARE_FIFO 16u
/*
 * Bytes from the host may queue beyond what the hardware holds: the guest reads
 * until LSR says "empty", and we read from the descriptor less often. Bytes in
 * loopback mode see the hardware's depth, because drivers measure it.
 */
#define RX_MAX SERIAL_HOST_READ_MAX

struct serial8250 {
    pthread_mutex_t *lock; /* borrowed, may be NULL */
    struct irq_line irq;

    /* Registers. */
    uint8_t ier;
    uint8_t fcr;
    uint8_t lcr;
    uint8_t mcr;
    uint8_t lsr_errors;
    uint8_t msr;
    uint8_t scr;
    uint16_t divisor;
    bool thr_empty_event; /* THRE interrupt condition, until IIR tells it */
    bool tx_stalled;      /* a slow reader: LSR said "not empty" */
    uint8_t conditions;   /* as of the last update_irq, one IER bit each */

    uint8_t rx[RX_MAX]; /* a ring */
    unsigned rx_start;
    unsigned rx_count;

    struct serial_host host;
};

static bool is_loopback(const struct serial8250 *s)
{
    return s->mcr & MCR_LOOP;
}

/* A driver that saw THRE may send a whole FIFO without looking again. */
static bool transmitter_ready(const struct serial8250 *s)
{
    return is_loopback(s) || serial_host_room(&s->host) >= HARDWARE_FIFO;
}

/* ---- interrupts ---- */

/* The enabled conditions that hold, as IER bits. */
static uint8_t current_conditions(const struct serial8250 *s)
{
    uint8_t c = 0;

    if (s->lsr_errors)
        c |= IER_RLSI;
    if (s->rx_count > 0)
        c |= IER_RDI;
    if (s->thr_empty_event)
        c |= IER_THRI;
    if (s->msr & ~MSR_LINES)
        c |= IER_MSI;
    return c & s->ier;
}

/*
 * After every change: raises the line if a condition holds now that did not
 * before. The line is an edge; a driver reads IIR until nothing is pending, so
 * any condition that appears after its last look must make a new edge.
 */
static void update_irq(struct serial8250 *s)
{
    uint8_t now = current_conditions(s);
    uint8_t appeared = now & (uint8_t)~s->conditions;

    s->conditions = now;
    if (appeared)
        irq_line_raise(&s->irq);
}

/* ---- what the host side says ---- */

static void rx_put(struct serial8250 *s, uint8_t byte)
{
    s->rx[(s->rx_start + s->rx_count) % RX_MAX] = byte;
    s->rx_count++;
}

static void host_received(void *ctx, const uint8_t *bytes, size_t len)
{
    struct serial8250 *s = ctx;

    for (size_t i = 0; i < len; i++)
        rx_put(s, bytes[i]);
    /* New data is a new edge, even behind data not yet read. */
    s->conditions &= (uint8_t)~IER_RDI;
    update_irq(s);
}

static void host_flushed(void *ctx)
{
    struct serial8250 *s = ctx;

    /* The transmitter had stopped for want of room, and goes on. */
    if (s->tx_stalled && transmitter_ready(s)) {
        s->tx_stalled = false;
        s->thr_empty_event = true;
    }
    update_irq(s);
}

static const struct serial_host_ops host_ops = {
    .received = host_received,
    .flushed = host_flushed,
};

/*
 * A guest listens once its driver enabled the receive interrupt, or asserted
 * RTS: what comes earlier would be thrown away by the driver's start-up.
 */
static void announce_room(struct serial8250 *s)
{
    bool listening = (s->ier & IER_RDI) || (s->mcr & MCR_RTS);
    /* From half empty on: few large reads instead of many small ones. */
    size_t room = s->rx_count <= RX_MAX / 2 ? RX_MAX - s->rx_count : 0;

    serial_host_announce_room(&s->host,
                              listening && !is_loopback(s) ? room : 0);
}

/* ---- registers ---- */

/* The modem lines: a connected terminal, or in loopback our own outputs. */
static uint8_t modem_lines(const struct serial8250 *s)
{
    uint8_t lines = 0;

    if (!is_loopback(s))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    if (s->mcr & MCR_RTS)
        lines |= MSR_CTS;
    if (s->mcr & MCR_DTR)
        lines |= MSR_DSR;
    if (s->mcr & MCR_OUT1)
        lines |= MSR_RI;
    if (s->mcr & MCR_OUT2)
        lines |= MSR_DCD;
    return lines;
}

static void write_mcr(struct serial8250 *s, uint8_t value)
{
    uint8_t old = s->msr & MSR_LINES;
    uint8_t now, changed;

    s->mcr = value & MCR_MASK;
    now = modem_lines(s);
    changed = old ^ now;
    s->msr = (uint8_t)((s->msr & ~MSR_LINES) | now);
    if (changed & MSR_CTS)
        s->msr |= MSR_DELTA_CTS;
    if (changed & MSR_DSR)
        s->msr |= MSR_DELTA_DSR;
    if ((changed & MSR_RI) && !(now & MSR_RI))
        s->msr |= MSR_TRAILING_RI;
    if (changed & MSR_DCD)
        s->msr |= MSR_DELTA_DCD;
}

static void write_thr(struct serial8250 *s, uint8_t byte)
{
    unsigned depth = s->fcr & FCR_ENABLE ? HARDWARE_FIFO : 1;

    if (!is_loopback(s))
        serial_host_put(&s->host, byte);
    else if (s->rx_count < depth)
        rx_put(s, byte);
    else
        s->lsr_errors |= LSR_OE;
    /* Sent already, or waiting for the reader. */
    s->thr_empty_event = transmitter_ready(s);
    s->tx_stalled = !s->thr_empty_event;
}

static void write_ier(struct serial8250 *s, uint8_t value)
{
    uint8_t old = s->ier;

    s->ier = value & IER_MASK;
    /*
     * Enabling THRI with an empty transmitter interrupts at once. Drivers
     * start sending that way, and Linux tests for it.
     */
    if ((s->ier & ~old & IER_THRI) && transmitter_ready(s))
        s->thr_empty_event = true;
}

static void write_fcr(struct serial8250 *s, uint8_t value)
{
    bool toggled = (value ^ s->fcr) & FCR_ENABLE;

    /* Output in the buffer counts as sent: there is nothing to clear. */
    if (toggled || (value & FCR_CLEAR_RX))
        s->rx_count = 0;
    s->fcr = value & FCR_ENABLE ? value & FCR_MASK : 0;
}

static uint8_t read_rbr(struct serial8250 *s)
{
    uint8_t byte;

    if (s->rx_count == 0)
        return 0;
    byte = s->rx[s->rx_start];
    s->rx_start = (s->rx_start + 1) % RX_MAX;
    s->rx_count--;
    return byte;
}

static uint8_t read_iir(struct serial8250 *s)
{
    uint8_t c = current_conditions(s);
    uint8_t fifo = s->fcr & FCR_ENABLE ? IIR_FIFO_ENABLED : 0;

    if (c & IER_RLSI)
        return fifo | IIR_RLSI;
    if (c & IER_RDI)
        return fifo | IIR_RDI;
    if (c & IER_THRI) {
        s->thr_empty_event = false; /* telling it is the acknowledgement */
        return fifo | IIR_THRI;
    }
    if (c & IER_MSI)
        return fifo | IIR_MSI;
    return fifo | IIR_NO_INT;
}

static uint8_t read_lsr(struct serial8250 *s)
{
    uint8_t lsr = s->lsr_errors;

    s->lsr_errors = 0;
    if (s->rx_count > 0)
        lsr |= LSR_DR;
    if (transmitter_ready(s))
        lsr |= LSR_THRE | LSR_TEMT;
    return lsr;
}

static uint8_t read_msr(struct serial8250 *s)
{
    uint8_t msr = s->msr;

    s->msr &= MSR_LINES;
    return msr;
}

static uint8_t read_register(struct serial8250 *s, unsigned reg)
{
    bool dlab = s->lcr & LCR_DLAB;

    switch (reg) {
    case REG_DATA:
        return dlab ? (uint8_t)s->divisor : read_rbr(s);
    case REG_IER:
        return dlab ? (uint8_t)(s->divisor >> 8) : s->ier;
    case REG_IIR_FCR:
        return read_iir(s);
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        return read_lsr(s);
    case REG_MSR:
        return read_msr(s);
    default:
        return s->scr;
    }
}

static void write_register(struct serial8250 *s, unsigned reg, uint8_t value)
{
    bool dlab = s->lcr & LCR_DLAB;

    switch (reg) {
    case REG_DATA:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0xff00u) | value);
        else
            write_thr(s, value);
        break;
    case REG_IER:
        if (dlab)
            s->divisor =
                (uint16_t)((s->divisor & 0x00ffu) | (unsigned)value << 8);
        else
            write_ier(s, value);
        break;
    case REG_IIR_FCR:
        write_fcr(s, value);
        break;
    case REG_LCR:
        s->lcr = value;
        break;
    case REG_MCR:
        write_mcr(s, value);
        break;
    case REG_SCR:
        s->scr = value;
        break;
    default: /* LSR and MSR are read-only */
        break;
    }
}

static void lock_device(struct serial8250 *s)
{
    if (s->lock)
        pthread_mutex_lock(s->lock);
}

static void unlock_device(struct serial8250 *s)
{
    if (s->lock)
        pthread_mutex_unlock(s->lock);
}

/* After every access: input follows the room, the line the conditions. */
static void settle(struct serial8250 *s)
{
    announce_room(s);
    update_irq(s);
}

/* A wide access is one access to each of its ports, as on an 8-bit bus. */
static uint64_t port_read(void *ctx, uint64_t offset, unsigned size)
{
    struct serial8250 *s = ctx;
    uint64_t value = 0;

    lock_device(s);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_register(s, (unsigned)offset + i) << (8 * i);
    settle(s);
    unlock_device(s);
    return value;
}

static void port_write(void *ctx, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct serial8250 *s = ctx;

    lock_device(s);
    for (unsigned i = 0; i < size; i++)
        write_register(s, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
    settle(s);
    unlock_device(s);
}

const struct bus_ops serial8250_bus_ops = {
    .read = port_read,
    .write = port_write,
};

/* ---- save and restore ---- */

/*
 * Not here: tx_stalled, as the saved transmitter is empty; conditions, which
 * follow from the rest; and rx, which is saved in order from its start.
 */
static const struct state_field fields[] = {
    STATE_FIELD(struct serial8250, ier),
    STATE_FIELD(struct serial8250, fcr),
    STATE_FIELD(struct serial8250, lcr),
    STATE_FIELD(struct serial8250, mcr),
    STATE_FIELD(struct serial8250, lsr_errors),
    STATE_FIELD(struct serial8250, msr),
    STATE_FIELD(struct serial8250, scr),
    STATE_FIELD(struct serial8250, divisor),
};

void serial8250_save(const struct serial8250 *s, struct state_writer *w)
{
    state_put_fields(w, s, fields, ARRAY_SIZE(fields));
    /* As host_flushed would say once the reader has taken everything. */
    state_put_u8(w, s->thr_empty_event || s->tx_stalled);
    state_put_u16(w, (uint16_t)s->rx_count);
    for (unsigned i = 0; i < s->rx_count; i++)
        state_put_u8(w, s->rx[(s->rx_start + i) % RX_MAX]);
}

/* Only what register accesses can have left there. */
static bool registers_can_be(const struct serial8250 *s)
{
    return (s->ier & ~IER_MASK) == 0 && (s->fcr & ~FCR_MASK) == 0 &&
           (s->fcr == 0 || (s->fcr & FCR_ENABLE)) &&
           (s->mcr & ~MCR_MASK) == 0 && (s->lsr_errors & ~LSR_OE) == 0 &&
           (s->msr & MSR_LINES) == modem_lines(s);
}

static int load_state(struct serial8250 *s, struct state_reader *r)
{
    uint8_t event;
    uint16_t count;

    state_get_fields(r, s, fields, ARRAY_SIZE(fields));
    event = state_get_u8(r);
    count = state_get_u16(r);
    if (r->error != 0 || event > 1 || count > RX_MAX || !registers_can_be(s))
        return -EBADMSG;
    s->thr_empty_event = event;
    state_get_bytes(r, s->rx, count);
    s->rx_count = count;
    s->conditions = current_conditions(s);
    return state_reader_finish(r);
}

/* As at power-on. */
static void reset_registers(struct serial8250 *s)
{
    s->ier = 0;
    s->fcr = 0;
    s->lcr = 0;
    s->mcr = 0;
    s->lsr_errors = 0;
    s->scr = 0;
    s->divisor = DIVISOR_DEFAULT;
    s->msr = modem_lines(s);
    s->thr_empty_event = false;
    s->tx_stalled = false;
    s->conditions = 0;
    s->rx_start = 0;
    s->rx_count = 0;
}

int serial8250_load(struct serial8250 *s, struct state_reader *r)
{
    int ret;

    serial_host_restart(&s->host);
    reset_registers(s);
    ret = load_state(s, r);
    if (ret < 0)
        reset_registers(s);
    return ret;
}

void serial8250_restored(struct serial8250 *s)
{
    /* An edge on its way at the save was lost; one more harms nobody. */
    if (current_conditions(s))
        irq_line_raise(&s->irq);
    settle(s);
}

/* ---- life ---- */

int serial8250_new(const struct serial8250_options *options,
                   struct serial8250 **ret_serial)
{
    struct serial8250 *s = calloc(1, sizeof(*s));
    int ret;

    if (!s) {
        int in = options->in_fd == options->out_fd ? -1 : options->in_fd;
        int out = options->out_fd;

        io_close(&in);
        io_close(&out);
        return -ENOMEM;
    }
    s->lock = options->lock;
    s->irq = options->irq;
    reset_registers(s);
    ret = serial_host_init(&s->host, options, &host_ops, s);
    if (ret < 0) {
        serial8250_free(s);
        return ret;
    }
    *ret_serial = s;
    return 0;
}

void serial8250_free(struct serial8250 *s)
{
    if (!s)
        return;
    serial_host_fini(&s->host);
    free(s);
}

void serial8250_end_output(struct serial8250 *s)
{
    serial_host_end_output(&s->host);
}

size_t serial8250_flush(struct serial8250 *s)
{
    serial_host_flush(&s->host);
    host_flushed(s);
    return s->host.tx_count;
}

const struct serial8250_stats *serial8250_stats(const struct serial8250 *s)
{
    return &s->host.stats;
}
