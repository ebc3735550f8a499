/* parity tokenizer PATH...: tokenizer folders (tokenizer.json with strings.jsonl, decode_ids.jsonl,
 * stream.jsonl, chat.json, all optional), a folder of such folders, or one of their files. A line for each
 * file and group of comparisons; all are exact.
 *
 * The chat template is chat_template.jinja of the folder, else of the one above. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/text/template.h"
#include "engine/text/tokenizer.h"
#include "tests/parity/parity.h"

struct folder {
    const char *path;
    struct pm_tokenizer *tokenizer;
    struct pm_template *template; /* NULL until a chat needs it */
};

/* One group of comparisons within a file. */
struct group {
    const char *name;
    int cases, wrong;
    char first[200]; /* what the first wrong one was */
};

static void count_case(struct group *g, bool is_right, int line, const char *what)
{
    g->cases++;
    if (is_right)
        return;
    if (g->wrong++ == 0)
        snprintf(g->first, sizeof g->first, "first at %d: %.160s", line, what);
}

static void print_groups(struct parity_counts *counts, const char *file, const char *folder,
                         struct group *groups, size_t count)
{
    const char *slash = strrchr(folder, '/');
    for (size_t i = 0; i < count; i++) {
        char check[64];
        struct parity_verdict v = {0};
        struct pm_error err = {0};
        snprintf(check, sizeof check, "%s.%s", file, groups[i].name);
        if (groups[i].wrong)
            parity_fail(&v, "%d of %d wrong, %s", groups[i].wrong, groups[i].cases, groups[i].first);
        else if (groups[i].cases == 0)
            parity_fail(&v, "no cases");
        parity_report(&v, "wrong", groups[i].wrong, 0);
        parity_note(&v, "%d cases", groups[i].cases);
        parity_print(counts, check, slash ? slash + 1 : folder, 0, &v, &err);
    }
}

/* ---- comparisons ---- */

static bool same_ids(const json_t *wanted, const int32_t *ids, size_t count)
{
    if (!json_is_array(wanted) || json_array_size(wanted) != count)
        return false;
    for (size_t i = 0; i < count; i++)
        if (json_integer_value(json_array_get(wanted, i)) != ids[i])
            return false;
    return true;
}

static void check_encode(const struct folder *f, struct group *g, int line, const json_t *text,
                         const json_t *ids)
{
    struct pm_error err = {0};
    int32_t *got;
    size_t count;
    int rc = pm_tokenizer_encode(f->tokenizer, json_string_value(text), json_string_length(text), true, &got,
                                 &count, &err);
    count_case(g, rc == 0 && same_ids(ids, got, count), line, rc ? err.text : json_string_value(text));
    free(got);
}

static bool is_added(const struct pm_tokenizer *t, int32_t id)
{
    size_t bytes;
    const uint8_t *data = pm_tokenizer_bytes(t, id, &bytes);
    char *text = pm_xstrndup(data ? (const char *)data : "", bytes);
    bool is = pm_tokenizer_id(t, text) == id;
    free(text);
    return is;
}

/* As plain text: no added token may come out, and the text must come back. */
static void check_plain(const struct folder *f, struct group *g, int line, const json_t *text)
{
    struct pm_error err = {0};
    int32_t *ids;
    size_t count, bytes = 0;
    char *back = NULL;
    int rc = pm_tokenizer_encode(f->tokenizer, json_string_value(text), json_string_length(text), false, &ids,
                                 &count, &err);
    bool is_right = rc == 0;
    for (size_t i = 0; i < count && is_right; i++)
        is_right = !is_added(f->tokenizer, ids[i]);
    if (is_right)
        is_right = pm_tokenizer_decode(f->tokenizer, ids, count, false, &back, &bytes, &err) == 0 &&
                   bytes == json_string_length(text) && memcmp(back, json_string_value(text), bytes) == 0;
    count_case(g, is_right, line, err.text[0] ? err.text : json_string_value(text));
    free(back);
    free(ids);
}

static int32_t *read_ids(const json_t *list, size_t *count_out)
{
    *count_out = json_array_size(list);
    int32_t *ids = pm_xalloc((*count_out + 1) * sizeof *ids);
    for (size_t i = 0; i < *count_out; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return ids;
}

static void check_decode(const struct folder *f, struct group *g, int line, const json_t *ids, bool skip,
                         const json_t *wanted)
{
    struct pm_error err = {0};
    size_t count, bytes;
    int32_t *list = read_ids(ids, &count);
    char *text;
    int rc = pm_tokenizer_decode(f->tokenizer, list, count, skip, &text, &bytes, &err);
    count_case(g,
               rc == 0 && json_is_string(wanted) && bytes == json_string_length(wanted) &&
                   memcmp(text, json_string_value(wanted), bytes) == 0,
               line, rc ? err.text : text);
    free(text);
    free(list);
}

/* What each id releases, and that everything together is the whole text. */
static void check_stream(const struct folder *f, struct group *g, int line, const json_t *ids, bool skip,
                         const json_t *steps, const json_t *full)
{
    size_t count;
    int32_t *list = read_ids(ids, &count);
    struct pm_token_stream stream = {0};
    struct pm_buf step = {0}, all = {0};
    bool is_right = json_array_size(steps) == count;
    for (size_t i = 0; i < count; i++) {
        const json_t *wanted = json_array_get(steps, i);
        pm_buf_clear(&step);
        pm_token_stream_add(&stream, f->tokenizer, list[i], skip, &step);
        is_right &= step.size == json_string_length(wanted) &&
                    (step.size == 0 || memcmp(step.data, json_string_value(wanted), step.size) == 0);
        pm_buf_append(&all, step.data, step.size);
    }
    pm_token_stream_finish(&stream, &all);
    if (full)
        is_right &= all.size == json_string_length(full) &&
                    (all.size == 0 || memcmp(all.data, json_string_value(full), all.size) == 0);
    pm_buf_text(&all, "");
    count_case(g, is_right, line, (char *)all.data);
    pm_buf_free(&step);
    pm_buf_free(&all);
    free(list);
}

/* ---- files ---- */

static void run_strings(const struct folder *f, int line, const json_t *c, struct group *g)
{
    const json_t *s = json_object_get(c, "s"), *d = json_object_get(c, "d"), *ds = json_object_get(c, "ds");
    const json_t *ids = json_object_get(c, "ids");
    check_encode(f, &g[0], line, s, ids);
    check_decode(f, &g[1], line, ids, false, d ? d : s);
    check_decode(f, &g[2], line, ids, true, ds ? ds : d ? d : s);
    check_plain(f, &g[3], line, s);
}

static void run_decode_ids(const struct folder *f, int line, const json_t *c, struct group *g)
{
    const json_t *d = json_object_get(c, "d"), *ds = json_object_get(c, "ds");
    check_decode(f, &g[0], line, json_object_get(c, "ids"), false, d);
    check_decode(f, &g[1], line, json_object_get(c, "ids"), true, ds ? ds : d);
}

static void run_stream(const struct folder *f, int line, const json_t *c, struct group *g)
{
    const json_t *ids = json_object_get(c, "ids");
    check_stream(f, &g[0], line, ids, false, json_object_get(c, "steps"), json_object_get(c, "full"));
    check_stream(f, &g[1], line, ids, true, json_object_get(c, "steps_skip_special"), NULL);
}

static const struct list_file {
    const char *name; /* NAME.jsonl */
    void (*run)(const struct folder *f, int line, const json_t *c, struct group *g);
    const char *groups[5];
} list_files[] = {
    {"strings", run_strings, {"encode", "decode", "no_special", "plain"}},
    {"decode_ids", run_decode_ids, {"decode", "no_special"}},
    {"stream", run_stream, {"steps", "no_special"}},
};

static void fail_file(struct parity_counts *counts, const char *file, const char *folder,
                      const struct pm_error *err)
{
    const char *slash = strrchr(folder, '/');
    parity_print(counts, file, slash ? slash + 1 : folder, err->code, NULL, err);
}

static void run_list(const struct folder *f, const struct list_file *file, const char *path,
                     struct parity_counts *counts)
{
    struct group groups[5] = {0};
    size_t group_count = 0;
    for (; file->groups[group_count]; group_count++)
        groups[group_count].name = file->groups[group_count];
    struct pm_error err = {0};
    struct pm_buf text = {0};
    int rc = pm_fs_read(path, (size_t)256 << 20, &text, &err), line = 0;
    for (size_t at = 0; at < text.size && !rc;) {
        const uint8_t *end = memchr(text.data + at, '\n', text.size - at);
        size_t bytes = end ? (size_t)(end - text.data) - at : text.size - at;
        json_error_t why;
        json_t *c = json_loadb((char *)text.data + at, bytes, JSON_ALLOW_NUL, &why);
        line++;
        if (c)
            file->run(f, line, c, groups);
        else
            rc = pm_fail(&err, PM_EFORMAT, "%s: line %d: %s", path, line, why.text);
        json_decref(c);
        at += bytes + 1;
    }
    if (rc)
        fail_file(counts, file->name, f->path, &err);
    else
        print_groups(counts, file->name, f->path, groups, group_count);
    pm_buf_free(&text);
}

/* ---- chats ---- */

static int open_template(struct folder *f, struct pm_error *err)
{
    char *path = pm_fs_join(f->path, "chat_template.jinja");
    if (!pm_fs_is_file(path)) {
        free(path);
        path = pm_fs_join(f->path, "../chat_template.jinja");
    }
    struct pm_buf text = {0};
    int rc = pm_fs_read(path, (size_t)1 << 20, &text, err);
    if (!rc)
        rc = pm_template_parse(path, (char *)text.data, text.size, &f->template, err);
    pm_buf_free(&text);
    free(path);
    return rc;
}

/* "eos_token" and its like, which templates may name. */
static json_t *special_token_names(const struct folder *f)
{
    json_t *names = json_object(), *value;
    char *path = pm_fs_join(f->path, "tokenizer_config.json");
    json_t *config = json_load_file(path, 0, NULL);
    const char *key;
    json_object_foreach(config, key, value)
    {
        size_t n = strlen(key);
        if (n > 6 && strcmp(key + n - 6, "_token") == 0) {
            if (json_is_object(value))
                value = json_object_get(value, "content");
            if (json_is_string(value))
                json_object_set(names, key, value);
        }
    }
    json_decref(config);
    free(path);
    return names;
}

static void run_chat_case(const struct folder *f, int line, const json_t *c, struct group *g)
{
    struct pm_error err = {0};
    json_t *extra = special_token_names(f), *variables = NULL;
    const json_t *kwargs = json_object_get(c, "kwargs"), *wanted = json_object_get(c, "text");
    const char *name = json_string_value(json_object_get(c, "name"));
    json_object_update(extra, (json_t *)kwargs);
    char *text = NULL;
    size_t bytes = 0;
    int rc = pm_template_chat_variables(json_object_get(c, "messages"), NULL, false, extra, &variables, &err);
    if (!rc)
        rc = pm_template_render(f->template, variables, &text, &bytes, &err);
    char what[500];
    snprintf(what, sizeof what, "%.60s%s%s", name ? name : "?", rc ? ": " : "", rc ? err.text : "");
    count_case(&g[0],
               rc == 0 && json_is_string(wanted) && bytes == json_string_length(wanted) &&
                   memcmp(text, json_string_value(wanted), bytes) == 0,
               line, what);
    if (rc)
        count_case(&g[1], false, line, what);
    if (!rc) {
        json_t *rendered = json_stringn(text, bytes);
        check_encode(f, &g[1], line, rendered, json_object_get(c, "ids"));
        json_decref(rendered);
    }
    free(text);
    json_decref(variables);
    json_decref(extra);
}

static void run_chat(struct folder *f, const char *path, struct parity_counts *counts)
{
    struct group groups[] = {{.name = "text"}, {.name = "ids"}};
    struct pm_error err = {0};
    json_error_t why;
    json_t *cases = json_load_file(path, JSON_ALLOW_NUL, &why), *c;
    size_t i;
    int rc =
        json_is_array(cases) ? 0 : pm_fail(&err, PM_EFORMAT, "%s: not a list of chats: %s", path, why.text);
    if (!rc && !f->template)
        rc = open_template(f, &err);
    if (rc) {
        fail_file(counts, "chat", f->path, &err);
    } else {
        json_array_foreach(cases, i, c) run_chat_case(f, (int)i + 1, c, groups);
        print_groups(counts, "chat", f->path, groups, 2);
    }
    json_decref(cases);
}

/* ---- folders ---- */

/* only: one file of the folder, or NULL for all. Returns how many golden files were run. */
static int run_folder(const char *path, const char *only, struct parity_counts *counts)
{
    struct folder f = {.path = path};
    struct pm_error err = {0};
    char *tokenizer = pm_fs_join(path, "tokenizer.json");
    int files = 0;
    if (pm_tokenizer_open(tokenizer, &f.tokenizer, &err)) {
        fail_file(counts, "open", path, &err);
        files = 1;
    }
    for (size_t i = 0; i < sizeof list_files / sizeof list_files[0] && f.tokenizer; i++) {
        char *list = pm_xprintf("%s/%s.jsonl", path, list_files[i].name), *name = strrchr(list, '/') + 1;
        if ((!only || strcmp(only, name) == 0) && pm_fs_is_file(list)) {
            run_list(&f, &list_files[i], list, counts);
            files++;
        }
        free(list);
    }
    char *chat = pm_fs_join(path, "chat.json");
    if (f.tokenizer && (!only || strcmp(only, "chat.json") == 0) && pm_fs_is_file(chat)) {
        run_chat(&f, chat, counts);
        files++;
    }
    free(chat);
    free(tokenizer);
    pm_template_free(&f.template);
    pm_tokenizer_free(&f.tokenizer);
    return files;
}

static bool has_tokenizer(const char *path)
{
    char *file = pm_fs_join(path, "tokenizer.json");
    bool has = pm_fs_is_file(file);
    free(file);
    return has;
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int run_path(const char *given, struct parity_counts *counts)
{
    char *path = pm_xstrdup(given);
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        path[--length] = 0;
    int files = 0, n = 0;
    struct dirent **entries = NULL;
    if (has_tokenizer(path)) {
        files = run_folder(path, NULL, counts);
    } else if (pm_fs_is_file(path)) {
        char *slash = strrchr(path, '/');
        if (slash)
            *slash = 0;
        files = run_folder(slash ? path : ".", slash ? slash + 1 : path, counts);
    } else {
        n = scandir(path, &entries, is_visible, alphasort);
    }
    for (int i = 0; i < n; i++) {
        char *folder = pm_fs_join(path, entries[i]->d_name);
        if (has_tokenizer(folder))
            files += run_folder(folder, NULL, counts);
        free(folder);
        free(entries[i]);
    }
    free(entries);
    free(path);
    return files;
}

const struct parity_kind parity_tokenizer = {.name = "tokenizer", .run_path = run_path};
