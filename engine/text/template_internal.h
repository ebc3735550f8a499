/* The parts of the template engine: tokens, tree, values, one rendering. Private to template_*.c.
 *
 *   template_lex.c         source text to tokens (white space control happens here)
 *   template_parse.c       tokens to the tree: statements
 *   template_expression.c  tokens to the tree: expressions; refuses what is not known
 *   template_value.c       values: from JSON, truth, comparison, text, JSON text
 *   template_text.c        strings as Python has them: strip, split, replace, case
 *   template_filter.c      filters
 *   template_method.c      tests and methods
 *   template_eval.c        expressions: names, arithmetic, calls
 *   template_run.c         statements, pm_template_render
 */
#ifndef PM_ENGINE_TEXT_TEMPLATE_INTERNAL_H
#define PM_ENGINE_TEXT_TEMPLATE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/mem.h"
#include "engine/text/template.h"

enum {
    PM_TEMPLATE_MAX_BYTES = 1 << 18,
    PM_TEMPLATE_MAX_NESTING = 100,       /* of the tree */
    PM_TEMPLATE_MAX_DEPTH = 1000,        /* of evaluation, macros included */
    PM_TEMPLATE_MAX_STEPS = 20 << 20,    /* nodes evaluated, and bytes handled / 16 */
    PM_TEMPLATE_MAX_MEMORY = 256 << 20,  /* of one rendering */
    PM_TEMPLATE_MAX_OUTPUT = 16 << 20,   /* bytes of text */
    PM_TEMPLATE_MAX_ITEMS = 1 << 20,     /* of a list made by range() or a repeated string */
    PM_TEMPLATE_MAX_VALUE_NESTING = 100, /* of the variables */
    PM_CALL_SLOTS = 6,                   /* parameters of a filter, test or method */
};

struct pm_text {
    const char *text;
    size_t bytes;
};
static inline bool pm_text_is(struct pm_text a, const char *b)
{
    size_t n = 0;
    while (n < a.bytes && b[n] && a.text[n] == b[n])
        n++;
    return n == a.bytes && !b[n];
}

/* ---- values ---- */

enum pm_value_kind {
    PM_V_UNDEFINED,
    PM_V_NONE,
    PM_V_BOOL,
    PM_V_INT,
    PM_V_FLOAT,
    PM_V_STRING,
    PM_V_SEQ,
    PM_V_DICT,
    PM_V_NAMESPACE,
    PM_V_MACRO,
    PM_V_LOOP,
};
enum pm_seq_flavour {
    PM_SEQ_LIST,
    PM_SEQ_TUPLE,
    PM_SEQ_VIEW, /* keys(), values(), items(): has a length, nothing else */
    PM_SEQ_LAZY, /* what a filter like map gives: can be walked */
};

struct pm_value {
    enum pm_value_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct pm_text string; /* of undefined: what it was meant to be */
        struct pm_seq *seq;
        struct pm_dict *dict; /* also of a namespace */
        const struct pm_macro *macro;
        struct pm_loop *loop;
    } u;
};
struct pm_seq {
    enum pm_seq_flavour flavour;
    size_t count;
    struct pm_value *items;
};
struct pm_pair {
    struct pm_text key;
    struct pm_value value;
};
struct pm_dict {
    size_t count, capacity;
    struct pm_pair *pairs; /* in order of insertion */
};
struct pm_macro {
    const struct pm_node *node;
    struct pm_scope *scope; /* where it was defined */
};
struct pm_loop {
    const struct pm_seq *items;
    size_t index;
};

/* ---- tree ---- */

enum pm_node_kind {
    /* expressions */
    PM_N_CONST,
    PM_N_NAME,    /* text */
    PM_N_ATTR,    /* a.text */
    PM_N_ITEM,    /* a[b] */
    PM_N_SLICE,   /* a[items[0]:items[1]:items[2]], NULL where left out */
    PM_N_CALL,    /* text(items, keywords) */
    PM_N_METHOD,  /* a.text(slots) */
    PM_N_FILTER,  /* a | text(slots) */
    PM_N_TEST,    /* a is text(slots) */
    PM_N_LIST,    /* items */
    PM_N_TUPLE,   /* items; as a target too */
    PM_N_DICT,    /* items: key, value, key, value, ... */
    PM_N_NOT,     /* a */
    PM_N_NEGATE,  /* a */
    PM_N_PLUS,    /* a */
    PM_N_AND,     /* a, b */
    PM_N_OR,      /* a, b */
    PM_N_BINARY,  /* a op b */
    PM_N_COMPARE, /* a, then op of items[i] beside items[i] */
    PM_N_OPERAND, /* op a: of a comparison */
    PM_N_CONCAT,  /* items */
    PM_N_COND,    /* a if b else c (c may be NULL) */
    /* statements */
    PM_N_DATA,         /* text */
    PM_N_PRINT,        /* a */
    PM_N_IF,           /* items: condition, body, condition, body, ...; c: else or NULL */
    PM_N_FOR,          /* for a in b if c: d, else e */
    PM_N_SET,          /* a (target) = b */
    PM_N_SET_BLOCK,    /* a (target) = text of d, through the filters of b (or NULL) */
    PM_N_FILTER_BLOCK, /* text of d through the filters of b */
    PM_N_NS_TARGET,    /* text . attribute: only as a target */
    PM_N_MACRO,        /* text(items: names, then defaults of the last of them): d */
    PM_N_BREAK,
    PM_N_CONTINUE,
    PM_N_BODY,  /* items */
    PM_N_SCOPE, /* d in a scope of its own; items: target, value, ... set there */
    PM_N_INPUT, /* the value that a chain of filters starts with */
};

struct pm_node {
    enum pm_node_kind kind;
    int line;
    int depth; /* of the tree below, itself included */
    int op;    /* enum pm_op */
    struct pm_node *a, *b, *c, *d, *e;
    struct pm_node **items;
    size_t count;
    struct pm_text text, attribute;
    struct pm_value value;           /* of a constant */
    const struct pm_callable *call;  /* of a filter, test or method */
    struct pm_node **slots;          /* [PM_CALL_SLOTS], NULL where left out */
    struct pm_text *keywords;        /* of PM_N_CALL: names of the last keyword_count items */
    size_t keyword_count, arguments; /* of a macro: arguments is how many names */
};

enum pm_op {
    PM_OP_ADD = 1,
    PM_OP_SUB,
    PM_OP_MUL,
    PM_OP_DIV,
    PM_OP_FLOOR_DIV,
    PM_OP_MOD,
    PM_OP_POW,
    PM_OP_EQ,
    PM_OP_NE,
    PM_OP_LT,
    PM_OP_LE,
    PM_OP_GT,
    PM_OP_GE,
    PM_OP_IN,
    PM_OP_NOT_IN,
    PM_OP_TILDE,
    PM_OP_ASSIGN,
    PM_OP_DOT,
    PM_OP_COMMA,
    PM_OP_COLON,
    PM_OP_PIPE,
    PM_OP_OPEN, /* ( */
    PM_OP_CLOSE,
    PM_OP_OPEN_LIST, /* [ */
    PM_OP_CLOSE_LIST,
    PM_OP_OPEN_DICT, /* { */
    PM_OP_CLOSE_DICT,
    PM_OP_SEMICOLON,
};

struct pm_template {
    char *name;
    struct pm_arena arena; /* the tree and its texts */
    struct pm_node *body;
};

/* ---- tokens ---- */

enum pm_template_token_kind {
    PM_T_END,
    PM_T_DATA,
    PM_T_PRINT_BEGIN,
    PM_T_PRINT_END,
    PM_T_BLOCK_BEGIN,
    PM_T_BLOCK_END,
    PM_T_NAME,
    PM_T_STRING,
    PM_T_INT,
    PM_T_FLOAT,
    PM_T_OP,
};
struct pm_template_token {
    enum pm_template_token_kind kind;
    int op, line;
    struct pm_text text; /* of a string: decoded */
    int64_t integer;
    double real;
};
/* Tokens in the arena, PM_T_END last. */
int pm_template_lex(const char *name, const char *text, size_t bytes, struct pm_arena *arena,
                    struct pm_template_token **out, struct pm_error *err);

/* ---- one rendering ---- */

struct pm_binding {
    struct pm_text name;
    struct pm_value value;
    struct pm_binding *next;
};
struct pm_scope {
    struct pm_scope *parent;
    struct pm_binding *first;
};

struct pm_render {
    const char *name;
    struct pm_error *err;
    struct pm_arena arena;
    size_t memory; /* taken from the arena */
    int64_t steps;
    int depth;
    int line; /* of the node being evaluated, for messages of helpers */
    struct pm_buf *out;
    struct pm_scope *scope;
    struct pm_value input; /* of PM_N_INPUT */
    enum { PM_FLOW_NEXT, PM_FLOW_BREAK, PM_FLOW_CONTINUE } flow;
};

/* Fails with "name: line N: ...". */
int pm_render_fail(struct pm_render *r, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Accounts for n bytes of work. */
int pm_render_work(struct pm_render *r, size_t n);
/* Zeroed memory that lives as long as the rendering; out: the address of a pointer. */
int pm_render_alloc(struct pm_render *r, size_t count, size_t size, void *out);
int pm_render_eval(struct pm_render *r, const struct pm_node *node, struct pm_value *out);
/* A body (PM_N_BODY) into r->out, or into a string of its own. */
int pm_render_run(struct pm_render *r, const struct pm_node *body);
int pm_render_capture(struct pm_render *r, const struct pm_node *body, struct pm_value *out);
int pm_render_push_scope(struct pm_render *r, struct pm_scope *parent);
int pm_render_bind(struct pm_render *r, struct pm_scope *scope, struct pm_text name,
                   const struct pm_value *v);
/* Sets the target of a set or for. */
int pm_render_assign(struct pm_render *r, const struct pm_node *target, const struct pm_value *v);

/* ---- template_value.c ---- */

static inline struct pm_value pm_value_bool(bool b)
{
    return (struct pm_value){PM_V_BOOL, {.boolean = b}};
}
static inline struct pm_value pm_value_int(int64_t i)
{
    return (struct pm_value){PM_V_INT, {.integer = i}};
}
static inline struct pm_value pm_value_string(const char *text, size_t bytes)
{
    return (struct pm_value){PM_V_STRING, {.string = {text, bytes}}};
}
static inline struct pm_value pm_value_undefined(struct pm_text what)
{
    return (struct pm_value){PM_V_UNDEFINED, {.string = what}};
}
const char *pm_value_kind_name(const struct pm_value *v);
int pm_value_from_json(struct pm_render *r, const json_t *json, int nesting, struct pm_value *out);
bool pm_value_is_true(const struct pm_value *v);
bool pm_value_is_number(const struct pm_value *v, double *out); /* true and false are 1 and 0 */
int pm_value_equal(struct pm_render *r, const struct pm_value *a, const struct pm_value *b, bool *out);
/* -1, 0, 1; numbers and strings only. */
int pm_value_order(struct pm_render *r, const struct pm_value *a, const struct pm_value *b, int *out);
int pm_value_contains(struct pm_render *r, const struct pm_value *box, const struct pm_value *v, bool *out);
/* str(v) appended to out. */
int pm_value_print(struct pm_render *r, const struct pm_value *v, struct pm_buf *out);
int pm_value_text(struct pm_render *r, const struct pm_value *v, struct pm_text *out);
int pm_value_seq(struct pm_render *r, enum pm_seq_flavour flavour, size_t count, struct pm_seq **out,
                 struct pm_value *value_out);
/* What walking v gives: items, keys of a mapping, characters; nothing of undefined. */
int pm_value_walk(struct pm_render *r, const struct pm_value *v, const struct pm_seq **out);
const struct pm_value *pm_dict_get(const struct pm_dict *d, struct pm_text key);
int pm_dict_put(struct pm_render *r, struct pm_dict *d, struct pm_text key, const struct pm_value *v);
/* v.name and v[key] by the rules of Jinja's sandbox. */
int pm_value_attribute(struct pm_render *r, const struct pm_value *v, struct pm_text name,
                       struct pm_value *out);
int pm_value_item(struct pm_render *r, const struct pm_value *v, const struct pm_value *key,
                  struct pm_value *out);
int pm_value_slice(struct pm_render *r, const struct pm_value *v, const struct pm_value bounds[3],
                   struct pm_value *out);
struct pm_json_style {
    bool ascii, sorted, is_indented;
    struct pm_text indent, between, colon;
};
int pm_value_json(struct pm_render *r, const struct pm_value *v, const struct pm_json_style *style, int level,
                  struct pm_buf *out);
/* A buffer's bytes as a string value of the rendering; the buffer is freed. */
int pm_value_take(struct pm_render *r, struct pm_buf *buf, struct pm_value *out);

/* ---- template_filter.c, template_method.c ---- */

struct pm_arguments {
    struct pm_value slot[PM_CALL_SLOTS];
    bool has[PM_CALL_SLOTS];
};
/* A filter, test or method. parameters: names, blank-separated; "-": without a name. */
struct pm_callable {
    const char *name, *parameters;
    int required;
    int (*call)(struct pm_render *r, const struct pm_value *self, const struct pm_arguments *args,
                struct pm_value *out);
};
const struct pm_callable *pm_template_filter(struct pm_text name);
const struct pm_callable *pm_template_test(struct pm_text name);
/* Methods of one name of all types. */
const struct pm_callable *pm_template_method(struct pm_text name);

/* ---- template_text.c ---- */

bool pm_text_has_case(struct pm_text s); /* of letters outside ASCII */
enum pm_text_case { PM_CASE_UPPER, PM_CASE_LOWER, PM_CASE_TITLE, PM_CASE_CAPITALIZE, PM_CASE_JINJA_TITLE };
int pm_text_recase(struct pm_render *r, struct pm_text s, enum pm_text_case to, struct pm_value *out);
/* strip(): which is 1 left, 2 right, 3 both; chars NULL: white space. */
struct pm_text pm_text_strip(struct pm_text s, int which, const struct pm_text *chars);
size_t pm_text_find(struct pm_text s, struct pm_text part, size_t from); /* SIZE_MAX: not there */
int pm_text_replace(struct pm_render *r, struct pm_text s, struct pm_text old, struct pm_text by,
                    int64_t limit, struct pm_value *out);
/* split(); separator NULL: runs of white space; limit < 0: none. */
int pm_text_split(struct pm_render *r, struct pm_text s, const struct pm_text *separator, int64_t limit,
                  struct pm_value *out);
int pm_text_lines(struct pm_render *r, struct pm_text s, bool keep_ends, struct pm_value *out);
size_t pm_text_length(struct pm_text s);   /* characters */
void pm_text_real(double v, char out[40]); /* as Python writes it */

#endif
