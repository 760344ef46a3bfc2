/* SPDX-License-Identifier: Apache-2.0 */
/* One vsock connection: every op in every state, shutdown, credit. */
#include <check.h>
#include <stdlib.h>

#include "base/num.h"
#include "devices/vsock/vsock_conn.h"

#define BUF 4096u
#define GUEST_PORT 1000u
#define HOST_PORT 2000u

static struct vsock_header packet(uint16_t op, uint32_t len)
{
    return (struct vsock_header){.src_port = GUEST_PORT,
                                 .dst_port = HOST_PORT,
                                 .op = op,
                                 .len = len,
                                 .type = VSOCK_TYPE_STREAM,
                                 .buf_alloc = BUF};
}

static enum vsock_verdict receive(struct vsock_conn *conn, uint16_t op,
                                  uint32_t len, uint32_t flags)
{
    struct vsock_header h = packet(op, len);
    enum vsock_verdict verdict;

    h.flags = flags;
    verdict = vsock_conn_receive(conn, &h);
    ck_assert(vsock_conn_check(conn));
    return verdict;
}

/* A connection in this state, with nothing due. */
static void make(struct vsock_conn *conn, enum vsock_conn_state state)
{
    struct vsock_header h = packet(VSOCK_OP_REQUEST, 0);

    vsock_conn_init(conn, BUF);
    if (state == VSOCK_CONN_CONNECTING) {
        vsock_conn_start(conn, GUEST_PORT, HOST_PORT);
    } else if (state != VSOCK_CONN_NEW) {
        vsock_conn_request(conn, &h);
        if (state != VSOCK_CONN_DIALING)
            vsock_conn_accept(conn);
        if (state == VSOCK_CONN_DEAD)
            vsock_conn_abort(conn);
    }
    while (vsock_conn_next_due(conn, &h))
        ;
    ck_assert_int_eq(conn->state, state);
    ck_assert(vsock_conn_check(conn));
}

static const struct {
    enum vsock_conn_state state;
    uint16_t op;
    enum vsock_verdict verdict;
    enum vsock_conn_state then;
    uint8_t due;
} op_table[] = {
#define BAD VSOCK_VERDICT_VIOLATION, VSOCK_CONN_DEAD, VSOCK_DUE_RST
#define END(due) VSOCK_VERDICT_END, VSOCK_CONN_DEAD, due
    {VSOCK_CONN_CONNECTING, VSOCK_OP_INVALID, BAD},
    {VSOCK_CONN_CONNECTING, VSOCK_OP_REQUEST, BAD},
    {VSOCK_CONN_CONNECTING, VSOCK_OP_RESPONSE, VSOCK_VERDICT_ESTABLISHED,
     VSOCK_CONN_ESTABLISHED, 0},
    {VSOCK_CONN_CONNECTING, VSOCK_OP_RST, END(0)},
    {VSOCK_CONN_CONNECTING, VSOCK_OP_SHUTDOWN, BAD},
    {VSOCK_CONN_CONNECTING, VSOCK_OP_RW, BAD},
    {VSOCK_CONN_CONNECTING, VSOCK_OP_CREDIT_UPDATE, BAD},
    {VSOCK_CONN_CONNECTING, VSOCK_OP_CREDIT_REQUEST, BAD},
    {VSOCK_CONN_CONNECTING, 8, BAD},
    {VSOCK_CONN_DIALING, VSOCK_OP_INVALID, BAD},
    {VSOCK_CONN_DIALING, VSOCK_OP_REQUEST, BAD},
    {VSOCK_CONN_DIALING, VSOCK_OP_RESPONSE, BAD},
    {VSOCK_CONN_DIALING, VSOCK_OP_RST, END(0)},
    {VSOCK_CONN_DIALING, VSOCK_OP_SHUTDOWN, END(VSOCK_DUE_RST)},
    {VSOCK_CONN_DIALING, VSOCK_OP_RW, BAD},
    {VSOCK_CONN_DIALING, VSOCK_OP_CREDIT_UPDATE, BAD},
    {VSOCK_CONN_DIALING, VSOCK_OP_CREDIT_REQUEST, BAD},
    {VSOCK_CONN_ESTABLISHED, VSOCK_OP_INVALID, BAD},
    {VSOCK_CONN_ESTABLISHED, VSOCK_OP_REQUEST, BAD},
    {VSOCK_CONN_ESTABLISHED, VSOCK_OP_RESPONSE, BAD},
    {VSOCK_CONN_ESTABLISHED, VSOCK_OP_RST, END(0)},
    {VSOCK_CONN_ESTABLISHED, VSOCK_OP_SHUTDOWN, VSOCK_VERDICT_SHUTDOWN,
     VSOCK_CONN_ESTABLISHED, 0},
    {VSOCK_CONN_ESTABLISHED, VSOCK_OP_RW, VSOCK_VERDICT_DATA,
     VSOCK_CONN_ESTABLISHED, 0},
    {VSOCK_CONN_ESTABLISHED, VSOCK_OP_CREDIT_UPDATE, VSOCK_VERDICT_NONE,
     VSOCK_CONN_ESTABLISHED, 0},
    {VSOCK_CONN_ESTABLISHED, VSOCK_OP_CREDIT_REQUEST, VSOCK_VERDICT_NONE,
     VSOCK_CONN_ESTABLISHED, VSOCK_DUE_CREDIT},
    {VSOCK_CONN_ESTABLISHED, 8, BAD},
    {VSOCK_CONN_ESTABLISHED, UINT16_MAX, BAD},
    {VSOCK_CONN_DEAD, VSOCK_OP_RW, VSOCK_VERDICT_NONE, VSOCK_CONN_DEAD, 0},
    {VSOCK_CONN_DEAD, VSOCK_OP_REQUEST, VSOCK_VERDICT_NONE, VSOCK_CONN_DEAD, 0},
    {VSOCK_CONN_DEAD, VSOCK_OP_RST, END(0)},
#undef BAD
#undef END
};

START_TEST(op_in_state)
{
    struct vsock_conn conn;

    make(&conn, op_table[_i].state);
    ck_assert_int_eq(receive(&conn, op_table[_i].op, 1, 0),
                     op_table[_i].verdict);
    ck_assert_int_eq(conn.state, op_table[_i].then);
    ck_assert_uint_eq(conn.due, op_table[_i].due);
}
END_TEST

START_TEST(early_response_is_a_violation)
{
    struct vsock_conn conn;

    vsock_conn_init(&conn, BUF);
    vsock_conn_start(&conn, GUEST_PORT, HOST_PORT);
    ck_assert_int_eq(receive(&conn, VSOCK_OP_RESPONSE, 0, 0),
                     VSOCK_VERDICT_VIOLATION);
}
END_TEST

START_TEST(abort_before_request_is_silent)
{
    struct vsock_conn conn;

    vsock_conn_init(&conn, BUF);
    vsock_conn_start(&conn, GUEST_PORT, HOST_PORT);
    vsock_conn_abort(&conn);
    ck_assert_int_eq(conn.state, VSOCK_CONN_DEAD);
    ck_assert_uint_eq(conn.due, 0);
}
END_TEST

/* Two SHUTDOWN packets from the guest: what is shut, and whether it ends. */
START_TEST(guest_shutdown)
{
    uint32_t first = (uint32_t)_i & 3, second = (uint32_t)_i >> 2;
    bool ends = (first | second) == VSOCK_SHUTDOWN_BOTH;
    struct vsock_conn conn;

    make(&conn, VSOCK_CONN_ESTABLISHED);
    (void)receive(&conn, VSOCK_OP_SHUTDOWN, 0, first | 0xfffffff0u);
    (void)receive(&conn, VSOCK_OP_SHUTDOWN, 0, second);
    ck_assert_uint_eq(conn.guest_shut, first | second);
    ck_assert_int_eq(conn.state,
                     ends ? VSOCK_CONN_DEAD : VSOCK_CONN_ESTABLISHED);
    ck_assert_uint_eq(conn.due, ends ? VSOCK_DUE_RST : 0);
    if (ends)
        return;
    /* Data after "I will send no more" are a violation. */
    ck_assert_int_eq(receive(&conn, VSOCK_OP_RW, 1, 0),
                     (first | second) & VSOCK_SHUTDOWN_SEND
                         ? VSOCK_VERDICT_VIOLATION
                         : VSOCK_VERDICT_DATA);
}
END_TEST

START_TEST(host_shutdown_is_told_once)
{
    struct vsock_conn conn;
    struct vsock_header h;

    make(&conn, VSOCK_CONN_ESTABLISHED);
    ck_assert_uint_eq(vsock_conn_credit(&conn), BUF);
    vsock_conn_shutdown(&conn, VSOCK_SHUTDOWN_SEND);
    ck_assert_uint_eq(vsock_conn_credit(&conn), 0);
    ck_assert(vsock_conn_next_due(&conn, &h));
    ck_assert_uint_eq(h.op, VSOCK_OP_SHUTDOWN);
    ck_assert_uint_eq(h.flags, VSOCK_SHUTDOWN_SEND);
    vsock_conn_shutdown(&conn, VSOCK_SHUTDOWN_SEND);
    ck_assert(!vsock_conn_next_due(&conn, &h));
    vsock_conn_shutdown(&conn, VSOCK_SHUTDOWN_RECEIVE);
    ck_assert(vsock_conn_next_due(&conn, &h));
    ck_assert_uint_eq(h.flags, VSOCK_SHUTDOWN_BOTH);
}
END_TEST

/* Counters near the wrap: the distance is what counts. */
static const struct {
    uint32_t tx_cnt, peer_fwd_cnt, peer_buf_alloc, credit;
} credit_table[] = {
    {0, 0, 0, 0},
    {0, 0, 100, 100},
    {100, 0, 100, 0},
    {101, 0, 100, 0},
    {5, 0xfffffffbu, 100, 90},
    {0xffffffffu, 0xfffffff0u, 100, 85},
    {0, 0xffffffffu, 1, 0},
    {0, 1, 100, 0}, /* claims to have consumed what was never sent */
    {0, 1, 0xffffffffu, 0},
    {7, 7, 0xffffffffu, 0xffffffffu},
};

START_TEST(credit_of_counters)
{
    struct vsock_conn conn;

    make(&conn, VSOCK_CONN_ESTABLISHED);
    conn.tx_cnt = credit_table[_i].tx_cnt;
    conn.peer_fwd_cnt = credit_table[_i].peer_fwd_cnt;
    conn.peer_buf_alloc = credit_table[_i].peer_buf_alloc;
    ck_assert_uint_eq(vsock_conn_credit(&conn), credit_table[_i].credit);
}
END_TEST

START_TEST(overrun_is_a_violation)
{
    struct vsock_conn conn;

    make(&conn, VSOCK_CONN_ESTABLISHED);
    conn.rx_cnt = conn.fwd_cnt = conn.told_fwd_cnt = 0xfffffff0u;
    ck_assert_int_eq(receive(&conn, VSOCK_OP_RW, BUF, 0), VSOCK_VERDICT_DATA);
    ck_assert_int_eq(receive(&conn, VSOCK_OP_RW, _i ? UINT32_MAX : 1, 0),
                     VSOCK_VERDICT_VIOLATION);
}
END_TEST

/*
 * Both directions against a model with 64-bit counters that cannot wrap. The
 * connection's own counters start just below the wrap.
 */
struct model {
    uint64_t sent, forwarded, told;   /* guest to host */
    uint64_t given, consumed, stated; /* host to guest */
};

static void model_step(struct vsock_conn *conn, struct model *m)
{
    struct vsock_header h = packet(VSOCK_OP_RW, 0);
    uint64_t room = BUF - (m->sent - m->told);
    uint64_t credit = BUF - (m->given - m->stated);
    uint32_t n = (uint32_t)rand();

    h.fwd_cnt = conn->peer_fwd_cnt;
    switch (rand() % 5) {
    case 0: /* the guest sends within its credit */
        h.len = (uint32_t)(n % (room + 1));
        ck_assert_int_eq(vsock_conn_receive(conn, &h),
                         h.len ? VSOCK_VERDICT_DATA : VSOCK_VERDICT_NONE);
        m->sent += h.len;
        break;
    case 1: /* the host takes some of it */
        n = (uint32_t)(n % (m->sent - m->forwarded + 1));
        vsock_conn_forwarded(conn, n);
        m->forwarded += n;
        ck_assert_int_eq((conn->due & VSOCK_DUE_CREDIT) != 0,
                         m->forwarded - m->told >= BUF / 2);
        break;
    case 2: /* we send within the guest's credit */
        ck_assert_uint_eq(vsock_conn_credit(conn), credit);
        n = (uint32_t)(n % (credit + 1));
        vsock_conn_send(conn, n, &h);
        ck_assert_uint_eq(h.len, n);
        m->given += n;
        m->told = m->forwarded;
        break;
    case 3: /* the guest consumes and says so */
        n = (uint32_t)(n % (m->given - m->consumed + 1));
        m->consumed += n;
        m->stated = m->consumed;
        h.op = VSOCK_OP_CREDIT_UPDATE;
        h.fwd_cnt += n;
        ck_assert_int_eq(vsock_conn_receive(conn, &h), VSOCK_VERDICT_NONE);
        break;
    default: /* control packets get through */
        while (vsock_conn_next_due(conn, &h)) {
            ck_assert_uint_eq(h.op, VSOCK_OP_CREDIT_UPDATE);
            m->told = m->forwarded;
        }
        break;
    }
    ck_assert(vsock_conn_check(conn));
}

START_TEST(credit_differential)
{
    const uint32_t start = 0xffffe000u;
    struct vsock_conn conn;
    struct model m = {0};

    srand(12345u + (unsigned)_i);
    make(&conn, VSOCK_CONN_ESTABLISHED);
    conn.rx_cnt = conn.fwd_cnt = conn.told_fwd_cnt = start;
    conn.tx_cnt = conn.peer_fwd_cnt = start;
    for (unsigned i = 0; i < 20000; i++) {
        model_step(&conn, &m);
        ck_assert_uint_eq(conn.rx_cnt, start + (uint32_t)m.sent);
        ck_assert_uint_eq(conn.fwd_cnt, start + (uint32_t)m.forwarded);
        ck_assert_uint_eq(conn.told_fwd_cnt, start + (uint32_t)m.told);
        ck_assert_uint_eq(conn.tx_cnt, start + (uint32_t)m.given);
    }
    ck_assert_uint_gt(m.sent, 1u << 20);
    ck_assert_uint_gt(m.given, 1u << 20);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vsock_conn");
    TCase *tc = tcase_create("conn");
    SRunner *sr;
    int failed;

    tcase_add_loop_test(tc, op_in_state, 0, (int)ARRAY_SIZE(op_table));
    tcase_add_test(tc, early_response_is_a_violation);
    tcase_add_test(tc, abort_before_request_is_silent);
    tcase_add_loop_test(tc, guest_shutdown, 0, 16);
    tcase_add_test(tc, host_shutdown_is_told_once);
    tcase_add_loop_test(tc, credit_of_counters, 0,
                        (int)ARRAY_SIZE(credit_table));
    tcase_add_loop_test(tc, overrun_is_a_violation, 0, 2);
    tcase_add_loop_test(tc, credit_differential, 0, 20);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
