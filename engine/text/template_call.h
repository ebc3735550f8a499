/* What filters, tests and methods share. Each has its parameters beside it in a table; the parser puts
 * arguments where they belong, so that a function finds its n-th parameter in slot n. Private to
 * template_*.c. */
#ifndef PM_ENGINE_TEXT_TEMPLATE_CALL_H
#define PM_ENGINE_TEXT_TEMPLATE_CALL_H

#include "engine/text/template_internal.h"

#define CALL_ARGS                                                                                            \
    struct pm_render *r, const struct pm_value *self, const struct pm_arguments *args, struct pm_value *out

static inline bool pm_call_flag(const struct pm_arguments *args, int slot, bool otherwise)
{
    return args->has[slot] ? pm_value_is_true(&args->slot[slot]) : otherwise;
}

/* Given, and not none. */
static inline bool pm_call_has(const struct pm_arguments *args, int slot)
{
    return args->has[slot] && args->slot[slot].kind != PM_V_NONE;
}

/* PM_EINVAL: "name of a list". */
int pm_call_fail(struct pm_render *r, const char *name, const struct pm_value *self);
int pm_call_string(struct pm_render *r, const char *name, const struct pm_value *v, struct pm_text *out);
/* An integer argument, or otherwise when it is not given. */
int pm_call_int(struct pm_render *r, const char *name, const struct pm_arguments *args, int slot,
                int64_t otherwise, int64_t *out);
/* which: 1 left, 2 right, 3 both; slot 0: the characters. */
int pm_call_strip(struct pm_render *r, const struct pm_value *self, const struct pm_arguments *args,
                  int which, struct pm_value *out);
/* (key, value) tuples, or one half of them: 0 both, 1 keys, 2 values. */
int pm_call_dict_parts(struct pm_render *r, const struct pm_dict *d, int half, enum pm_seq_flavour flavour,
                       struct pm_value *out);
/* The join filter: slot 0 what stands between. */
int pm_call_join(CALL_ARGS);
const struct pm_callable *pm_call_look_up(const struct pm_callable *table, size_t count, struct pm_text name);

#endif
