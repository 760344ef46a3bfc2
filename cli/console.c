/* SPDX-License-Identifier: Apache-2.0 */
/* The user's terminal; see the header. */
#include "cli/console.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CTRL_A 0x01

void console_init(struct console *c, int fd)
{
    *c = (struct console){.fd = isatty(fd) ? fd : -1};
}

int console_make_raw(struct console *c)
{
    struct termios raw;

    if (c->fd < 0)
        return 0;
    if (tcgetattr(c->fd, &c->saved) != 0)
        return -errno;
    raw = c->saved;
    cfmakeraw(&raw);
    if (tcsetattr(c->fd, TCSANOW, &raw) != 0)
        return -errno;
    c->raw = true;
    return 0;
}

void console_restore(struct console *c)
{
    if (!c->raw)
        return;
    /* A terminal that is gone cannot be put back; nothing to do then. */
    tcsetattr(c->fd, TCSADRAIN, &c->saved);
    c->raw = false;
}

void console_size(const struct console *c, unsigned *ret_rows,
                  unsigned *ret_columns)
{
    struct winsize size = {0};

    *ret_rows = 0;
    *ret_columns = 0;
    if (c->fd < 0 || ioctl(c->fd, TIOCGWINSZ, &size) != 0)
        return;
    *ret_rows = size.ws_row;
    *ret_columns = size.ws_col;
}

enum console_key console_filter(struct console *c, const uint8_t *in,
                                size_t len, uint8_t *out, size_t *ret_len)
{
    *ret_len = 0;
    for (size_t i = 0; i < len; i++) {
        if (c->escape) {
            c->escape = false;
            if (in[i] == 'x' || in[i] == 'X')
                return CONSOLE_KEY_END;
            if (in[i] == 'h' || in[i] == 'H')
                return CONSOLE_KEY_HELP;
            if (in[i] != CTRL_A)
                out[(*ret_len)++] = CTRL_A;
        } else if (in[i] == CTRL_A && c->fd >= 0) {
            c->escape = true;
            continue;
        }
        out[(*ret_len)++] = in[i];
    }
    return CONSOLE_KEY_NONE;
}
