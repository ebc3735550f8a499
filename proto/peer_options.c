#include "proto/peer_options.h"

const struct pm_option pm_peer_options[] = {
    {"endpoint", 0, PM_OPTION_NEED_TEXT, "URL",
     "The broker's socket for services, for example ipc:///run/pagemill/work.sock.",
     offsetof(struct pm_peer_settings, endpoint), 0, 0},
    {"name", 0, PM_OPTION_TEXT, "NAME", "The name in lists and logs. Default: that of the service.",
     offsetof(struct pm_peer_settings, daemon.name), 0, 0},
    {"give-up", 0, PM_OPTION_UINT, "SECONDS", "Leave when no broker answers for this long. Default: never.",
     offsetof(struct pm_peer_settings, give_up_s), 1, 1 << 30},
    {"ready-fd", 0, PM_OPTION_UINT, "N",
     "Write the process number, as a line, to descriptor N once the broker has welcomed this service.",
     offsetof(struct pm_peer_settings, ready_fd), 3, 1 << 20},
    PM_OPTION_END};

struct pm_peer_config pm_peer_config_of(const struct pm_peer_settings *settings, enum pm_role role)
{
    return (struct pm_peer_config){.endpoint = settings->endpoint,
                                   .role = role,
                                   .name = settings->daemon.name,
                                   .credit = settings->credit,
                                   .give_up_us = (int64_t)settings->give_up_s * 1000000,
                                   .ready_fd = (int)settings->ready_fd};
}
