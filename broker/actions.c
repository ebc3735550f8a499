#include "broker/actions.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct pm_op *pm_actions_op(struct pm_actions *a, enum pm_op_kind kind, uint64_t job)
{
    PM_GROW(a->ops, a->op_count, a->op_capacity);
    struct pm_op *op = &a->ops[a->op_count++];
    *op = (struct pm_op){.kind = kind,
                         .job = job,
                         .client = "",
                         .code = "",
                         .text = "",
                         .record = "",
                         .sheet = "",
                         .blob = "",
                         .cause = "",
                         .peer = "",
                         .version = ""};
    return op;
}

struct pm_action *pm_actions_add(struct pm_actions *a, enum pm_action_kind kind)
{
    PM_GROW(a->items, a->item_count, a->item_capacity);
    struct pm_action *action = &a->items[a->item_count++];
    *action = (struct pm_action){.kind = kind, .reason = "", .blob = "", .text = ""};
    return action;
}

const char *pm_actions_text(struct pm_actions *a, const char *text)
{
    return text ? pm_arena_text(&a->arena, text, strlen(text)) : "";
}

void pm_actions_clear(struct pm_actions *a)
{
    pm_arena_clear(&a->arena);
    a->op_count = 0;
    a->item_count = 0;
}

void pm_actions_free(struct pm_actions *a)
{
    pm_arena_free(&a->arena);
    free(a->ops);
    free(a->items);
    *a = (struct pm_actions){0};
}
