#include "proto/peer_options.h"

const struct pm_option pm_peer_options[] = {
    {"endpoint", 0, PM_OPTION_NEED_TEXT, "URL",
     "The broker's socket for services, for example ipc:///run/pagemill/work.sock, or tcp://HOST:PORT.",
     offsetof(struct pm_peer_settings, endpoint), 0, 0},
    {"name", 0, PM_OPTION_TEXT, "NAME", "The name in lists and logs. Default: that of the service.",
     offsetof(struct pm_peer_settings, daemon.name), 0, 0},
    {"give-up", 0, PM_OPTION_UINT, "SECONDS", "Leave when no broker answers for this long. Default: never.",
     offsetof(struct pm_peer_settings, give_up_s), 1, 1 << 30},
    {"ready-fd", 0, PM_OPTION_UINT, "N",
     "Write the process number, as a line, to descriptor N once the broker has welcomed this service.",
     offsetof(struct pm_peer_settings, ready_fd), 3, 1 << 20},
    {"server-key", 0, PM_OPTION_TEXT, "KEY",
     "For tcp: the broker's public key, as `pagemill keys server` prints it, or a file that holds it. "
     "Default: "
     "$PAGEMILL_SERVER_KEY.",
     offsetof(struct pm_peer_settings, keys.server_key), 0, 0},
    {"key", 0, PM_OPTION_TEXT, "FILE",
     "For tcp: this service's key file, made by `pagemill keys new` and allowed there with role work. "
     "Default: "
     "$PAGEMILL_KEY.",
     offsetof(struct pm_peer_settings, keys.key_file), 0, 0},
    {"broker", 0, PM_OPTION_TEXT, "URL", NULL, offsetof(struct pm_peer_settings, endpoint), 0, 0},
    PM_OPTION_END};

struct pm_peer_config pm_peer_config_of(const struct pm_peer_settings *settings, enum pm_role role)
{
    struct pm_key_options keys = settings->keys;
    pm_key_options_from_environment(&keys);
    return (struct pm_peer_config){.endpoint = settings->endpoint,
                                   .keys = keys,
                                   .role = role,
                                   .name = settings->daemon.name,
                                   .credit = settings->credit,
                                   .give_up_us = (int64_t)settings->give_up_s * 1000000,
                                   .ready_fd = (int)settings->ready_fd};
}
