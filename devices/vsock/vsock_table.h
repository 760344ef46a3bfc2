/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's connections by port pair, and the choice of host ports. A link
 * is one connection as the device keeps it: its protocol half and its host
 * half, and where it stands in the device's lists. Owner: the device thread.
 */
#ifndef MICROSBX_DEVICES_VSOCK_VSOCK_TABLE_H
#define MICROSBX_DEVICES_VSOCK_VSOCK_TABLE_H

#include <sys/queue.h>

#include "devices/vsock/vsock_conn.h"
#include "devices/vsock/vsock_host.h"

#define VSOCK_TABLE_BUCKETS 256u
/* Ports we assign to host-initiated connections count up from here. */
#define VSOCK_HOST_PORT_FIRST ((uint32_t)1 << 30)

struct virtio_vsock;

/* Which of the rx side's lists a link is in. */
enum vsock_list_name {
    VSOCK_LIST_NONE,
    VSOCK_LIST_TOUCHED, /* to be looked after before we leave */
    VSOCK_LIST_WAITING, /* for an rx buffer */
};

struct vsock_link {
    struct vsock_conn conn;
    struct vsock_host host;
    struct virtio_vsock *vsock; /* borrowed */
    uint64_t token;             /* of the dial in progress */
    uint64_t deadline_ns;       /* 0: none */
    unsigned burst;             /* rx buffers to try to fill at once */
    enum vsock_list_name list;
    bool in_table;
    bool client;   /* has not sent its CONNECT line yet */
    bool readable; /* the socket may hold bytes for the guest */
    bool starved;  /* not read for want of credit */
    TAILQ_ENTRY(vsock_link) all_entry;
    TAILQ_ENTRY(vsock_link) list_entry;
    LIST_ENTRY(vsock_link) bucket_entry;
};

LIST_HEAD(vsock_bucket, vsock_link);
TAILQ_HEAD(vsock_list, vsock_link);

struct vsock_table {
    struct vsock_bucket buckets[VSOCK_TABLE_BUCKETS];
    uint32_t next_host_port;
};

void vsock_table_init(struct vsock_table *table);

/* NULL if there is none. */
struct vsock_link *vsock_table_find(struct vsock_table *table,
                                    uint32_t guest_port, uint32_t host_port);
/* By the ports in link->conn. Pre: they are not in the table. */
void vsock_table_insert(struct vsock_table *table, struct vsock_link *link);
/* No-op if it is not in the table. */
void vsock_table_remove(struct vsock_link *link);

/*
 * A host port that is not in use with this guest port. Ports go up and come
 * round after 2^30 connections, so one is not used again soon.
 */
uint32_t vsock_table_assign_port(struct vsock_table *table,
                                 uint32_t guest_port);
/* Whether the next port is one that may be assigned (it came from a file). */
bool vsock_table_check_port(const struct vsock_table *table);

#endif
