/* Tokens to the tree, by Jinja's grammar: the same precedence, the same places where a tuple or an inline if
 * may stand. A construct that is not served is refused here. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/template_internal.h"

struct name_at {
    struct pm_text name;
    int line;
};

struct parser {
    const char *name;
    struct pm_error *err;
    struct pm_arena *arena;
    const struct pm_template_token *at;
    int nesting;    /* of the grammar's functions */
    int loops;      /* for loops around */
    int macros;     /* macros around */
    int safe_count; /* safe filters that are not the last thing of a {{ }} */
    /* Names that are called, and names that a template binds: what is neither bound nor a function cannot be
     * called. */
    struct name_at *called;
    size_t called_count, called_capacity;
    struct pm_text *bound;
    size_t bound_count, bound_capacity;
};

static int parse_expression(struct parser *p, bool with_cond, struct pm_node **out);
static int parse_unary(struct parser *p, bool with_filter, struct pm_node **out);
static int parse_body(struct parser *p, const char *ends, struct pm_node **out);

/* ---- tokens and nodes ---- */

static int fail_at(struct parser *p, int code, int line, const char *format, struct pm_text what)
{
    char text[300];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof text, format, (int)(what.bytes > 60 ? 60 : what.bytes), what.text ? what.text : "");
#pragma GCC diagnostic pop
    return pm_fail(p->err, code, "%s: line %d: %s", p->name, line, text);
}

static int fail_unexpected(struct parser *p, const char *wanted)
{
    static const char *const kinds[] = {"the end of the template", "text", "{{", "}}", "{%", "%}"};
    char text[200];
    if (p->at->kind >= PM_T_NAME)
        snprintf(text, sizeof text, "\"%.*s\"", (int)(p->at->text.bytes > 60 ? 60 : p->at->text.bytes),
                 p->at->text.text);
    else
        snprintf(text, sizeof text, "%s", kinds[p->at->kind]);
    return pm_fail(p->err, PM_EFORMAT, "%s: line %d: %s where %s should stand", p->name, p->at->line, text,
                   wanted);
}

static bool is_op(const struct parser *p, int op)
{
    return p->at->kind == PM_T_OP && p->at->op == op;
}

static bool is_word(const struct pm_template_token *t, const char *word)
{
    return t->kind == PM_T_NAME && pm_text_is(t->text, word);
}

static bool skip_op(struct parser *p, int op)
{
    bool is = is_op(p, op);
    p->at += is;
    return is;
}

static bool skip_word(struct parser *p, const char *word)
{
    bool is = is_word(p->at, word);
    p->at += is;
    return is;
}

static int expect_op(struct parser *p, int op, const char *wanted)
{
    return skip_op(p, op) ? 0 : fail_unexpected(p, wanted);
}

static int expect_name(struct parser *p, struct pm_text *out)
{
    if (p->at->kind != PM_T_NAME)
        return fail_unexpected(p, "a name");
    *out = p->at++->text;
    return 0;
}

static struct pm_node *new_node(struct parser *p, enum pm_node_kind kind, int line)
{
    struct pm_node *n = pm_arena_alloc(p->arena, sizeof *n);
    n->kind = kind;
    n->line = line;
    n->depth = 1;
    return n;
}

static void note_child(struct pm_node *n, const struct pm_node *child)
{
    if (child && child->depth >= n->depth)
        n->depth = child->depth + 1;
}

/* Fails when the tree below n is too deep to walk; also completes n's depth. */
static int close_node(struct parser *p, struct pm_node *n)
{
    note_child(n, n->a);
    note_child(n, n->b);
    note_child(n, n->c);
    note_child(n, n->d);
    note_child(n, n->e);
    for (size_t i = 0; i < n->count; i++)
        note_child(n, n->items[i]);
    for (size_t i = 0; n->slots && i < PM_CALL_SLOTS; i++)
        note_child(n, n->slots[i]);
    if (n->depth > PM_TEMPLATE_MAX_NESTING)
        return pm_fail(p->err, PM_ELIMIT, "%s: line %d: expressions or blocks nest deeper than %d", p->name,
                       n->line, PM_TEMPLATE_MAX_NESTING);
    return 0;
}

static int enter(struct parser *p)
{
    if (++p->nesting > PM_TEMPLATE_MAX_NESTING)
        return pm_fail(p->err, PM_ELIMIT, "%s: line %d: expressions or blocks nest deeper than %d", p->name,
                       p->at->line, PM_TEMPLATE_MAX_NESTING);
    return 0;
}

/* Growing list of nodes; moved into the arena when complete. */
struct list {
    struct pm_node **items;
    size_t count, capacity;
};

static void list_add(struct list *l, struct pm_node *n)
{
    PM_GROW(l->items, l->count, l->capacity);
    l->items[l->count++] = n;
}

static int list_close(struct parser *p, struct list *l, struct pm_node *n, int rc)
{
    if (!rc && l->count) {
        n->items = pm_arena_alloc(p->arena, l->count * sizeof *n->items);
        memcpy(n->items, l->items, l->count * sizeof *n->items);
        n->count = l->count;
    }
    free(l->items);
    return rc ? rc : close_node(p, n);
}

static void bind_name(struct parser *p, struct pm_text name)
{
    PM_GROW(p->bound, p->bound_count, p->bound_capacity);
    p->bound[p->bound_count++] = name;
}

/* ---- calls ---- */

struct call_arguments {
    struct list positional, named;
    struct pm_text *names; /* [named.count] */
    size_t names_capacity;
};

static void free_arguments(struct call_arguments *a)
{
    free(a->positional.items);
    free(a->named.items);
    free(a->names);
}

/* "(...)"; the opening bracket is next. */
static int parse_arguments(struct parser *p, struct call_arguments *a)
{
    int rc = expect_op(p, PM_OP_OPEN, "(");
    while (!rc && !skip_op(p, PM_OP_CLOSE)) {
        struct pm_node *value;
        if (is_op(p, PM_OP_MUL) || is_op(p, PM_OP_POW))
            return fail_at(p, PM_EUNSUPPORTED, p->at->line, "%.*s of arguments is not served", p->at->text);
        bool is_named = p->at->kind == PM_T_NAME && p->at[1].kind == PM_T_OP && p->at[1].op == PM_OP_ASSIGN;
        if (is_named) {
            if (a->named.count >= a->names_capacity) {
                a->names_capacity = a->names_capacity ? 2 * a->names_capacity : 8;
                a->names = pm_xrealloc(a->names, a->names_capacity * sizeof *a->names);
            }
            a->names[a->named.count] = p->at->text;
            p->at += 2;
        } else if (a->named.count) {
            return fail_unexpected(p, "a named argument");
        }
        if ((rc = parse_expression(p, true, &value)))
            return rc;
        list_add(is_named ? &a->named : &a->positional, value);
        if (!is_op(p, PM_OP_CLOSE))
            rc = expect_op(p, PM_OP_COMMA, "a comma or )");
    }
    return rc;
}

/* The index of a parameter by its name; -1: none. */
static int parameter_index(const char *parameters, struct pm_text name)
{
    int index = 0;
    for (const char *at = parameters; *at; index++) {
        size_t n = strcspn(at, " ");
        if (n == name.bytes && memcmp(at, name.text, n) == 0)
            return index;
        at += n + (at[n] == ' ');
    }
    return -1;
}

static int parameter_count(const char *parameters)
{
    int count = *parameters != 0;
    for (; *parameters; parameters++)
        count += *parameters == ' ';
    return count;
}

/* Puts arguments where the callable's parameters are. */
static int place_arguments(struct parser *p, struct pm_node *n, const struct pm_callable *call,
                           const struct call_arguments *a)
{
    n->call = call;
    n->slots = pm_arena_alloc(p->arena, PM_CALL_SLOTS * sizeof *n->slots);
    if (a->positional.count > (size_t)parameter_count(call->parameters))
        return fail_at(p, PM_EUNSUPPORTED, n->line, "%.*s has more arguments than are served", n->text);
    if (a->positional.count)
        memcpy(n->slots, a->positional.items, a->positional.count * sizeof *n->slots);
    for (size_t i = 0; i < a->named.count; i++) {
        int index = parameter_index(call->parameters, a->names[i]);
        if (index < 0)
            return fail_at(p, PM_EUNSUPPORTED, n->line, "the argument %.*s is not served here", a->names[i]);
        if (n->slots[index])
            return fail_at(p, PM_EFORMAT, n->line, "the argument %.*s is given twice", a->names[i]);
        n->slots[index] = a->named.items[i];
    }
    for (int i = 0; i < call->required; i++)
        if (!n->slots[i])
            return fail_at(p, PM_EFORMAT, n->line, "%.*s lacks an argument", n->text);
    return close_node(p, n);
}

/* A filter's name that another filter takes as a constant ("map('upper')") must be known too. */
static int check_inner_name(struct parser *p, const struct pm_node *n, bool wants_test, int slot)
{
    const struct pm_node *name = n->slots[slot];
    if (!name || name->kind != PM_N_CONST || name->value.kind != PM_V_STRING)
        return 0;
    struct pm_text text = name->value.u.string;
    if (wants_test ? pm_template_test(text) != NULL : pm_template_filter(text) != NULL)
        return 0;
    return fail_at(p, PM_EUNSUPPORTED, n->line,
                   wants_test ? "the test %.*s is not served" : "the filter %.*s is not served", text);
}

static int parse_filter(struct parser *p, struct pm_node *input, struct pm_node **out)
{
    struct pm_node *n = new_node(p, PM_N_FILTER, p->at->line);
    int rc = expect_name(p, &n->text);
    if (rc)
        return rc;
    n->a = input;
    struct call_arguments a = {0};
    const struct pm_callable *call = pm_template_filter(n->text);
    bool is_safe = pm_text_is(n->text, "safe");
    if (!call && !is_safe)
        rc = fail_at(p, PM_EUNSUPPORTED, n->line, "the filter %.*s is not served", n->text);
    if (!rc && is_op(p, PM_OP_OPEN))
        rc = parse_arguments(p, &a);
    if (!rc && is_safe) {
        p->safe_count++;
        rc = close_node(p, n);
    } else if (!rc) {
        rc = place_arguments(p, n, call, &a);
    }
    if (!rc && pm_text_is(n->text, "map"))
        rc = check_inner_name(p, n, false, 0);
    if (!rc && (pm_text_is(n->text, "select") || pm_text_is(n->text, "reject")))
        rc = check_inner_name(p, n, true, 0);
    if (!rc && (pm_text_is(n->text, "selectattr") || pm_text_is(n->text, "rejectattr")))
        rc = check_inner_name(p, n, true, 1);
    free_arguments(&a);
    *out = n;
    return rc;
}

/* "is" was read. */
static int parse_test(struct parser *p, struct pm_node *input, struct pm_node **out)
{
    bool is_negated = skip_word(p, "not");
    struct pm_node *n = new_node(p, PM_N_TEST, p->at->line);
    int rc = expect_name(p, &n->text);
    if (rc)
        return rc;
    n->a = input;
    struct call_arguments a = {0};
    const struct pm_callable *call = pm_template_test(n->text);
    const struct pm_template_token *t = p->at;
    if (!call)
        rc = fail_at(p, PM_EUNSUPPORTED, n->line, "the test %.*s is not served", n->text);
    else if (is_op(p, PM_OP_OPEN))
        rc = parse_arguments(p, &a);
    else if (t->kind == PM_T_STRING || t->kind == PM_T_INT || t->kind == PM_T_FLOAT ||
             is_op(p, PM_OP_OPEN_LIST) || is_op(p, PM_OP_OPEN_DICT) ||
             (t->kind == PM_T_NAME && !is_word(t, "else") && !is_word(t, "or") && !is_word(t, "and"))) {
        struct pm_node *value;
        if (is_word(t, "is"))
            rc = fail_unexpected(p, "the end of the test (tests cannot be chained)");
        else if (call->parameters[0] == 0)
            rc = fail_unexpected(p, "the end of the test");
        else if (!(rc = parse_unary(p, false, &value)))
            list_add(&a.positional, value);
    }
    if (!rc)
        rc = place_arguments(p, n, call, &a);
    free_arguments(&a);
    if (!rc && is_negated) {
        struct pm_node *not = new_node(p, PM_N_NOT, n->line);
        not ->a = n;
        n = not ;
        rc = close_node(p, n);
    }
    *out = n;
    return rc;
}

static const char *const functions[] = {"range", "namespace", "dict", "raise_exception"};

static int parse_call(struct parser *p, struct pm_node *callee, struct pm_node **out)
{
    struct call_arguments a = {0};
    struct pm_node *n = new_node(p, callee->kind == PM_N_ATTR ? PM_N_METHOD : PM_N_CALL, p->at->line);
    n->text = callee->text;
    int rc = 0;
    if (callee->kind == PM_N_ATTR) {
        const struct pm_callable *call = pm_template_method(n->text);
        n->a = callee->a;
        if (!call)
            rc = fail_at(p, PM_EUNSUPPORTED, n->line, "the method %.*s is not served", n->text);
        else if (!(rc = parse_arguments(p, &a)))
            rc = place_arguments(p, n, call, &a);
    } else if (callee->kind != PM_N_NAME) {
        rc = fail_at(p, PM_EUNSUPPORTED, n->line, "calling what is not a name is not served%.*s",
                     (struct pm_text){NULL, 0});
    } else if (!(rc = parse_arguments(p, &a))) {
        PM_GROW(p->called, p->called_count, p->called_capacity);
        p->called[p->called_count++] = (struct name_at){n->text, n->line};
        n->keyword_count = a.named.count;
        n->keywords = pm_arena_alloc(p->arena, (a.named.count + 1) * sizeof *n->keywords);
        for (size_t i = 0; i < a.named.count; i++) {
            n->keywords[i] = a.names[i];
            list_add(&a.positional, a.named.items[i]);
        }
        rc = list_close(p, &a.positional, n, 0);
        a.positional.items = NULL;
    }
    free_arguments(&a);
    *out = n;
    return rc;
}

/* ---- primary and postfix ---- */

static int parse_items(struct parser *p, struct pm_node *n, int close, const char *wanted, bool is_dict)
{
    struct list items = {0};
    int rc = 0;
    while (!rc && !skip_op(p, close)) {
        struct pm_node *value;
        if (items.count > 0) {
            if ((rc = expect_op(p, PM_OP_COMMA, wanted)))
                break;
            if (skip_op(p, close))
                break;
        }
        if ((rc = parse_expression(p, true, &value)))
            break;
        list_add(&items, value);
        if (is_dict && !(rc = expect_op(p, PM_OP_COLON, ":")) && !(rc = parse_expression(p, true, &value)))
            list_add(&items, value);
    }
    return list_close(p, &items, n, rc);
}

/* One or more expressions: a tuple when there is a comma. */
static int parse_tuple(struct parser *p, bool with_cond, bool may_be_empty, struct pm_node **out)
{
    struct list items = {0};
    struct pm_node *n = new_node(p, PM_N_TUPLE, p->at->line), *value;
    bool is_tuple = false;
    int rc = 0;
    for (;;) {
        if (p->at->kind == PM_T_PRINT_END || p->at->kind == PM_T_BLOCK_END || is_op(p, PM_OP_CLOSE))
            break;
        if ((rc = parse_expression(p, with_cond, &value)))
            break;
        list_add(&items, value);
        if (!skip_op(p, PM_OP_COMMA))
            break;
        is_tuple = true;
    }
    if (!rc && !is_tuple && items.count == 1) {
        *out = items.items[0];
        free(items.items);
        return 0;
    }
    if (!rc && !is_tuple && !may_be_empty)
        rc = fail_unexpected(p, "an expression");
    *out = n;
    return list_close(p, &items, n, rc);
}

static struct pm_node *constant(struct parser *p, struct pm_value value, int line)
{
    struct pm_node *n = new_node(p, PM_N_CONST, line);
    n->value = value;
    return n;
}

static int parse_string(struct parser *p, struct pm_node **out)
{
    struct pm_buf all = {0};
    int line = p->at->line;
    for (; p->at->kind == PM_T_STRING; p->at++)
        pm_buf_append(&all, p->at->text.text, p->at->text.bytes);
    *out = constant(p, pm_value_string(pm_arena_text(p->arena, (char *)all.data, all.size), all.size), line);
    pm_buf_free(&all);
    return 0;
}

static int parse_primary(struct parser *p, struct pm_node **out)
{
    const struct pm_template_token *t = p->at;
    int line = t->line, rc;
    switch (t->kind) {
    case PM_T_STRING:
        return parse_string(p, out);
    case PM_T_INT:
        p->at++;
        *out = constant(p, pm_value_int(t->integer), line);
        return 0;
    case PM_T_FLOAT:
        p->at++;
        *out = constant(p, (struct pm_value){PM_V_FLOAT, {.real = t->real}}, line);
        return 0;
    case PM_T_NAME:
        p->at++;
        if (pm_text_is(t->text, "true") || pm_text_is(t->text, "True"))
            *out = constant(p, pm_value_bool(true), line);
        else if (pm_text_is(t->text, "false") || pm_text_is(t->text, "False"))
            *out = constant(p, pm_value_bool(false), line);
        else if (pm_text_is(t->text, "none") || pm_text_is(t->text, "None"))
            *out = constant(p, (struct pm_value){.kind = PM_V_NONE}, line);
        else if (pm_text_is(t->text, "self") ||
                 (p->macros && (pm_text_is(t->text, "caller") || pm_text_is(t->text, "varargs") ||
                                pm_text_is(t->text, "kwargs")))) {
            return fail_at(p, PM_EUNSUPPORTED, line, "the name %.*s is not served", t->text);
        } else {
            *out = new_node(p, PM_N_NAME, line);
            (*out)->text = t->text;
        }
        return 0;
    default:
        break;
    }
    if (skip_op(p, PM_OP_OPEN)) {
        rc = parse_tuple(p, true, true, out);
        return rc ? rc : expect_op(p, PM_OP_CLOSE, ")");
    }
    bool is_list = skip_op(p, PM_OP_OPEN_LIST);
    if (!is_list && !skip_op(p, PM_OP_OPEN_DICT))
        return fail_unexpected(p, "an expression");
    *out = new_node(p, is_list ? PM_N_LIST : PM_N_DICT, line);
    return parse_items(p, *out, is_list ? PM_OP_CLOSE_LIST : PM_OP_CLOSE_DICT,
                       is_list ? "a comma or ]" : "a comma or }", !is_list);
}

/* What stands between [ and ]: an index or a slice. */
static int parse_subscript(struct parser *p, struct pm_node *base, struct pm_node **out)
{
    struct pm_node *n = new_node(p, PM_N_ITEM, p->at->line), *bounds[3] = {NULL};
    int rc = 0, parts = 0;
    bool is_slice = false;
    n->a = base;
    while (!rc && parts < 3 && !is_op(p, PM_OP_CLOSE_LIST)) {
        if (!is_op(p, PM_OP_COLON))
            rc = parse_expression(p, true, &bounds[parts]);
        if (rc || !is_op(p, PM_OP_COLON))
            break;
        is_slice = true;
        parts++;
        if (parts < 3)
            p->at++;
    }
    if (rc)
        return rc;
    if (is_op(p, PM_OP_COMMA))
        return fail_at(p, PM_EUNSUPPORTED, n->line, "an index of several parts is not served%.*s",
                       (struct pm_text){NULL, 0});
    if (!is_slice && !bounds[0])
        return fail_unexpected(p, "an index");
    if ((rc = expect_op(p, PM_OP_CLOSE_LIST, "]")))
        return rc;
    *out = n;
    n->b = is_slice ? NULL : bounds[0];
    if (!is_slice)
        return close_node(p, n);
    n->kind = PM_N_SLICE;
    n->items = pm_arena_alloc(p->arena, sizeof bounds);
    memcpy(n->items, bounds, sizeof bounds);
    n->count = 3;
    return close_node(p, n);
}

static int parse_attribute(struct parser *p, struct pm_node *base, struct pm_node **out)
{
    struct pm_node *n = new_node(p, PM_N_ATTR, p->at->line);
    n->a = base;
    *out = n;
    if (p->at->kind == PM_T_INT) {
        n->kind = PM_N_ITEM;
        n->b = constant(p, pm_value_int(p->at->integer), n->line);
        p->at++;
        return close_node(p, n);
    }
    int rc = expect_name(p, &n->text);
    if (!rc && n->text.bytes > 1 && n->text.text[0] == '_' && n->text.text[1] == '_')
        rc = fail_at(p, PM_EUNSUPPORTED, n->line, "the attribute %.*s is not served", n->text);
    return rc ? rc : close_node(p, n);
}

static int parse_postfix(struct parser *p, struct pm_node **node)
{
    int rc = 0;
    while (!rc) {
        if (skip_op(p, PM_OP_DOT))
            rc = parse_attribute(p, *node, node);
        else if (skip_op(p, PM_OP_OPEN_LIST))
            rc = parse_subscript(p, *node, node);
        else if (is_op(p, PM_OP_OPEN))
            rc = parse_call(p, *node, node);
        else
            break;
    }
    return rc;
}

static int parse_unary(struct parser *p, bool with_filter, struct pm_node **out)
{
    int rc = enter(p), line = p->at->line;
    bool is_minus = is_op(p, PM_OP_SUB);
    if (!rc && (is_minus || is_op(p, PM_OP_ADD))) {
        p->at++;
        struct pm_node *n = new_node(p, is_minus ? PM_N_NEGATE : PM_N_PLUS, line);
        rc = parse_unary(p, false, &n->a);
        *out = n;
        if (!rc)
            rc = close_node(p, n);
    } else if (!rc) {
        rc = parse_primary(p, out);
    }
    if (!rc)
        rc = parse_postfix(p, out);
    while (!rc && with_filter) {
        if (skip_op(p, PM_OP_PIPE))
            rc = parse_filter(p, *out, out);
        else if (skip_word(p, "is"))
            rc = parse_test(p, *out, out);
        else if (is_op(p, PM_OP_OPEN))
            rc = parse_call(p, *out, out);
        else
            break;
    }
    p->nesting--;
    return rc;
}

/* ---- operators ---- */

static int parse_binary(struct parser *p, const int *ops, int (*below)(struct parser *, struct pm_node **),
                        struct pm_node **out)
{
    int rc = below(p, out);
    while (!rc && p->at->kind == PM_T_OP) {
        int i = 0;
        while (ops[i] && ops[i] != p->at->op)
            i++;
        if (!ops[i])
            break;
        struct pm_node *n = new_node(p, PM_N_BINARY, p->at->line);
        n->op = p->at++->op;
        n->a = *out;
        if (!(rc = below(p, &n->b)))
            rc = close_node(p, n);
        *out = n;
    }
    return rc;
}

static int parse_operand(struct parser *p, struct pm_node **out)
{
    int rc = parse_unary(p, true, out);
    if (!rc && is_op(p, PM_OP_POW))
        return fail_at(p, PM_EUNSUPPORTED, p->at->line, "the operator %.*s is not served", p->at->text);
    return rc;
}

static int parse_product(struct parser *p, struct pm_node **out)
{
    static const int ops[] = {PM_OP_MUL, PM_OP_DIV, PM_OP_FLOOR_DIV, PM_OP_MOD, 0};
    return parse_binary(p, ops, parse_operand, out);
}

static int parse_concat(struct parser *p, struct pm_node **out)
{
    struct list items = {0};
    struct pm_node *n = new_node(p, PM_N_CONCAT, p->at->line), *value;
    int rc;
    do {
        if (!(rc = parse_product(p, &value)))
            list_add(&items, value);
    } while (!rc && skip_op(p, PM_OP_TILDE));
    *out = n;
    if (!rc && items.count == 1) {
        *out = value;
        free(items.items);
        return 0;
    }
    return list_close(p, &items, n, rc);
}

static int parse_sum(struct parser *p, struct pm_node **out)
{
    static const int ops[] = {PM_OP_ADD, PM_OP_SUB, 0};
    return parse_binary(p, ops, parse_concat, out);
}

static int comparison(struct parser *p)
{
    if (p->at->kind == PM_T_OP && p->at->op >= PM_OP_EQ && p->at->op <= PM_OP_GE)
        return p->at++->op;
    if (skip_word(p, "in"))
        return PM_OP_IN;
    if (is_word(p->at, "not") && is_word(p->at + 1, "in")) {
        p->at += 2;
        return PM_OP_NOT_IN;
    }
    return 0;
}

static int parse_compare(struct parser *p, struct pm_node **out)
{
    struct list items = {0};
    struct pm_node *n = new_node(p, PM_N_COMPARE, p->at->line);
    int rc = parse_sum(p, &n->a), op;
    while (!rc && (op = comparison(p))) {
        struct pm_node *operand = new_node(p, PM_N_OPERAND, p->at->line);
        operand->op = op;
        if (!(rc = parse_sum(p, &operand->a)))
            rc = close_node(p, operand);
        list_add(&items, operand);
    }
    *out = items.count ? n : n->a;
    if (!rc && items.count == 0)
        return 0;
    return list_close(p, &items, n, rc);
}

static int parse_not(struct parser *p, struct pm_node **out)
{
    if (!is_word(p->at, "not"))
        return parse_compare(p, out);
    struct pm_node *n = new_node(p, PM_N_NOT, p->at++->line);
    int rc = enter(p);
    if (!rc && !(rc = parse_not(p, &n->a)))
        rc = close_node(p, n);
    p->nesting--;
    *out = n;
    return rc;
}

static int parse_logic(struct parser *p, bool is_or, struct pm_node **out)
{
    int rc = is_or ? parse_logic(p, false, out) : parse_not(p, out);
    while (!rc && skip_word(p, is_or ? "or" : "and")) {
        struct pm_node *n = new_node(p, is_or ? PM_N_OR : PM_N_AND, p->at->line);
        n->a = *out;
        rc = is_or ? parse_logic(p, false, &n->b) : parse_not(p, &n->b);
        if (!rc)
            rc = close_node(p, n);
        *out = n;
    }
    return rc;
}

static int parse_expression(struct parser *p, bool with_cond, struct pm_node **out)
{
    int rc = enter(p);
    if (!rc)
        rc = parse_logic(p, true, out);
    while (!rc && with_cond && skip_word(p, "if")) {
        struct pm_node *n = new_node(p, PM_N_COND, p->at->line);
        n->a = *out;
        rc = parse_logic(p, true, &n->b);
        if (!rc && skip_word(p, "else"))
            rc = parse_expression(p, true, &n->c);
        if (!rc)
            rc = close_node(p, n);
        *out = n;
    }
    p->nesting--;
    return rc;
}

/* ---- statements ---- */

/* A name, name.attribute (in set), or several with commas. */
static int parse_target(struct parser *p, bool may_be_attribute, struct pm_node **out)
{
    struct list items = {0};
    struct pm_node *n = new_node(p, PM_N_TUPLE, p->at->line);
    bool has_brackets = skip_op(p, PM_OP_OPEN), is_tuple = false;
    int rc = 0;
    do {
        if (p->at->kind != PM_T_NAME || (items.count && is_word(p->at, "in"))) {
            if (items.count == 0)
                rc = fail_unexpected(p, "a name");
            break;
        }
        struct pm_node *name = new_node(p, PM_N_NAME, p->at->line);
        name->text = p->at++->text;
        if (may_be_attribute && skip_op(p, PM_OP_DOT)) {
            name->kind = PM_N_NS_TARGET;
            rc = expect_name(p, &name->attribute);
            if (!rc && name->attribute.text[0] == '_')
                rc = fail_at(p, PM_EUNSUPPORTED, name->line,
                             "the namespace attribute %.*s begins with _, which is not served",
                             name->attribute);
        } else {
            bind_name(p, name->text);
        }
        list_add(&items, name);
        is_tuple |= is_op(p, PM_OP_COMMA);
    } while (!rc && skip_op(p, PM_OP_COMMA));
    if (!rc && has_brackets)
        rc = expect_op(p, PM_OP_CLOSE, ")");
    *out = n;
    if (!rc && !is_tuple) {
        *out = items.items[0];
        free(items.items);
        return 0;
    }
    return list_close(p, &items, n, rc);
}

static int end_tag(struct parser *p)
{
    if (p->at->kind != PM_T_BLOCK_END)
        return fail_unexpected(p, "%}");
    p->at++;
    return 0;
}

/* The rest of a tag, the body, and the word that ended it (still the next token). */
static int parse_block(struct parser *p, const char *ends, struct pm_node **out)
{
    int rc = end_tag(p);
    return rc ? rc : parse_body(p, ends, out);
}

static int parse_if(struct parser *p, struct pm_node *n)
{
    struct list items = {0};
    struct pm_node *part;
    int rc;
    for (;;) {
        if ((rc = parse_tuple(p, false, false, &part)))
            break;
        list_add(&items, part);
        if ((rc = parse_block(p, "elif else endif", &part)))
            break;
        list_add(&items, part);
        if (skip_word(p, "elif"))
            continue;
        if (skip_word(p, "else"))
            rc = parse_block(p, "endif", &n->c);
        if (!rc)
            p->at++; /* endif */
        break;
    }
    return list_close(p, &items, n, rc);
}

static int parse_for(struct parser *p, struct pm_node *n)
{
    int rc = parse_target(p, false, &n->a);
    if (!rc && !skip_word(p, "in"))
        rc = fail_unexpected(p, "in");
    if (!rc)
        rc = parse_tuple(p, false, false, &n->b);
    if (!rc && skip_word(p, "if"))
        rc = parse_expression(p, true, &n->c);
    if (!rc && is_word(p->at, "recursive"))
        return fail_at(p, PM_EUNSUPPORTED, p->at->line, "a %.*s loop is not served", p->at->text);
    p->loops++;
    if (!rc)
        rc = parse_block(p, "else endfor", &n->d);
    p->loops--;
    if (!rc && skip_word(p, "else"))
        rc = parse_block(p, "endfor", &n->e);
    if (!rc)
        p->at++; /* endfor */
    return rc ? rc : close_node(p, n);
}

static int parse_filters(struct parser *p, struct pm_node **out)
{
    int rc = 0;
    *out = new_node(p, PM_N_INPUT, p->at->line);
    do
        rc = parse_filter(p, *out, out);
    while (!rc && skip_op(p, PM_OP_PIPE));
    return rc;
}

static int parse_set(struct parser *p, struct pm_node *n)
{
    int rc = parse_target(p, true, &n->a);
    if (!rc && skip_op(p, PM_OP_ASSIGN)) {
        n->kind = PM_N_SET;
        rc = parse_tuple(p, true, false, &n->b);
    } else if (!rc) {
        n->kind = PM_N_SET_BLOCK;
        if (skip_op(p, PM_OP_PIPE))
            rc = parse_filters(p, &n->b);
        if (!rc)
            rc = parse_block(p, "endset", &n->d);
        if (!rc)
            p->at++;
    }
    return rc ? rc : close_node(p, n);
}

static int parse_macro(struct parser *p, struct pm_node *n)
{
    struct list items = {0}, defaults = {0};
    int loops = p->loops, rc = expect_name(p, &n->text);
    if (!rc)
        bind_name(p, n->text);
    if (!rc)
        rc = expect_op(p, PM_OP_OPEN, "(");
    while (!rc && !skip_op(p, PM_OP_CLOSE)) {
        struct pm_node *name = new_node(p, PM_N_NAME, p->at->line), *value;
        if (items.count && (rc = expect_op(p, PM_OP_COMMA, "a comma or )")))
            break;
        if ((rc = expect_name(p, &name->text)))
            break;
        bind_name(p, name->text);
        list_add(&items, name);
        if (skip_op(p, PM_OP_ASSIGN)) {
            if (!(rc = parse_expression(p, true, &value)))
                list_add(&defaults, value);
        } else if (defaults.count) {
            rc = fail_unexpected(p, "a default, as the argument before has one");
        }
    }
    n->arguments = items.count;
    for (size_t i = 0; i < defaults.count; i++)
        list_add(&items, defaults.items[i]);
    free(defaults.items);
    p->loops = 0; /* no break out of a macro */
    p->macros++;
    if (!rc)
        rc = parse_block(p, "endmacro", &n->d);
    p->macros--;
    p->loops = loops;
    if (!rc)
        p->at++;
    return list_close(p, &items, n, rc);
}

static int parse_with(struct parser *p, struct pm_node *n)
{
    struct list items = {0};
    int rc = 0;
    while (!rc && p->at->kind != PM_T_BLOCK_END) {
        struct pm_node *target, *value;
        if (items.count && (rc = expect_op(p, PM_OP_COMMA, "a comma")))
            break;
        if (p->at->kind != PM_T_NAME) {
            rc = fail_unexpected(p, "a name");
            break;
        }
        target = new_node(p, PM_N_NAME, p->at->line);
        target->text = p->at++->text;
        bind_name(p, target->text);
        if ((rc = expect_op(p, PM_OP_ASSIGN, "=")) || (rc = parse_expression(p, true, &value)))
            break;
        list_add(&items, target);
        list_add(&items, value);
    }
    if (!rc)
        rc = parse_block(p, "endwith", &n->d);
    if (!rc)
        p->at++;
    return list_close(p, &items, n, rc);
}

/* Behind "{%": one statement with all that belongs to it; the closing "%}" stays. */
static int parse_statement(struct parser *p, struct pm_node **out)
{
    struct pm_node *n = new_node(p, PM_N_IF, p->at->line);
    struct pm_text word;
    int rc = expect_name(p, &word);
    *out = n;
    if (rc)
        return rc;
    if (pm_text_is(word, "if"))
        return parse_if(p, n);
    if (pm_text_is(word, "for")) {
        n->kind = PM_N_FOR;
        return parse_for(p, n);
    }
    if (pm_text_is(word, "set"))
        return parse_set(p, n);
    if (pm_text_is(word, "macro")) {
        n->kind = PM_N_MACRO;
        return parse_macro(p, n);
    }
    if (pm_text_is(word, "with")) {
        n->kind = PM_N_SCOPE;
        return parse_with(p, n);
    }
    if (pm_text_is(word, "generation")) { /* marks what the model said; the text is the same */
        n->kind = PM_N_SCOPE;
        if (!(rc = parse_block(p, "endgeneration", &n->d)))
            p->at++;
        return rc ? rc : close_node(p, n);
    }
    if (pm_text_is(word, "filter")) {
        n->kind = PM_N_FILTER_BLOCK;
        if (!(rc = parse_filters(p, &n->b)) && !(rc = parse_block(p, "endfilter", &n->d)))
            p->at++;
        return rc ? rc : close_node(p, n);
    }
    bool is_break = pm_text_is(word, "break");
    if (is_break || pm_text_is(word, "continue")) {
        n->kind = is_break ? PM_N_BREAK : PM_N_CONTINUE;
        return p->loops ? 0 : fail_at(p, PM_EFORMAT, n->line, "%.*s outside of a loop", word);
    }
    static const char *const known[] = {"block", "extends", "include", "import",     "from",     "call",
                                        "do",    "debug",   "trans",   "autoescape", "pluralize"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (pm_text_is(word, known[i]))
            return fail_at(p, PM_EUNSUPPORTED, n->line, "{%% %.*s %%} is not served", word);
    return fail_at(p, PM_EFORMAT, n->line, "the tag %.*s is unknown here", word);
}

static int parse_print(struct parser *p, struct pm_node **out)
{
    struct pm_node *n = new_node(p, PM_N_PRINT, p->at->line);
    int rc = parse_tuple(p, true, false, &n->a);
    /* Escaping is off, so that the last safe changes nothing; anywhere else it would change what + and ~ do.
     */
    while (!rc && n->a->kind == PM_N_FILTER && pm_text_is(n->a->text, "safe")) {
        n->a = n->a->a;
        p->safe_count--;
    }
    if (!rc && p->at->kind != PM_T_PRINT_END)
        rc = fail_unexpected(p, "}}");
    p->at++;
    *out = n;
    return rc ? rc : close_node(p, n);
}

static bool is_listed(struct pm_text word, const char *list)
{
    return parameter_index(list, word) >= 0;
}

/* Statements up to "{% word" with a word of ends (which is then the next token), or the end of the template
 * when ends is empty. */
static int parse_body(struct parser *p, const char *ends, struct pm_node **out)
{
    struct list items = {0};
    struct pm_node *n = new_node(p, PM_N_BODY, p->at->line), *part;
    int rc = enter(p);
    while (!rc) {
        if (p->at->kind == PM_T_DATA) {
            part = new_node(p, PM_N_DATA, p->at->line);
            part->text = p->at++->text;
        } else if (p->at->kind == PM_T_PRINT_BEGIN) {
            p->at++;
            rc = parse_print(p, &part);
        } else if (p->at->kind == PM_T_BLOCK_BEGIN) {
            p->at++;
            if (p->at->kind == PM_T_NAME && is_listed(p->at->text, ends))
                break;
            if (!(rc = parse_statement(p, &part)))
                rc = end_tag(p);
        } else {
            if (*ends)
                rc = pm_fail(p->err, PM_EFORMAT,
                             "%s: line %d: the template ends where one of \"%s\" should stand", p->name,
                             p->at->line, ends);
            break;
        }
        if (!rc)
            list_add(&items, part);
    }
    p->nesting--;
    *out = n;
    return list_close(p, &items, n, rc);
}

/* ---- all ---- */

static int check_calls(struct parser *p)
{
    for (size_t i = 0; i < p->called_count; i++) {
        bool is_known = false;
        for (size_t k = 0; k < sizeof functions / sizeof functions[0]; k++)
            is_known |= pm_text_is(p->called[i].name, functions[k]);
        for (size_t k = 0; k < p->bound_count && !is_known; k++)
            is_known = p->bound[k].bytes == p->called[i].name.bytes &&
                       memcmp(p->bound[k].text, p->called[i].name.text, p->bound[k].bytes) == 0;
        if (!is_known)
            return fail_at(p, PM_EUNSUPPORTED, p->called[i].line, "the function %.*s is not served",
                           p->called[i].name);
    }
    if (p->safe_count)
        return fail_at(p, PM_EUNSUPPORTED, 1, "the filter %.*s is served only at the end of {{ }}",
                       (struct pm_text){"safe", 4});
    return 0;
}

int pm_template_parse(const char *name, const char *text, size_t bytes, struct pm_template **out,
                      struct pm_error *err)
{
    struct pm_template *t = pm_xalloc(sizeof *t);
    struct pm_template_token *tokens;
    t->name = pm_xstrdup(name);
    int rc = pm_template_lex(name, text, bytes, &t->arena, &tokens, err);
    if (!rc) {
        struct parser p = {.name = t->name, .err = err, .arena = &t->arena, .at = tokens};
        rc = parse_body(&p, "", &t->body);
        if (!rc)
            rc = check_calls(&p);
        free(p.called);
        free(p.bound);
    }
    if (rc)
        pm_template_free(&t);
    *out = t;
    return rc;
}

void pm_template_free(struct pm_template **tmpl)
{
    if (*tmpl) {
        pm_arena_free(&(*tmpl)->arena);
        free((*tmpl)->name);
        free(*tmpl);
    }
    *tmpl = NULL;
}
