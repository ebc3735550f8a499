/* The parser's state and what its two halves share. Private to template_parse.c and template_expression.c. */
#ifndef PM_ENGINE_TEXT_TEMPLATE_PARSER_H
#define PM_ENGINE_TEXT_TEMPLATE_PARSER_H

#include "engine/text/template_internal.h"

struct pm_name_at {
    struct pm_text name;
    int line;
};

struct pm_parser {
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
    struct pm_name_at *called;
    size_t called_count, called_capacity;
    struct pm_text *bound;
    size_t bound_count, bound_capacity;
};

/* Growing list of nodes; moved into the arena when complete. */
struct pm_node_list {
    struct pm_node **items;
    size_t count, capacity;
};

/* ---- template_expression.c ---- */

/* format: with one %.*s, for what. */
int pm_parse_fail_at(struct pm_parser *p, int code, int line, const char *format, struct pm_text what);
int pm_parse_fail_unexpected(struct pm_parser *p, const char *wanted);
bool pm_parse_is_op(const struct pm_parser *p, int op);
bool pm_parse_is_word(const struct pm_template_token *t, const char *word);
bool pm_parse_skip_op(struct pm_parser *p, int op);
bool pm_parse_skip_word(struct pm_parser *p, const char *word);
int pm_parse_expect_op(struct pm_parser *p, int op, const char *wanted);
int pm_parse_expect_name(struct pm_parser *p, struct pm_text *out);
struct pm_node *pm_parse_new_node(struct pm_parser *p, enum pm_node_kind kind, int line);
/* When all children are set: fails when the tree below is too deep to walk. */
int pm_parse_close_node(struct pm_parser *p, struct pm_node *n);
/* One level deeper in the grammar; the caller takes it off p->nesting again. */
int pm_parse_enter(struct pm_parser *p);
void pm_parse_list_add(struct pm_node_list *l, struct pm_node *n);
/* Moves the list to n->items and closes n; frees the list in any case. Returns rc, when that is a failure. */
int pm_parse_list_close(struct pm_parser *p, struct pm_node_list *l, struct pm_node *n, int rc);
void pm_parse_bind_name(struct pm_parser *p, struct pm_text name);
int pm_parse_expression(struct pm_parser *p, bool with_cond, struct pm_node **out);
/* One or more expressions: a tuple when there is a comma. */
int pm_parse_tuple(struct pm_parser *p, bool with_cond, bool may_be_empty, struct pm_node **out);
/* Behind the | : a filter of input. */
int pm_parse_filter(struct pm_parser *p, struct pm_node *input, struct pm_node **out);
/* The index of a parameter by its name; -1: none. */
int pm_parse_parameter_index(const char *parameters, struct pm_text name);

#endif
