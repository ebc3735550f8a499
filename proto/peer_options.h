/* What every service that takes leases has on its command line: where the broker is, its own name, how long
 * it waits for a broker. Threads: pure functions. */
#ifndef PM_PROTO_PEER_OPTIONS_H
#define PM_PROTO_PEER_OPTIONS_H

#include "base/daemon.h"
#include "proto/peer.h"

/* The first member of such a service's settings. */
struct pm_peer_settings {
    struct pm_daemon_settings daemon; /* its name is also the peer's */
    const char *endpoint;
    struct pm_key_options keys;
    uint32_t give_up_s; /* 0: never */
    uint32_t ready_fd;  /* 0: none */
    uint32_t credit;    /* an option of the service's own: what it means and its limit differ */
};
extern const struct pm_option
    pm_peer_options[]; /* --endpoint, --server-key, --key, --name, --give-up, --ready-fd */

/* Borrows the texts of the settings. Readers are for the caller to add. */
struct pm_peer_config pm_peer_config_of(const struct pm_peer_settings *settings, enum pm_role role);

#endif
