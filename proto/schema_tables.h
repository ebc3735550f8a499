/* The tables of all messages, by name; private to proto/. Others ask pm_msg_schema by number. */
#ifndef PM_PROTO_SCHEMA_TABLES_H
#define PM_PROTO_SCHEMA_TABLES_H

#include "proto/messages.h"
#include "proto/schema.h"

extern const struct pm_schema pm_schema_hello, pm_schema_welcome, pm_schema_refuse, pm_schema_goodbye,
    pm_schema_ping, pm_schema_pong, pm_schema_credit, pm_schema_options, pm_schema_lease, pm_schema_beat,
    pm_schema_partial, pm_schema_result, pm_schema_result_ack, pm_schema_revoke, pm_schema_drain,
    pm_schema_seen, pm_schema_known;

extern const struct pm_schema pm_schema_submit, pm_schema_accepted, pm_schema_list, pm_schema_jobs,
    pm_schema_status, pm_schema_job, pm_schema_cancel, pm_schema_retry, pm_schema_forget, pm_schema_done,
    pm_schema_watch, pm_schema_event, pm_schema_fetch, pm_schema_manifest_message, pm_schema_stats,
    pm_schema_fleet, pm_schema_shutdown, pm_schema_blob_put, pm_schema_blob_stored, pm_schema_blob_get,
    pm_schema_blob_data;

#endif
