#include "client/cli/color.h"

#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"

int pm_color_choose(const char *when, struct pm_error *err)
{
    if (!when || !strcmp(when, "auto"))
        return 0;
    if (!strcmp(when, "always")) {
        unsetenv("NO_COLOR");
        setenv("CLICOLOR_FORCE", "1", 1);
    } else if (!strcmp(when, "never")) {
        setenv("NO_COLOR", "1", 1);
    } else {
        return pm_fail(err, PM_EINVAL, "--color is auto, always or never, not \"%.40s\"", when);
    }
    return 0;
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

bool pm_color_is_on(int fd)
{
    const char *force = variable("CLICOLOR_FORCE");
    if (*variable("NO_COLOR"))
        return false;
    return (*force && strcmp(force, "0") != 0) || pm_cli_is_terminal(fd);
}

const char *pm_color_begin(enum pm_color color, bool is_on)
{
    static const char *const codes[] = {
        [PM_COLOR_NONE] = "",        [PM_COLOR_GOOD] = "\033[32m", [PM_COLOR_WARN] = "\033[33m",
        [PM_COLOR_BAD] = "\033[31m", [PM_COLOR_FAINT] = "\033[2m", [PM_COLOR_STRONG] = "\033[1m",
        [PM_COLOR_BUSY] = "\033[36m"};
    return is_on ? codes[color] : "";
}

const char *pm_color_end(enum pm_color color, bool is_on)
{
    return is_on && color != PM_COLOR_NONE ? "\033[0m" : "";
}

enum pm_color pm_color_of_state(const char *state)
{
    static const struct {
        const char *state;
        enum pm_color color;
    } looks[] = {{"queued", PM_COLOR_NONE}, {"running", PM_COLOR_BUSY},   {"done", PM_COLOR_GOOD},
                 {"failed", PM_COLOR_BAD},  {"cancelled", PM_COLOR_WARN}, {"idle", PM_COLOR_FAINT},
                 {"busy", PM_COLOR_GOOD},   {"alone", PM_COLOR_WARN},     {"stalled", PM_COLOR_BAD},
                 {"away", PM_COLOR_BAD},    {"draining", PM_COLOR_WARN},  {"ok", PM_COLOR_GOOD},
                 {"warn", PM_COLOR_WARN},   {"fail", PM_COLOR_BAD},       {"warning", PM_COLOR_WARN},
                 {"error", PM_COLOR_BAD},   {"debug", PM_COLOR_FAINT}};
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++)
        if (!strcmp(looks[i].state, state))
            return looks[i].color;
    return PM_COLOR_NONE;
}
