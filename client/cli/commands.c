/* The list of commands, in the order of the help. */
#include "client/cli/cli.h"

const struct pm_command *const pm_commands[] = {
    &pm_command_parse,  &pm_command_submit, &pm_command_jobs,    &pm_command_status, &pm_command_watch,
    &pm_command_cancel, &pm_command_retry,  &pm_command_result,  &pm_command_top,    &pm_command_logs,
    &pm_command_up,     &pm_command_down,   &pm_command_restart, &pm_command_health, &pm_command_doctor,
    &pm_command_keys,   &pm_command_model,  &pm_command_version, &pm_command_help,   NULL};
