/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's terminal in raw mode, and the keys behind Ctrl-A. The terminal is
 * put back by console_restore, which every way out of a verb calls.
 */
#ifndef MICROSBX_CLI_CONSOLE_H
#define MICROSBX_CLI_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

struct console {
    int fd;   /* the terminal, borrowed; -1: stdin is none */
    bool raw; /* modes must be put back */
    struct termios saved;
    bool escape; /* the last byte was Ctrl-A */
};

enum console_key {
    CONSOLE_KEY_NONE,
    CONSOLE_KEY_END,  /* Ctrl-A x */
    CONSOLE_KEY_HELP, /* Ctrl-A h */
};

/* Looks whether fd is a terminal; changes nothing yet. */
void console_init(struct console *c, int fd);
/* Raw mode, if it is a terminal: 0 or a negative errno. */
int console_make_raw(struct console *c) __attribute__((warn_unused_result));
/* Puts the terminal back. Any number of times. */
void console_restore(struct console *c);
/* Rows and columns, or 0 and 0 if it is no terminal. */
void console_size(const struct console *c, unsigned *ret_rows,
                  unsigned *ret_columns);

/*
 * Takes typed bytes: what is meant for the guest goes to out (room for
 * len + 1), its count to *ret_len. Returns the key behind Ctrl-A, if one was
 * typed; bytes behind it are dropped. On no terminal nothing is special.
 */
enum console_key console_filter(struct console *c, const uint8_t *in,
                                size_t len, uint8_t *out, size_t *ret_len);

#endif
