#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/template_internal.h"

/* ---- limits and failures ---- */

int pm_render_fail(struct pm_render *r, int code, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return pm_fail(r->err, code, "%s: line %d: %s", r->name, r->line, text);
}

int pm_render_work(struct pm_render *r, size_t n)
{
    r->steps += 1 + (int64_t)(n / 16);
    if (r->steps > PM_TEMPLATE_MAX_STEPS)
        return pm_render_fail(r, PM_ELIMIT, "the template takes more than %d steps", PM_TEMPLATE_MAX_STEPS);
    return 0;
}

int pm_render_alloc(struct pm_render *r, size_t count, size_t size, void *out)
{
    memset(out, 0, sizeof(void *));
    if (count > (PM_TEMPLATE_MAX_MEMORY - r->memory) / size)
        return pm_render_fail(r, PM_ELIMIT, "the template takes more than %d MiB of memory",
                              PM_TEMPLATE_MAX_MEMORY >> 20);
    r->memory += count * size;
    void *memory = pm_arena_alloc(&r->arena, count * size);
    memcpy(out, &memory, sizeof memory); /* whatever kind of pointer it is */
    return pm_render_work(r, count);
}

/* ---- names ---- */

static bool same_text(struct pm_text a, struct pm_text b)
{
    return a.bytes == b.bytes && memcmp(a.text, b.text, a.bytes) == 0;
}

static struct pm_binding *find_here(struct pm_scope *scope, struct pm_text name)
{
    for (struct pm_binding *b = scope->first; b; b = b->next)
        if (same_text(b->name, name))
            return b;
    return NULL;
}

static const struct pm_value *find_name(const struct pm_render *r, struct pm_text name)
{
    for (struct pm_scope *s = r->scope; s; s = s->parent) {
        const struct pm_binding *b = find_here(s, name);
        if (b)
            return &b->value;
    }
    return NULL;
}

int pm_render_bind(struct pm_render *r, struct pm_scope *scope, struct pm_text name, const struct pm_value *v)
{
    struct pm_binding *b = find_here(scope, name);
    int rc = 0;
    if (!b && !(rc = pm_render_alloc(r, 1, sizeof *b, &b))) {
        b->name = name;
        b->next = scope->first;
        scope->first = b;
    }
    if (!rc)
        b->value = *v;
    return rc;
}

int pm_render_push_scope(struct pm_render *r, struct pm_scope *parent)
{
    struct pm_scope *s;
    int rc = pm_render_alloc(r, 1, sizeof *s, &s);
    if (rc)
        return rc;
    s->parent = parent;
    r->scope = s;
    return 0;
}

static int eval_name(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    static const char *const globals[] = {"range",        "namespace", "dict",   "raise_exception",
                                          "strftime_now", "cycler",    "joiner", "lipsum"};
    const struct pm_value *v = find_name(r, n->text);
    *out = v ? *v : pm_value_undefined(n->text);
    for (size_t i = 0; !v && i < sizeof globals / sizeof globals[0]; i++)
        if (pm_text_is(n->text, globals[i]))
            return pm_render_fail(r, PM_EUNSUPPORTED, "the function %s is served only when called",
                                  globals[i]);
    return 0;
}

int pm_render_assign(struct pm_render *r, const struct pm_node *target, const struct pm_value *v)
{
    if (target->kind == PM_N_NAME)
        return pm_render_bind(r, r->scope, target->text, v);
    if (target->kind == PM_N_NS_TARGET) {
        const struct pm_value *ns = find_name(r, target->text);
        if (!ns || ns->kind != PM_V_NAMESPACE)
            return pm_render_fail(r, PM_EINVAL,
                                  "%.*s is not a namespace, so that no attribute of it can be set",
                                  (int)target->text.bytes, target->text.text);
        return pm_dict_put(r, ns->u.dict, target->attribute, v);
    }
    const struct pm_seq *parts;
    int rc = pm_value_walk(r, v, &parts);
    if (!rc && parts->count != target->count)
        rc = pm_render_fail(r, PM_EINVAL, "%zu values for %zu names", parts->count, target->count);
    for (size_t i = 0; !rc && i < target->count; i++)
        rc = pm_render_assign(r, target->items[i], &parts->items[i]);
    return rc;
}

/* ---- arithmetic ---- */

static int fail_operands(struct pm_render *r, const char *op, const struct pm_value *a,
                         const struct pm_value *b)
{
    const struct pm_value *u = a->kind == PM_V_UNDEFINED ? a : b->kind == PM_V_UNDEFINED ? b : NULL;
    if (u)
        return pm_render_fail(r, PM_EINVAL, "\"%.*s\" is undefined",
                              (int)(u->u.string.bytes > 80 ? 80 : u->u.string.bytes), u->u.string.text);
    return pm_render_fail(r, PM_EINVAL, "%s %s %s", pm_value_kind_name(a), op, pm_value_kind_name(b));
}

static int64_t as_int(const struct pm_value *v)
{
    return v->kind == PM_V_BOOL ? v->u.boolean : v->u.integer;
}

static int int_arithmetic(struct pm_render *r, int op, int64_t a, int64_t b, struct pm_value *out)
{
    int64_t v = 0;
    bool overflows = false;
    if (b == 0 && (op == PM_OP_FLOOR_DIV || op == PM_OP_MOD || op == PM_OP_DIV))
        return pm_render_fail(r, PM_EINVAL, "division by zero");
    if (op == PM_OP_DIV) {
        *out = (struct pm_value){PM_V_FLOAT, {.real = (double)a / (double)b}};
        return 0;
    }
    if (op == PM_OP_ADD)
        overflows = __builtin_add_overflow(a, b, &v);
    else if (op == PM_OP_SUB)
        overflows = __builtin_sub_overflow(a, b, &v);
    else if (op == PM_OP_MUL)
        overflows = __builtin_mul_overflow(a, b, &v);
    else if (b == -1)
        overflows = op == PM_OP_FLOOR_DIV && __builtin_sub_overflow((int64_t)0, a, &v);
    else if (op == PM_OP_FLOOR_DIV)
        v = a / b - (a % b != 0 && (a < 0) != (b < 0));
    else
        v = a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0);
    if (overflows)
        return pm_render_fail(r, PM_ELIMIT, "a number becomes larger than 64 bits");
    *out = pm_value_int(v);
    return 0;
}

static int real_arithmetic(struct pm_render *r, int op, double a, double b, struct pm_value *out)
{
    double v;
    if (b == 0 && op != PM_OP_ADD && op != PM_OP_SUB && op != PM_OP_MUL)
        return pm_render_fail(r, PM_EINVAL, "division by zero");
    if (op == PM_OP_ADD)
        v = a + b;
    else if (op == PM_OP_SUB)
        v = a - b;
    else if (op == PM_OP_MUL)
        v = a * b;
    else if (op == PM_OP_DIV)
        v = a / b;
    else { /* as Python: the remainder has the sign of b */
        double rest = fmod(a, b);
        if (rest != 0 && (rest < 0) != (b < 0))
            rest += b;
        else if (rest == 0)
            rest = copysign(0.0, b);
        v = rest;
        if (op == PM_OP_FLOOR_DIV) {
            double quotient = (a - rest) / b, whole = floor(quotient);
            v = quotient == 0 ? copysign(0.0, a / b) : quotient - whole > 0.5 ? whole + 1 : whole;
        }
    }
    *out = (struct pm_value){PM_V_FLOAT, {.real = v}};
    return 0;
}

static int add_strings(struct pm_render *r, struct pm_text a, struct pm_text b, struct pm_value *out)
{
    char *text;
    if (a.bytes + b.bytes > PM_TEMPLATE_MAX_OUTPUT)
        return pm_render_fail(r, PM_ELIMIT, "a string becomes longer than %d bytes", PM_TEMPLATE_MAX_OUTPUT);
    int rc = pm_render_alloc(r, a.bytes + b.bytes + 1, 1, &text);
    if (rc)
        return rc;
    if (a.bytes)
        memcpy(text, a.text, a.bytes);
    if (b.bytes)
        memcpy(text + a.bytes, b.text, b.bytes);
    *out = pm_value_string(text, a.bytes + b.bytes);
    return 0;
}

static int add_seqs(struct pm_render *r, const struct pm_seq *a, const struct pm_seq *b, struct pm_value *out)
{
    struct pm_seq *sum;
    int rc = pm_value_seq(r, a->flavour, a->count + b->count, &sum, out);
    if (rc)
        return rc;
    if (a->count)
        memcpy(sum->items, a->items, a->count * sizeof *sum->items);
    if (b->count)
        memcpy(sum->items + a->count, b->items, b->count * sizeof *sum->items);
    return 0;
}

static int repeat_string(struct pm_render *r, struct pm_text s, int64_t times, struct pm_value *out)
{
    char *text;
    if (times < 0 || s.bytes == 0)
        times = 0;
    if (times > PM_TEMPLATE_MAX_ITEMS || s.bytes * (size_t)times > PM_TEMPLATE_MAX_OUTPUT)
        return pm_render_fail(r, PM_ELIMIT, "a repeated string becomes too long");
    int rc = pm_render_alloc(r, s.bytes * (size_t)times + 1, 1, &text);
    for (int64_t i = 0; !rc && i < times; i++)
        memcpy(text + s.bytes * (size_t)i, s.text, s.bytes);
    *out = pm_value_string(text, rc ? 0 : s.bytes * (size_t)times);
    return rc;
}

static int binary(struct pm_render *r, int op, const struct pm_value *a, const struct pm_value *b,
                  struct pm_value *out)
{
    static const char *const names[] = {"", "+", "-", "*", "/", "//", "%"};
    double x, y;
    if (pm_value_is_number(a, &x) && pm_value_is_number(b, &y))
        return a->kind == PM_V_FLOAT || b->kind == PM_V_FLOAT
                   ? real_arithmetic(r, op, x, y, out)
                   : int_arithmetic(r, op, as_int(a), as_int(b), out);
    if (op == PM_OP_ADD && a->kind == PM_V_STRING && b->kind == PM_V_STRING)
        return add_strings(r, a->u.string, b->u.string, out);
    if (op == PM_OP_ADD && a->kind == PM_V_SEQ && b->kind == PM_V_SEQ &&
        a->u.seq->flavour == b->u.seq->flavour && a->u.seq->flavour < PM_SEQ_VIEW)
        return add_seqs(r, a->u.seq, b->u.seq, out);
    if (op == PM_OP_MUL && a->kind == PM_V_STRING && (b->kind == PM_V_INT || b->kind == PM_V_BOOL))
        return repeat_string(r, a->u.string, as_int(b), out);
    if (op == PM_OP_MUL && b->kind == PM_V_STRING && (a->kind == PM_V_INT || a->kind == PM_V_BOOL))
        return repeat_string(r, b->u.string, as_int(a), out);
    if ((op == PM_OP_MOD && a->kind == PM_V_STRING) ||
        (op == PM_OP_MUL && (a->kind == PM_V_SEQ || b->kind == PM_V_SEQ)))
        return pm_render_fail(r, PM_EUNSUPPORTED, "%s %s %s is not served", pm_value_kind_name(a), names[op],
                              pm_value_kind_name(b));
    return fail_operands(r, names[op], a, b);
}

static int eval_sign(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_value v;
    double real;
    int rc = pm_render_eval(r, n->a, &v);
    if (rc)
        return rc;
    if (!pm_value_is_number(&v, &real))
        return fail_operands(r, n->kind == PM_N_NEGATE ? "with -, and" : "with +, and", &v, &v);
    if (n->kind == PM_N_PLUS)
        *out = v.kind == PM_V_BOOL ? pm_value_int(v.u.boolean) : v;
    else if (v.kind == PM_V_FLOAT)
        *out = (struct pm_value){PM_V_FLOAT, {.real = -v.u.real}};
    else
        return int_arithmetic(r, PM_OP_SUB, 0, as_int(&v), out);
    return 0;
}

static int compare_one(struct pm_render *r, int op, const struct pm_value *a, const struct pm_value *b,
                       bool *out)
{
    int order = 0, rc;
    switch (op) {
    case PM_OP_EQ:
        return pm_value_equal(r, a, b, out);
    case PM_OP_NE:
        rc = pm_value_equal(r, a, b, out);
        *out = !*out;
        return rc;
    case PM_OP_IN:
        return pm_value_contains(r, b, a, out);
    case PM_OP_NOT_IN:
        rc = pm_value_contains(r, b, a, out);
        *out = !*out;
        return rc;
    default:
        rc = pm_value_order(r, a, b, &order);
        *out = op == PM_OP_LT   ? order < 0
               : op == PM_OP_LE ? order <= 0
               : op == PM_OP_GT ? order > 0
                                : order >= 0;
        return rc;
    }
}

static int eval_compare(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_value left, right;
    bool is = true;
    int rc = pm_render_eval(r, n->a, &left);
    for (size_t i = 0; i < n->count && is && !rc; i++) {
        if (!(rc = pm_render_eval(r, n->items[i]->a, &right)))
            rc = compare_one(r, n->items[i]->op, &left, &right, &is);
        left = right;
    }
    *out = pm_value_bool(is);
    return rc;
}

/* ---- calls ---- */

int pm_render_capture(struct pm_render *r, const struct pm_node *body, struct pm_value *out)
{
    struct pm_buf text = {0}, *before = r->out;
    r->out = &text;
    int rc = pm_render_run(r, body);
    r->out = before;
    if (rc) {
        pm_buf_free(&text);
        return rc;
    }
    return pm_value_take(r, &text, out);
}

static int bind_arguments(struct pm_render *r, const struct pm_node *call, const struct pm_node *macro,
                          struct pm_value *values, bool *given)
{
    size_t positional = call->count - call->keyword_count;
    int rc = 0;
    if (positional > macro->arguments)
        return pm_render_fail(r, PM_EINVAL, "the macro %.*s takes %zu arguments, not %zu",
                              (int)macro->text.bytes, macro->text.text, macro->arguments, positional);
    for (size_t i = 0; i < call->count && !rc; i++) {
        size_t slot = i;
        if (i >= positional) {
            struct pm_text name = call->keywords[i - positional];
            for (slot = 0; slot < macro->arguments && !same_text(macro->items[slot]->text, name);)
                slot++;
            if (slot == macro->arguments || given[slot])
                return pm_render_fail(r, PM_EINVAL, "the macro %.*s %s the argument %.*s",
                                      (int)macro->text.bytes, macro->text.text,
                                      slot == macro->arguments ? "does not take" : "has twice",
                                      (int)name.bytes, name.text);
        }
        given[slot] = true;
        rc = pm_render_eval(r, call->items[i], &values[slot]);
    }
    return rc;
}

static int call_macro(struct pm_render *r, const struct pm_node *call, const struct pm_macro *macro,
                      struct pm_value *out)
{
    const struct pm_node *n = macro->node;
    struct pm_scope *before = r->scope;
    struct pm_value *values;
    bool *given;
    int rc = pm_render_alloc(r, n->arguments + 1, sizeof *values, &values);
    if (!rc)
        rc = pm_render_alloc(r, n->arguments + 1, sizeof *given, &given);
    if (!rc)
        rc = bind_arguments(r, call, n, values, given);
    if (!rc)
        rc = pm_render_push_scope(r, macro->scope);
    size_t first_default = 2 * n->arguments - n->count; /* items: names, then defaults of the last ones */
    for (size_t i = 0; !rc && i < n->arguments; i++) {
        if (!given[i] && i >= first_default)
            rc = pm_render_eval(r, n->items[n->arguments + i - first_default], &values[i]);
        else if (!given[i])
            values[i] = pm_value_undefined(n->items[i]->text);
        if (!rc)
            rc = pm_render_bind(r, r->scope, n->items[i]->text, &values[i]);
    }
    if (!rc)
        rc = pm_render_capture(r, n->d, out);
    r->scope = before;
    return rc;
}

/* namespace(...) and dict(...): a mapping first, then names. */
static int call_dict(struct pm_render *r, const struct pm_node *n, enum pm_value_kind kind,
                     struct pm_value *out)
{
    struct pm_dict *d;
    struct pm_value v;
    size_t positional = n->count - n->keyword_count;
    int rc = pm_render_alloc(r, 1, sizeof *d, &d);
    *out = (struct pm_value){kind, {.dict = d}};
    if (!rc && positional > 1)
        rc = pm_render_fail(r, PM_EINVAL, "%.*s with %zu arguments", (int)n->text.bytes, n->text.text,
                            positional);
    if (!rc && positional && !(rc = pm_render_eval(r, n->items[0], &v))) {
        if (v.kind != PM_V_DICT)
            return pm_render_fail(r, PM_EUNSUPPORTED, "%.*s of %s is not served", (int)n->text.bytes,
                                  n->text.text, pm_value_kind_name(&v));
        for (size_t i = 0; i < v.u.dict->count && !rc; i++)
            rc = pm_dict_put(r, d, v.u.dict->pairs[i].key, &v.u.dict->pairs[i].value);
    }
    for (size_t i = 0; i < n->keyword_count && !rc; i++)
        if (!(rc = pm_render_eval(r, n->items[positional + i], &v)))
            rc = pm_dict_put(r, d, n->keywords[i], &v);
    for (size_t i = 0; !rc && kind == PM_V_NAMESPACE && i < d->count; i++)
        if (d->pairs[i].key.bytes && d->pairs[i].key.text[0] == '_')
            rc = pm_render_fail(r, PM_EUNSUPPORTED, "namespace attributes that begin with _ are not served");
    return rc;
}

static int call_range(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    int64_t part[3] = {0, 0, 1};
    struct pm_seq *seq;
    int rc = 0;
    if (n->count < 1 || n->count > 3 || n->keyword_count)
        return pm_render_fail(r, PM_EINVAL, "range takes one to three numbers");
    for (size_t i = 0; i < n->count && !rc; i++) {
        struct pm_value v;
        rc = pm_render_eval(r, n->items[i], &v);
        if (!rc && v.kind != PM_V_INT && v.kind != PM_V_BOOL)
            rc = pm_render_fail(r, PM_EINVAL, "range of %s", pm_value_kind_name(&v));
        if (!rc)
            part[n->count == 1 ? 1 : i] = as_int(&v);
    }
    if (rc)
        return rc;
    double span = (double)part[1] - (double)part[0];
    if (part[2] == 0)
        return pm_render_fail(r, PM_EINVAL, "range with the step 0");
    double count = ceil(span / (double)part[2]);
    if (count > 100000) /* as Jinja's sandbox */
        return pm_render_fail(r, PM_ELIMIT, "range of more than 100000 numbers");
    rc = pm_value_seq(r, PM_SEQ_VIEW, count > 0 ? (size_t)count : 0, &seq, out);
    for (size_t i = 0; !rc && i < seq->count; i++)
        seq->items[i] = pm_value_int(part[0] + (int64_t)i * part[2]);
    return rc;
}

static int eval_call(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    const struct pm_value *callee = find_name(r, n->text);
    struct pm_value v;
    struct pm_text text;
    if (callee && callee->kind == PM_V_MACRO)
        return call_macro(r, n, callee->u.macro, out);
    if (callee)
        return pm_render_fail(r, PM_EINVAL, "%.*s is %s and cannot be called", (int)n->text.bytes,
                              n->text.text, pm_value_kind_name(callee));
    if (pm_text_is(n->text, "range"))
        return call_range(r, n, out);
    if (pm_text_is(n->text, "namespace"))
        return call_dict(r, n, PM_V_NAMESPACE, out);
    if (pm_text_is(n->text, "dict"))
        return call_dict(r, n, PM_V_DICT, out);
    if (!pm_text_is(n->text, "raise_exception"))
        return pm_render_fail(r, PM_EINVAL, "%.*s is undefined and cannot be called", (int)n->text.bytes,
                              n->text.text);
    if (n->count != 1)
        return pm_render_fail(r, PM_EINVAL, "raise_exception takes one argument");
    int rc = pm_render_eval(r, n->items[0], &v);
    if (!rc)
        rc = pm_value_text(r, &v, &text);
    return rc ? rc
              : pm_render_fail(r, PM_EINVAL, "the template refuses: %.*s",
                               (int)(text.bytes > 200 ? 200 : text.bytes), text.text);
}

/* A filter, test or method. */
static int eval_callable(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_value self;
    struct pm_arguments args = {0};
    int rc = pm_render_eval(r, n->a, &self);
    for (int i = 0; i < PM_CALL_SLOTS && !rc; i++)
        if (n->slots[i]) {
            args.has[i] = true;
            rc = pm_render_eval(r, n->slots[i], &args.slot[i]);
        }
    r->line = n->line;
    return rc ? rc : n->call->call(r, &self, &args, out);
}

/* ---- expressions ---- */

static int eval_seq(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_seq *seq;
    int rc = pm_value_seq(r, n->kind == PM_N_TUPLE ? PM_SEQ_TUPLE : PM_SEQ_LIST, n->count, &seq, out);
    for (size_t i = 0; !rc && i < n->count; i++)
        rc = pm_render_eval(r, n->items[i], &seq->items[i]);
    return rc;
}

static int eval_dict(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_dict *d;
    int rc = pm_render_alloc(r, 1, sizeof *d, &d);
    *out = (struct pm_value){PM_V_DICT, {.dict = d}};
    for (size_t i = 0; !rc && i < n->count; i += 2) {
        struct pm_value key, value;
        if ((rc = pm_render_eval(r, n->items[i], &key)) || (rc = pm_render_eval(r, n->items[i + 1], &value)))
            break;
        if (key.kind != PM_V_STRING)
            return pm_render_fail(r, PM_EUNSUPPORTED, "%s as a key of a mapping is not served",
                                  pm_value_kind_name(&key));
        rc = pm_dict_put(r, d, key.u.string, &value);
    }
    return rc;
}

static int eval_concat(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_buf text = {0};
    int rc = 0;
    for (size_t i = 0; i < n->count && !rc; i++) {
        struct pm_value v;
        if (!(rc = pm_render_eval(r, n->items[i], &v)))
            rc = pm_value_print(r, &v, &text);
    }
    if (rc) {
        pm_buf_free(&text);
        return rc;
    }
    return pm_value_take(r, &text, out);
}

static int eval_subscript(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_value base, key, bounds[3];
    int rc = pm_render_eval(r, n->a, &base);
    if (rc)
        return rc;
    if (n->kind == PM_N_ITEM) {
        rc = pm_render_eval(r, n->b, &key);
        r->line = n->line;
        return rc ? rc : pm_value_item(r, &base, &key, out);
    }
    for (int i = 0; i < 3 && !rc; i++) {
        bounds[i] = (struct pm_value){.kind = PM_V_NONE};
        if (n->items[i])
            rc = pm_render_eval(r, n->items[i], &bounds[i]);
    }
    r->line = n->line;
    return rc ? rc : pm_value_slice(r, &base, bounds, out);
}

static int eval_logic(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    int rc = pm_render_eval(r, n->a, out);
    if (!rc && pm_value_is_true(out) == (n->kind == PM_N_AND))
        rc = pm_render_eval(r, n->b, out);
    return rc;
}

static int eval_cond(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_value condition;
    int rc = pm_render_eval(r, n->b, &condition);
    if (rc)
        return rc;
    if (pm_value_is_true(&condition))
        return pm_render_eval(r, n->a, out);
    if (n->c)
        return pm_render_eval(r, n->c, out);
    *out = pm_value_undefined((struct pm_text){"an inline if without else", 25});
    return 0;
}

static int eval_binary(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_value a, b;
    int rc = pm_render_eval(r, n->a, &a);
    if (!rc)
        rc = pm_render_eval(r, n->b, &b);
    r->line = n->line;
    return rc ? rc : binary(r, n->op, &a, &b, out);
}

static int eval_node(struct pm_render *r, const struct pm_node *n, struct pm_value *out)
{
    struct pm_value v;
    int rc;
    switch (n->kind) {
    case PM_N_CONST:
        *out = n->value;
        return 0;
    case PM_N_INPUT:
        *out = r->input;
        return 0;
    case PM_N_NAME:
        return eval_name(r, n, out);
    case PM_N_ATTR:
        rc = pm_render_eval(r, n->a, &v);
        return rc ? rc : pm_value_attribute(r, &v, n->text, out);
    case PM_N_ITEM:
    case PM_N_SLICE:
        return eval_subscript(r, n, out);
    case PM_N_CALL:
        return eval_call(r, n, out);
    case PM_N_METHOD:
    case PM_N_FILTER:
    case PM_N_TEST:
        return eval_callable(r, n, out);
    case PM_N_LIST:
    case PM_N_TUPLE:
        return eval_seq(r, n, out);
    case PM_N_DICT:
        return eval_dict(r, n, out);
    case PM_N_NOT:
        rc = pm_render_eval(r, n->a, &v);
        *out = pm_value_bool(rc == 0 && !pm_value_is_true(&v));
        return rc;
    case PM_N_NEGATE:
    case PM_N_PLUS:
        return eval_sign(r, n, out);
    case PM_N_AND:
    case PM_N_OR:
        return eval_logic(r, n, out);
    case PM_N_BINARY:
        return eval_binary(r, n, out);
    case PM_N_COMPARE:
        return eval_compare(r, n, out);
    case PM_N_CONCAT:
        return eval_concat(r, n, out);
    case PM_N_COND:
        return eval_cond(r, n, out);
    default:
        return pm_render_fail(r, PM_EINTERNAL, "a node of kind %d among expressions", (int)n->kind);
    }
}

int pm_render_eval(struct pm_render *r, const struct pm_node *node, struct pm_value *out)
{
    *out = (struct pm_value){.kind = PM_V_NONE};
    r->line = node->line;
    int rc = pm_render_work(r, 0);
    if (!rc && r->depth >= PM_TEMPLATE_MAX_DEPTH)
        rc = pm_render_fail(r, PM_ELIMIT, "macros or expressions nest deeper than %d", PM_TEMPLATE_MAX_DEPTH);
    if (rc)
        return rc;
    r->depth++;
    rc = eval_node(r, node, out);
    r->depth--;
    return rc;
}
