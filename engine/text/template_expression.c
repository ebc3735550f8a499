/* Tokens to the tree, by Jinja's grammar: expressions, with the same precedence and the same places where a
 * tuple or an inline if may stand. What is not served is refused here. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/template_parser.h"

static int parse_unary(struct pm_parser *p, bool with_filter, struct pm_node **out);

/* ---- tokens and nodes ---- */

int pm_parse_fail_at(struct pm_parser *p, int code, int line, const char *format, struct pm_text what)
{
    char text[300];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof text, format, (int)(what.bytes > 60 ? 60 : what.bytes), what.text ? what.text : "");
#pragma GCC diagnostic pop
    return pm_fail(p->err, code, "%s: line %d: %s", p->name, line, text);
}

int pm_parse_fail_unexpected(struct pm_parser *p, const char *wanted)
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

bool pm_parse_is_op(const struct pm_parser *p, int op)
{
    return p->at->kind == PM_T_OP && p->at->op == op;
}

bool pm_parse_is_word(const struct pm_template_token *t, const char *word)
{
    return t->kind == PM_T_NAME && pm_text_is(t->text, word);
}

bool pm_parse_skip_op(struct pm_parser *p, int op)
{
    bool is = pm_parse_is_op(p, op);
    p->at += is;
    return is;
}

bool pm_parse_skip_word(struct pm_parser *p, const char *word)
{
    bool is = pm_parse_is_word(p->at, word);
    p->at += is;
    return is;
}

int pm_parse_expect_op(struct pm_parser *p, int op, const char *wanted)
{
    return pm_parse_skip_op(p, op) ? 0 : pm_parse_fail_unexpected(p, wanted);
}

int pm_parse_expect_name(struct pm_parser *p, struct pm_text *out)
{
    if (p->at->kind != PM_T_NAME)
        return pm_parse_fail_unexpected(p, "a name");
    *out = p->at++->text;
    return 0;
}

struct pm_node *pm_parse_new_node(struct pm_parser *p, enum pm_node_kind kind, int line)
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

int pm_parse_close_node(struct pm_parser *p, struct pm_node *n)
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

int pm_parse_enter(struct pm_parser *p)
{
    if (++p->nesting > PM_TEMPLATE_MAX_NESTING)
        return pm_fail(p->err, PM_ELIMIT, "%s: line %d: expressions or blocks nest deeper than %d", p->name,
                       p->at->line, PM_TEMPLATE_MAX_NESTING);
    return 0;
}

void pm_parse_list_add(struct pm_node_list *l, struct pm_node *n)
{
    PM_GROW(l->items, l->count, l->capacity);
    l->items[l->count++] = n;
}

int pm_parse_list_close(struct pm_parser *p, struct pm_node_list *l, struct pm_node *n, int rc)
{
    if (!rc && l->count) {
        n->items = pm_arena_alloc(p->arena, l->count * sizeof *n->items);
        memcpy(n->items, l->items, l->count * sizeof *n->items);
        n->count = l->count;
    }
    free(l->items);
    return rc ? rc : pm_parse_close_node(p, n);
}

void pm_parse_bind_name(struct pm_parser *p, struct pm_text name)
{
    PM_GROW(p->bound, p->bound_count, p->bound_capacity);
    p->bound[p->bound_count++] = name;
}

/* ---- calls ---- */

struct call_arguments {
    struct pm_node_list positional, named;
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
static int parse_arguments(struct pm_parser *p, struct call_arguments *a)
{
    int rc = pm_parse_expect_op(p, PM_OP_OPEN, "(");
    while (!rc && !pm_parse_skip_op(p, PM_OP_CLOSE)) {
        struct pm_node *value;
        if (pm_parse_is_op(p, PM_OP_MUL) || pm_parse_is_op(p, PM_OP_POW))
            return pm_parse_fail_at(p, PM_EUNSUPPORTED, p->at->line, "%.*s of arguments is not served",
                                    p->at->text);
        bool is_named = p->at->kind == PM_T_NAME && p->at[1].kind == PM_T_OP && p->at[1].op == PM_OP_ASSIGN;
        if (is_named) {
            if (a->named.count >= a->names_capacity) {
                a->names_capacity = a->names_capacity ? 2 * a->names_capacity : 8;
                a->names = pm_xrealloc(a->names, a->names_capacity * sizeof *a->names);
            }
            a->names[a->named.count] = p->at->text;
            p->at += 2;
        } else if (a->named.count) {
            return pm_parse_fail_unexpected(p, "a named argument");
        }
        if ((rc = pm_parse_expression(p, true, &value)))
            return rc;
        pm_parse_list_add(is_named ? &a->named : &a->positional, value);
        if (!pm_parse_is_op(p, PM_OP_CLOSE))
            rc = pm_parse_expect_op(p, PM_OP_COMMA, "a comma or )");
    }
    return rc;
}

int pm_parse_parameter_index(const char *parameters, struct pm_text name)
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
static int place_arguments(struct pm_parser *p, struct pm_node *n, const struct pm_callable *call,
                           const struct call_arguments *a)
{
    n->call = call;
    n->slots = pm_arena_alloc(p->arena, PM_CALL_SLOTS * sizeof *n->slots);
    if (a->positional.count > (size_t)parameter_count(call->parameters))
        return pm_parse_fail_at(p, PM_EUNSUPPORTED, n->line, "%.*s has more arguments than are served",
                                n->text);
    if (a->positional.count)
        memcpy(n->slots, a->positional.items, a->positional.count * sizeof *n->slots);
    for (size_t i = 0; i < a->named.count; i++) {
        int index = pm_parse_parameter_index(call->parameters, a->names[i]);
        if (index < 0)
            return pm_parse_fail_at(p, PM_EUNSUPPORTED, n->line, "the argument %.*s is not served here",
                                    a->names[i]);
        if (n->slots[index])
            return pm_parse_fail_at(p, PM_EFORMAT, n->line, "the argument %.*s is given twice", a->names[i]);
        n->slots[index] = a->named.items[i];
    }
    for (int i = 0; i < call->required; i++)
        if (!n->slots[i])
            return pm_parse_fail_at(p, PM_EFORMAT, n->line, "%.*s lacks an argument", n->text);
    return pm_parse_close_node(p, n);
}

/* A filter's name that another filter takes as a constant ("map('upper')") must be known too. */
static int check_inner_name(struct pm_parser *p, const struct pm_node *n, bool wants_test, int slot)
{
    const struct pm_node *name = n->slots[slot];
    if (!name || name->kind != PM_N_CONST || name->value.kind != PM_V_STRING)
        return 0;
    struct pm_text text = name->value.u.string;
    if (wants_test ? pm_template_test(text) != NULL : pm_template_filter(text) != NULL)
        return 0;
    return pm_parse_fail_at(p, PM_EUNSUPPORTED, n->line,
                            wants_test ? "the test %.*s is not served" : "the filter %.*s is not served",
                            text);
}

int pm_parse_filter(struct pm_parser *p, struct pm_node *input, struct pm_node **out)
{
    struct pm_node *n = pm_parse_new_node(p, PM_N_FILTER, p->at->line);
    int rc = pm_parse_expect_name(p, &n->text);
    if (rc)
        return rc;
    n->a = input;
    struct call_arguments a = {0};
    const struct pm_callable *call = pm_template_filter(n->text);
    bool is_safe = pm_text_is(n->text, "safe");
    if (!call && !is_safe)
        rc = pm_parse_fail_at(p, PM_EUNSUPPORTED, n->line, "the filter %.*s is not served", n->text);
    if (!rc && pm_parse_is_op(p, PM_OP_OPEN))
        rc = parse_arguments(p, &a);
    if (!rc && is_safe) {
        p->safe_count++;
        rc = pm_parse_close_node(p, n);
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
static int parse_test(struct pm_parser *p, struct pm_node *input, struct pm_node **out)
{
    bool is_negated = pm_parse_skip_word(p, "not");
    struct pm_node *n = pm_parse_new_node(p, PM_N_TEST, p->at->line);
    int rc = pm_parse_expect_name(p, &n->text);
    if (rc)
        return rc;
    n->a = input;
    struct call_arguments a = {0};
    const struct pm_callable *call = pm_template_test(n->text);
    const struct pm_template_token *t = p->at;
    if (!call)
        rc = pm_parse_fail_at(p, PM_EUNSUPPORTED, n->line, "the test %.*s is not served", n->text);
    else if (pm_parse_is_op(p, PM_OP_OPEN))
        rc = parse_arguments(p, &a);
    else if (t->kind == PM_T_STRING || t->kind == PM_T_INT || t->kind == PM_T_FLOAT ||
             pm_parse_is_op(p, PM_OP_OPEN_LIST) || pm_parse_is_op(p, PM_OP_OPEN_DICT) ||
             (t->kind == PM_T_NAME && !pm_parse_is_word(t, "else") && !pm_parse_is_word(t, "or") &&
              !pm_parse_is_word(t, "and"))) {
        struct pm_node *value;
        if (pm_parse_is_word(t, "is"))
            rc = pm_parse_fail_unexpected(p, "the end of the test (tests cannot be chained)");
        else if (call->parameters[0] == 0)
            rc = pm_parse_fail_unexpected(p, "the end of the test");
        else if (!(rc = parse_unary(p, false, &value)))
            pm_parse_list_add(&a.positional, value);
    }
    if (!rc)
        rc = place_arguments(p, n, call, &a);
    free_arguments(&a);
    if (!rc && is_negated) {
        struct pm_node *not = pm_parse_new_node(p, PM_N_NOT, n->line);
        not ->a = n;
        n = not ;
        rc = pm_parse_close_node(p, n);
    }
    *out = n;
    return rc;
}

static int parse_call(struct pm_parser *p, struct pm_node *callee, struct pm_node **out)
{
    struct call_arguments a = {0};
    struct pm_node *n =
        pm_parse_new_node(p, callee->kind == PM_N_ATTR ? PM_N_METHOD : PM_N_CALL, p->at->line);
    n->text = callee->text;
    int rc = 0;
    if (callee->kind == PM_N_ATTR) {
        const struct pm_callable *call = pm_template_method(n->text);
        n->a = callee->a;
        if (!call)
            rc = pm_parse_fail_at(p, PM_EUNSUPPORTED, n->line, "the method %.*s is not served", n->text);
        else if (!(rc = parse_arguments(p, &a)))
            rc = place_arguments(p, n, call, &a);
    } else if (callee->kind != PM_N_NAME) {
        rc = pm_parse_fail_at(p, PM_EUNSUPPORTED, n->line, "calling what is not a name is not served%.*s",
                              (struct pm_text){NULL, 0});
    } else if (!(rc = parse_arguments(p, &a))) {
        PM_GROW(p->called, p->called_count, p->called_capacity);
        p->called[p->called_count++] = (struct pm_name_at){n->text, n->line};
        n->keyword_count = a.named.count;
        n->keywords = pm_arena_alloc(p->arena, (a.named.count + 1) * sizeof *n->keywords);
        for (size_t i = 0; i < a.named.count; i++) {
            n->keywords[i] = a.names[i];
            pm_parse_list_add(&a.positional, a.named.items[i]);
        }
        rc = pm_parse_list_close(p, &a.positional, n, 0);
        a.positional.items = NULL;
    }
    free_arguments(&a);
    *out = n;
    return rc;
}

/* ---- primary and postfix ---- */

static int parse_items(struct pm_parser *p, struct pm_node *n, int close, const char *wanted, bool is_dict)
{
    struct pm_node_list items = {0};
    int rc = 0;
    while (!rc && !pm_parse_skip_op(p, close)) {
        struct pm_node *value;
        if (items.count > 0) {
            if ((rc = pm_parse_expect_op(p, PM_OP_COMMA, wanted)))
                break;
            if (pm_parse_skip_op(p, close))
                break;
        }
        if ((rc = pm_parse_expression(p, true, &value)))
            break;
        pm_parse_list_add(&items, value);
        if (is_dict && !(rc = pm_parse_expect_op(p, PM_OP_COLON, ":")) &&
            !(rc = pm_parse_expression(p, true, &value)))
            pm_parse_list_add(&items, value);
    }
    return pm_parse_list_close(p, &items, n, rc);
}

int pm_parse_tuple(struct pm_parser *p, bool with_cond, bool may_be_empty, struct pm_node **out)
{
    struct pm_node_list items = {0};
    struct pm_node *n = pm_parse_new_node(p, PM_N_TUPLE, p->at->line), *value;
    bool is_tuple = false;
    int rc = 0;
    for (;;) {
        if (p->at->kind == PM_T_PRINT_END || p->at->kind == PM_T_BLOCK_END || pm_parse_is_op(p, PM_OP_CLOSE))
            break;
        if ((rc = pm_parse_expression(p, with_cond, &value)))
            break;
        pm_parse_list_add(&items, value);
        if (!pm_parse_skip_op(p, PM_OP_COMMA))
            break;
        is_tuple = true;
    }
    if (!rc && !is_tuple && items.count == 1) {
        *out = items.items[0];
        free(items.items);
        return 0;
    }
    if (!rc && !is_tuple && !may_be_empty)
        rc = pm_parse_fail_unexpected(p, "an expression");
    *out = n;
    return pm_parse_list_close(p, &items, n, rc);
}

static struct pm_node *constant(struct pm_parser *p, struct pm_value value, int line)
{
    struct pm_node *n = pm_parse_new_node(p, PM_N_CONST, line);
    n->value = value;
    return n;
}

static int parse_string(struct pm_parser *p, struct pm_node **out)
{
    struct pm_buf all = {0};
    int line = p->at->line;
    for (; p->at->kind == PM_T_STRING; p->at++)
        pm_buf_append(&all, p->at->text.text, p->at->text.bytes);
    *out = constant(p, pm_value_string(pm_arena_text(p->arena, (char *)all.data, all.size), all.size), line);
    pm_buf_free(&all);
    return 0;
}

static int parse_primary(struct pm_parser *p, struct pm_node **out)
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
            return pm_parse_fail_at(p, PM_EUNSUPPORTED, line, "the name %.*s is not served", t->text);
        } else {
            *out = pm_parse_new_node(p, PM_N_NAME, line);
            (*out)->text = t->text;
        }
        return 0;
    default:
        break;
    }
    if (pm_parse_skip_op(p, PM_OP_OPEN)) {
        rc = pm_parse_tuple(p, true, true, out);
        return rc ? rc : pm_parse_expect_op(p, PM_OP_CLOSE, ")");
    }
    bool is_list = pm_parse_skip_op(p, PM_OP_OPEN_LIST);
    if (!is_list && !pm_parse_skip_op(p, PM_OP_OPEN_DICT))
        return pm_parse_fail_unexpected(p, "an expression");
    *out = pm_parse_new_node(p, is_list ? PM_N_LIST : PM_N_DICT, line);
    return parse_items(p, *out, is_list ? PM_OP_CLOSE_LIST : PM_OP_CLOSE_DICT,
                       is_list ? "a comma or ]" : "a comma or }", !is_list);
}

/* What stands between [ and ]: an index or a slice. */
static int parse_subscript(struct pm_parser *p, struct pm_node *base, struct pm_node **out)
{
    struct pm_node *n = pm_parse_new_node(p, PM_N_ITEM, p->at->line), *bounds[3] = {NULL};
    int rc = 0, parts = 0;
    bool is_slice = false;
    n->a = base;
    while (!rc && parts < 3 && !pm_parse_is_op(p, PM_OP_CLOSE_LIST)) {
        if (!pm_parse_is_op(p, PM_OP_COLON))
            rc = pm_parse_expression(p, true, &bounds[parts]);
        if (rc || !pm_parse_is_op(p, PM_OP_COLON))
            break;
        is_slice = true;
        parts++;
        if (parts < 3)
            p->at++;
    }
    if (rc)
        return rc;
    if (pm_parse_is_op(p, PM_OP_COMMA))
        return pm_parse_fail_at(p, PM_EUNSUPPORTED, n->line, "an index of several parts is not served%.*s",
                                (struct pm_text){NULL, 0});
    if (!is_slice && !bounds[0])
        return pm_parse_fail_unexpected(p, "an index");
    if ((rc = pm_parse_expect_op(p, PM_OP_CLOSE_LIST, "]")))
        return rc;
    *out = n;
    n->b = is_slice ? NULL : bounds[0];
    if (!is_slice)
        return pm_parse_close_node(p, n);
    n->kind = PM_N_SLICE;
    n->items = pm_arena_alloc(p->arena, sizeof bounds);
    memcpy(n->items, bounds, sizeof bounds);
    n->count = 3;
    return pm_parse_close_node(p, n);
}

static int parse_attribute(struct pm_parser *p, struct pm_node *base, struct pm_node **out)
{
    struct pm_node *n = pm_parse_new_node(p, PM_N_ATTR, p->at->line);
    n->a = base;
    *out = n;
    if (p->at->kind == PM_T_INT) {
        n->kind = PM_N_ITEM;
        n->b = constant(p, pm_value_int(p->at->integer), n->line);
        p->at++;
        return pm_parse_close_node(p, n);
    }
    int rc = pm_parse_expect_name(p, &n->text);
    if (!rc && n->text.bytes > 1 && n->text.text[0] == '_' && n->text.text[1] == '_')
        rc = pm_parse_fail_at(p, PM_EUNSUPPORTED, n->line, "the attribute %.*s is not served", n->text);
    return rc ? rc : pm_parse_close_node(p, n);
}

static int parse_postfix(struct pm_parser *p, struct pm_node **node)
{
    int rc = 0;
    while (!rc) {
        if (pm_parse_skip_op(p, PM_OP_DOT))
            rc = parse_attribute(p, *node, node);
        else if (pm_parse_skip_op(p, PM_OP_OPEN_LIST))
            rc = parse_subscript(p, *node, node);
        else if (pm_parse_is_op(p, PM_OP_OPEN))
            rc = parse_call(p, *node, node);
        else
            break;
    }
    return rc;
}

static int parse_unary(struct pm_parser *p, bool with_filter, struct pm_node **out)
{
    int rc = pm_parse_enter(p), line = p->at->line;
    bool is_minus = pm_parse_is_op(p, PM_OP_SUB);
    if (!rc && (is_minus || pm_parse_is_op(p, PM_OP_ADD))) {
        p->at++;
        struct pm_node *n = pm_parse_new_node(p, is_minus ? PM_N_NEGATE : PM_N_PLUS, line);
        rc = parse_unary(p, false, &n->a);
        *out = n;
        if (!rc)
            rc = pm_parse_close_node(p, n);
    } else if (!rc) {
        rc = parse_primary(p, out);
    }
    if (!rc)
        rc = parse_postfix(p, out);
    while (!rc && with_filter) {
        if (pm_parse_skip_op(p, PM_OP_PIPE))
            rc = pm_parse_filter(p, *out, out);
        else if (pm_parse_skip_word(p, "is"))
            rc = parse_test(p, *out, out);
        else if (pm_parse_is_op(p, PM_OP_OPEN))
            rc = parse_call(p, *out, out);
        else
            break;
    }
    p->nesting--;
    return rc;
}

/* ---- operators ---- */

static int parse_binary(struct pm_parser *p, const int *ops,
                        int (*below)(struct pm_parser *, struct pm_node **), struct pm_node **out)
{
    int rc = below(p, out);
    while (!rc && p->at->kind == PM_T_OP) {
        int i = 0;
        while (ops[i] && ops[i] != p->at->op)
            i++;
        if (!ops[i])
            break;
        struct pm_node *n = pm_parse_new_node(p, PM_N_BINARY, p->at->line);
        n->op = p->at++->op;
        n->a = *out;
        if (!(rc = below(p, &n->b)))
            rc = pm_parse_close_node(p, n);
        *out = n;
    }
    return rc;
}

static int parse_operand(struct pm_parser *p, struct pm_node **out)
{
    int rc = parse_unary(p, true, out);
    if (!rc && pm_parse_is_op(p, PM_OP_POW))
        return pm_parse_fail_at(p, PM_EUNSUPPORTED, p->at->line, "the operator %.*s is not served",
                                p->at->text);
    return rc;
}

static int parse_product(struct pm_parser *p, struct pm_node **out)
{
    static const int ops[] = {PM_OP_MUL, PM_OP_DIV, PM_OP_FLOOR_DIV, PM_OP_MOD, 0};
    return parse_binary(p, ops, parse_operand, out);
}

static int parse_concat(struct pm_parser *p, struct pm_node **out)
{
    struct pm_node_list items = {0};
    struct pm_node *n = pm_parse_new_node(p, PM_N_CONCAT, p->at->line), *value;
    int rc;
    do {
        if (!(rc = parse_product(p, &value)))
            pm_parse_list_add(&items, value);
    } while (!rc && pm_parse_skip_op(p, PM_OP_TILDE));
    *out = n;
    if (!rc && items.count == 1) {
        *out = value;
        free(items.items);
        return 0;
    }
    return pm_parse_list_close(p, &items, n, rc);
}

static int parse_sum(struct pm_parser *p, struct pm_node **out)
{
    static const int ops[] = {PM_OP_ADD, PM_OP_SUB, 0};
    return parse_binary(p, ops, parse_concat, out);
}

static int comparison(struct pm_parser *p)
{
    if (p->at->kind == PM_T_OP && p->at->op >= PM_OP_EQ && p->at->op <= PM_OP_GE)
        return p->at++->op;
    if (pm_parse_skip_word(p, "in"))
        return PM_OP_IN;
    if (pm_parse_is_word(p->at, "not") && pm_parse_is_word(p->at + 1, "in")) {
        p->at += 2;
        return PM_OP_NOT_IN;
    }
    return 0;
}

static int parse_compare(struct pm_parser *p, struct pm_node **out)
{
    struct pm_node_list items = {0};
    struct pm_node *n = pm_parse_new_node(p, PM_N_COMPARE, p->at->line);
    int rc = parse_sum(p, &n->a), op;
    while (!rc && (op = comparison(p))) {
        struct pm_node *operand = pm_parse_new_node(p, PM_N_OPERAND, p->at->line);
        operand->op = op;
        if (!(rc = parse_sum(p, &operand->a)))
            rc = pm_parse_close_node(p, operand);
        pm_parse_list_add(&items, operand);
    }
    *out = items.count ? n : n->a;
    if (!rc && items.count == 0)
        return 0;
    return pm_parse_list_close(p, &items, n, rc);
}

static int parse_not(struct pm_parser *p, struct pm_node **out)
{
    if (!pm_parse_is_word(p->at, "not"))
        return parse_compare(p, out);
    struct pm_node *n = pm_parse_new_node(p, PM_N_NOT, p->at++->line);
    int rc = pm_parse_enter(p);
    if (!rc && !(rc = parse_not(p, &n->a)))
        rc = pm_parse_close_node(p, n);
    p->nesting--;
    *out = n;
    return rc;
}

static int parse_logic(struct pm_parser *p, bool is_or, struct pm_node **out)
{
    int rc = is_or ? parse_logic(p, false, out) : parse_not(p, out);
    while (!rc && pm_parse_skip_word(p, is_or ? "or" : "and")) {
        struct pm_node *n = pm_parse_new_node(p, is_or ? PM_N_OR : PM_N_AND, p->at->line);
        n->a = *out;
        rc = is_or ? parse_logic(p, false, &n->b) : parse_not(p, &n->b);
        if (!rc)
            rc = pm_parse_close_node(p, n);
        *out = n;
    }
    return rc;
}

int pm_parse_expression(struct pm_parser *p, bool with_cond, struct pm_node **out)
{
    int rc = pm_parse_enter(p);
    if (!rc)
        rc = parse_logic(p, true, out);
    while (!rc && with_cond && pm_parse_skip_word(p, "if")) {
        struct pm_node *n = pm_parse_new_node(p, PM_N_COND, p->at->line);
        n->a = *out;
        rc = parse_logic(p, true, &n->b);
        if (!rc && pm_parse_skip_word(p, "else"))
            rc = pm_parse_expression(p, true, &n->c);
        if (!rc)
            rc = pm_parse_close_node(p, n);
        *out = n;
    }
    p->nesting--;
    return rc;
}
