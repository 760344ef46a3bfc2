/* SPDX-License-Identifier: Apache-2.0 */
/* Connections by port pair. See the header. */
#include "devices/vsock/vsock_table.h"

static struct vsock_bucket *
table_bucket(struct vsock_table *table, uint32_t guest_port, uint32_t host_port)
{
    /*
     * The guest may make pairs collide; the walk is then as long as the
     * device has connections, which is bounded.
     */
    uint32_t hash = (guest_port * 0x9e3779b1u) ^ (host_port * 0x85ebca6bu);

    return &table->buckets[(hash >> 16) % VSOCK_TABLE_BUCKETS];
}

void vsock_table_init(struct vsock_table *table)
{
    for (unsigned i = 0; i < VSOCK_TABLE_BUCKETS; i++)
        LIST_INIT(&table->buckets[i]);
    table->next_host_port = VSOCK_HOST_PORT_FIRST;
}

struct vsock_link *vsock_table_find(struct vsock_table *table,
                                    uint32_t guest_port, uint32_t host_port)
{
    struct vsock_link *link;

    LIST_FOREACH(link, table_bucket(table, guest_port, host_port), bucket_entry)
    {
        if (link->conn.guest_port == guest_port &&
            link->conn.host_port == host_port)
            return link;
    }
    return NULL;
}

void vsock_table_insert(struct vsock_table *table, struct vsock_link *link)
{
    LIST_INSERT_HEAD(
        table_bucket(table, link->conn.guest_port, link->conn.host_port), link,
        bucket_entry);
    link->in_table = true;
}

void vsock_table_remove(struct vsock_link *link)
{
    if (!link->in_table)
        return;
    LIST_REMOVE(link, bucket_entry);
    link->in_table = false;
}

bool vsock_table_check_port(const struct vsock_table *table)
{
    return table->next_host_port >= VSOCK_HOST_PORT_FIRST &&
           table->next_host_port < 2 * VSOCK_HOST_PORT_FIRST;
}

uint32_t vsock_table_assign_port(struct vsock_table *table, uint32_t guest_port)
{
    uint32_t port;

    /* Ends: there are far fewer connections than ports. */
    do {
        port = table->next_host_port++;
        if (table->next_host_port >= 2 * VSOCK_HOST_PORT_FIRST)
            table->next_host_port = VSOCK_HOST_PORT_FIRST;
    } while (vsock_table_find(table, guest_port, port));
    return port;
}
