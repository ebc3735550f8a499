#include "exposition_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/utf8.h"

struct reading {
    const char *at; /* of the line */
    char family[128], type[16];
    struct pm_strmap families, series;
    size_t samples;
    /* the histogram in work */
    char labels[1024]; /* without le */
    double bound, count;
    bool has_inf;
};

static size_t name_length(const char *at, bool has_colon)
{
    size_t n = 0;
    while ((at[n] >= 'a' && at[n] <= 'z') || (at[n] >= 'A' && at[n] <= 'Z') || at[n] == '_' ||
           (has_colon && at[n] == ':') || (n && at[n] >= '0' && at[n] <= '9'))
        n++;
    return n;
}

/* Text up to a line feed or `end`, with escapes for both and the backslash. */
static const char *skip_escaped(const char *at, char end)
{
    while (*at != end) {
        assert_true(*at && *at != '\n');
        if (*at++ != '\\')
            continue;
        assert_true(*at == '\\' || *at == 'n' || (end == '"' && *at == '"'));
        at++;
    }
    return at;
}

static void read_comment(struct reading *r)
{
    bool is_help = !strncmp(r->at, "# HELP ", 7);
    assert_true(is_help || !strncmp(r->at, "# TYPE ", 7));
    const char *name = r->at + 7;
    size_t n = name_length(name, true);
    assert_true(n && n < sizeof r->family && name[n] == ' ');
    if (is_help) {
        assert_true(!*r->family || *r->type); /* the family before has its type */
        memcpy(r->family, name, n);
        r->family[n] = 0;
        *r->type = 0;
        assert_null(pm_strmap_get(&r->families, r->family)); /* once, and its samples stand together */
        pm_strmap_put(&r->families, r->family, r);
        r->at = skip_escaped(name + n + 1, '\n') + 1;
        return;
    }
    assert_true(strlen(r->family) == n && !memcmp(r->family, name, n)); /* right behind its HELP */
    assert_int_equal(*r->type, 0);
    size_t bytes = strcspn(name + n + 1, "\n");
    assert_true(bytes < sizeof r->type);
    memcpy(r->type, name + n + 1, bytes);
    r->type[bytes] = 0;
    assert_true(!strcmp(r->type, "counter") || !strcmp(r->type, "gauge") || !strcmp(r->type, "histogram"));
    bool is_total = n > 6 && !strcmp(r->family + n - 6, "_total");
    assert_true(is_total == !strcmp(r->type, "counter"));
    r->at = name + n + 1 + bytes + 1;
    *r->labels = 0;
    r->bound = -1;
}

/* {name="value",...}: all but le into labels, le into bound_out. */
static const char *read_labels(const char *at, char labels[1024], char bound_out[64])
{
    size_t used = 0;
    *labels = *bound_out = 0;
    if (*at != '{')
        return at;
    do {
        const char *start = ++at;
        size_t n = name_length(at, false);
        assert_true(n && at[n] == '=' && at[n + 1] == '"');
        const char *value = at + n + 2;
        at = skip_escaped(value, '"') + 1;
        if (n == 2 && !memcmp(start, "le", 2)) {
            assert_true((size_t)(at - value) < 64);
            memcpy(bound_out, value, (size_t)(at - value) - 1);
            bound_out[at - value - 1] = 0;
        } else {
            assert_true(used + (size_t)(at - start) + 2 < 1024);
            memcpy(labels + used, start, (size_t)(at - start));
            used += (size_t)(at - start);
            labels[used++] = ',';
            labels[used] = 0;
        }
    } while (*at == ',');
    assert_int_equal(*at, '}');
    return at + 1;
}

/* Samples of a histogram come as buckets in order, _sum, _count. */
static void check_histogram(struct reading *r, const char *suffix, const char *labels, const char *bound,
                            double value)
{
    if (!strcmp(suffix, "_bucket")) {
        assert_true(*bound);
        if (r->bound < 0) { /* the first of a series */
            strcpy(r->labels, labels);
            r->count = 0;
            r->bound = 0;
            r->has_inf = false;
        }
        assert_string_equal(r->labels, labels);
        assert_false(r->has_inf);
        assert_true(value >= r->count);
        r->count = value;
        r->has_inf = !strcmp(bound, "+Inf");
        char *end = NULL;
        double at = r->has_inf ? r->bound * 2 : strtod(bound, &end);
        assert_true((!end || !*end) && at > r->bound);
        r->bound = at;
        return;
    }
    assert_true(!*bound && r->has_inf);
    assert_string_equal(r->labels, labels);
    if (!strcmp(suffix, "_sum"))
        return;
    assert_string_equal(suffix, "_count");
    assert_true(value == r->count);
    r->bound = -1;
}

static void read_sample(struct reading *r)
{
    char labels[1024], bound[64], *end;
    size_t n = name_length(r->at, true), family = strlen(r->family);
    assert_true(*r->type && n >= family && !memcmp(r->at, r->family, family));
    const char *behind = read_labels(r->at + n, labels, bound);
    char *suffix = pm_xstrndup(r->at + family, n - family),
         *series = pm_xstrndup(r->at, (size_t)(behind - r->at));
    assert_null(pm_strmap_get(&r->series, series));
    pm_strmap_put(&r->series, series, r);
    assert_int_equal(*behind, ' ');
    assert_true(behind[1] >= '0' && behind[1] <= '9'); /* nothing of ours is below 0, NaN or infinite */
    double value = strtod(behind + 1, &end);
    assert_int_equal(*end, '\n');
    if (!strcmp(r->type, "histogram"))
        check_histogram(r, suffix, labels, bound, value);
    else
        assert_true(!*suffix && !*bound);
    free(suffix);
    free(series);
    r->samples++;
    r->at = end + 1;
}

size_t exposition_check(const char *text)
{
    struct reading r = {.at = text, .bound = -1};
    assert_true(pm_utf8_is_valid(text, strlen(text)));
    while (*r.at) {
        if (*r.at == '#')
            read_comment(&r);
        else
            read_sample(&r);
    }
    assert_true(r.bound < 0); /* the last histogram is whole */
    pm_strmap_free(&r.families);
    pm_strmap_free(&r.series);
    return r.samples;
}

double exposition_value(const char *text, const char *series)
{
    size_t n = strlen(series);
    for (const char *at = text; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
        if (!strncmp(at, series, n) && at[n] == ' ')
            return strtod(at + n, NULL);
    fail_msg("there is no %s", series);
    return 0;
}
