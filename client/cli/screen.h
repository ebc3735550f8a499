/* A terminal used as a screen: the other buffer, no cursor, keys as they are pressed. What is there before is
 * there again after pm_screen_close, which must run on every way out.
 * Threads: one owner. Errors: none; a terminal without keys (standard input is none) is only drawn on. */
#ifndef PM_CLIENT_CLI_SCREEN_H
#define PM_CLIENT_CLI_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

enum pm_key { /* else the character */
              PM_KEY_NONE = 0,
              PM_KEY_UP = 256,
              PM_KEY_DOWN,
              PM_KEY_PAGE_UP,
              PM_KEY_PAGE_DOWN,
              PM_KEY_HOME,
              PM_KEY_END,
              PM_KEY_ESCAPE,
              PM_KEY_GONE, /* the terminal is */
};
struct pm_screen {
    struct termios before;
    bool has_keys, is_open;
    int signal_fd; /* resized, Ctrl-Z, back again */
    int rows, columns;
    char **shown; /* what stands in each row, so that only changes are sent */
    int shown_rows;
    unsigned char keys[64];
    size_t key_count;
};
void pm_screen_open(struct pm_screen *screen);
void pm_screen_close(struct pm_screen *screen);
/* Shows rows from the top; the others are cleared. */
void pm_screen_draw(struct pm_screen *screen, const char *const *lines, int count);
/* Waits for a key, a signal on stop_fd or timeout: the key, PM_KEY_NONE, or PM_KEY_GONE. A new size and
 * Ctrl-Z are dealt with and end the wait too. stop_out: stop_fd is readable. */
int pm_screen_wait(struct pm_screen *screen, int stop_fd, int64_t timeout_us, bool *stop_out);

/* The next key of what a terminal sent; *used_out bytes, 0 when more must come. Pure. */
int pm_screen_key(const unsigned char *bytes, size_t count, size_t *used_out);

#endif
