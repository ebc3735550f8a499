#include <stdlib.h>
#include <string.h>

#include "engine/text/template_internal.h"

/* ---- statements ---- */

static int run_if(struct pm_render *r, const struct pm_node *n)
{
    for (size_t i = 0; i < n->count; i += 2) {
        struct pm_value v;
        int rc = pm_render_eval(r, n->items[i], &v);
        if (rc)
            return rc;
        if (pm_value_is_true(&v))
            return pm_render_run(r, n->items[i + 1]);
    }
    return n->c ? pm_render_run(r, n->c) : 0;
}

/* The items that pass the loop's own "if". */
static int filter_items(struct pm_render *r, const struct pm_node *n, const struct pm_seq **items)
{
    struct pm_seq *chosen;
    struct pm_scope *before = r->scope;
    int rc = pm_value_seq(r, PM_SEQ_LIST, (*items)->count, &chosen, NULL);
    if (rc)
        return rc;
    chosen->count = 0;
    for (size_t i = 0; i < (*items)->count && !rc; i++) {
        struct pm_value v;
        if ((rc = pm_render_push_scope(r, before)) || (rc = pm_render_assign(r, n->a, &(*items)->items[i])) ||
            (rc = pm_render_eval(r, n->c, &v)))
            break;
        if (pm_value_is_true(&v))
            chosen->items[chosen->count++] = (*items)->items[i];
    }
    r->scope = before;
    *items = chosen;
    return rc;
}

static int run_for(struct pm_render *r, const struct pm_node *n)
{
    static const struct pm_text loop_name = {"loop", 4};
    struct pm_value v, loop_value;
    const struct pm_seq *items;
    struct pm_loop *loop;
    struct pm_scope *before = r->scope;
    int rc = pm_render_eval(r, n->b, &v);
    r->line = n->line;
    if (!rc)
        rc = pm_value_walk(r, &v, &items);
    if (!rc && n->c)
        rc = filter_items(r, n, &items);
    if (!rc)
        rc = pm_render_alloc(r, 1, sizeof *loop, &loop);
    if (rc)
        return rc;
    loop->items = items;
    loop_value = (struct pm_value){PM_V_LOOP, {.loop = loop}};
    for (loop->index = 0; loop->index < items->count && !rc; loop->index++) {
        if ((rc = pm_render_push_scope(r, before)) ||
            (rc = pm_render_bind(r, r->scope, loop_name, &loop_value)) ||
            (rc = pm_render_assign(r, n->a, &items->items[loop->index])))
            break;
        rc = pm_render_run(r, n->d);
        bool ends = r->flow == PM_FLOW_BREAK;
        r->flow = PM_FLOW_NEXT;
        if (ends)
            break;
    }
    r->scope = before;
    if (!rc && items->count == 0 && n->e)
        rc = pm_render_run(r, n->e);
    return rc;
}

/* Text of a body in a scope of its own, through the filters of n->b. */
static int capture_filtered(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_scope *before = r->scope;
    int rc = pm_render_push_scope(r, before);
    if (!rc)
        rc = pm_render_capture(r, n->d, out);
    r->scope = before;
    if (!rc && n->b) {
        r->input = *out;
        rc = pm_render_eval(r, n->b, out);
    }
    return rc;
}

static int run_scope(struct pm_render *r, const struct pm_node *n)
{
    struct pm_scope *before = r->scope, *inner;
    int rc = pm_render_push_scope(r, before);
    inner = r->scope;
    for (size_t i = 0; i < n->count && !rc; i += 2) {
        struct pm_value v;
        r->scope = before; /* values do not see the names beside them */
        rc = pm_render_eval(r, n->items[i + 1], &v);
        r->scope = inner;
        if (!rc)
            rc = pm_render_assign(r, n->items[i], &v);
    }
    if (!rc)
        rc = pm_render_run(r, n->d);
    r->scope = before;
    return rc;
}

static int define_macro(struct pm_render *r, const struct pm_node *n)
{
    struct pm_macro *macro;
    int rc = pm_render_alloc(r, 1, sizeof *macro, &macro);
    if (rc)
        return rc;
    macro->node = n;
    macro->scope = r->scope;
    return pm_render_bind(r, r->scope, n->text, &(struct pm_value){PM_V_MACRO, {.macro = macro}});
}

static int run_statement(struct pm_render *r, const struct pm_node *n)
{
    struct pm_value v;
    int rc = 0;
    r->line = n->line;
    switch (n->kind) {
    case PM_N_DATA:
        pm_buf_append(r->out, n->text.text, n->text.bytes);
        return pm_render_work(r, n->text.bytes);
    case PM_N_PRINT:
        rc = pm_render_eval(r, n->a, &v);
        return rc ? rc : pm_value_print(r, &v, r->out);
    case PM_N_IF:
        return run_if(r, n);
    case PM_N_FOR:
        return run_for(r, n);
    case PM_N_SET:
        rc = pm_render_eval(r, n->b, &v);
        return rc ? rc : pm_render_assign(r, n->a, &v);
    case PM_N_SET_BLOCK:
        rc = capture_filtered(r, n, &v);
        return rc ? rc : r->flow == PM_FLOW_NEXT ? pm_render_assign(r, n->a, &v) : 0;
    case PM_N_FILTER_BLOCK:
        rc = capture_filtered(r, n, &v);
        return rc ? rc : pm_value_print(r, &v, r->out);
    case PM_N_MACRO:
        return define_macro(r, n);
    case PM_N_SCOPE:
        return run_scope(r, n);
    case PM_N_BREAK:
    case PM_N_CONTINUE:
        r->flow = n->kind == PM_N_BREAK ? PM_FLOW_BREAK : PM_FLOW_CONTINUE;
        return 0;
    default:
        return pm_render_fail(r, PM_EINTERNAL, "a node of kind %d among statements", (int)n->kind);
    }
}

int pm_render_run(struct pm_render *r, const struct pm_node *body)
{
    int rc = 0;
    if (r->depth >= PM_TEMPLATE_MAX_DEPTH)
        return pm_render_fail(r, PM_ELIMIT, "macros or blocks nest deeper than %d", PM_TEMPLATE_MAX_DEPTH);
    r->depth++;
    for (size_t i = 0; i < body->count && !rc && r->flow == PM_FLOW_NEXT; i++) {
        rc = run_statement(r, body->items[i]);
        if (!rc && r->out->size > PM_TEMPLATE_MAX_OUTPUT)
            rc =
                pm_render_fail(r, PM_ELIMIT, "the text becomes longer than %d bytes", PM_TEMPLATE_MAX_OUTPUT);
    }
    r->depth--;
    return rc;
}

/* ---- all ---- */

int pm_template_render(const struct pm_template *tmpl, const json_t *variables, char **text_out,
                       size_t *bytes_out, struct pm_error *err)
{
    struct pm_buf text = {0};
    struct pm_scope root = {0};
    struct pm_render r = {.name = tmpl->name, .err = err, .out = &text, .scope = &root, .line = 1};
    int rc = json_is_object(variables)
                 ? 0
                 : pm_fail(err, PM_EINVAL, "%s: the variables are not an object", tmpl->name);
    *text_out = NULL;
    *bytes_out = 0;
    for (void *at = rc ? NULL : json_object_iter((json_t *)variables); at && !rc;
         at = json_object_iter_next((json_t *)variables, at)) {
        struct pm_text name = {json_object_iter_key(at), json_object_iter_key_len(at)};
        struct pm_value v;
        if (!(rc = pm_value_from_json(&r, json_object_iter_value(at), 0, &v)))
            rc = pm_render_bind(&r, &root, name, &v);
    }
    if (!rc)
        rc = pm_render_run(&r, tmpl->body);
    pm_arena_free(&r.arena);
    if (rc) {
        pm_buf_free(&text);
        return rc;
    }
    *bytes_out = text.size;
    pm_buf_text(&text, "");
    *text_out = (char *)text.data;
    return 0;
}

/* ---- chats ---- */

/* A message's reasoning goes by several names; templates ask for "reasoning_content" or "thinking". */
static json_t *with_reasoning(const json_t *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *reasoning = NULL, *copy = json_object();
    for (int i = 0; i < 3 && (!reasoning || json_is_null(reasoning)); i++)
        reasoning = json_object_get(message, names[i]);
    bool has_any = reasoning && !json_is_null(reasoning);
    if (has_any)
        json_object_set(copy, "thinking", reasoning);
    json_object_update(copy, (json_t *)message);
    if (has_any)
        json_object_set(copy, "reasoning_content", reasoning);
    return copy;
}

int pm_template_chat_variables(const json_t *messages, const json_t *tools, bool add_generation_prompt,
                               const json_t *extra, json_t **variables_out, struct pm_error *err)
{
    *variables_out = NULL;
    if (!json_is_array(messages))
        return pm_fail(err, PM_EINVAL, "messages of a chat are not an array");
    json_t *all = json_object(), *list = json_array();
    json_object_set_new(all, "messages", list);
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message)) {
            json_decref(all);
            return pm_fail(err, PM_EINVAL, "message %zu of a chat is not an object", i + 1);
        }
        json_array_append_new(list, with_reasoning(message));
    }
    json_object_set_new(all, "tools", tools ? json_incref((json_t *)tools) : json_null());
    json_object_set_new(all, "documents", json_null());
    json_object_set_new(all, "add_generation_prompt", json_boolean(add_generation_prompt));
    if (extra)
        json_object_update(all, (json_t *)extra);
    *variables_out = all;
    return 0;
}
