#include "client/cli/doctor.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "client/cli/show.h"

static const char *const level_names[] = {"ok", "warn", "fail"};

void pm_doctor_add(struct pm_doctor *d, const char *subject, enum pm_doctor_level level, const char *fix,
                   const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pm_sanitize_text(text);
    PM_GROW(d->lines, d->count, d->capacity);
    d->lines[d->count++] = (struct pm_doctor_line){
        .subject = subject, .level = level, .text = pm_xstrdup(text), .fix = fix ? pm_xstrdup(fix) : NULL};
}

enum pm_doctor_level pm_doctor_worst(const struct pm_doctor *d)
{
    enum pm_doctor_level worst = PM_DOCTOR_OK;
    for (size_t i = 0; i < d->count; i++)
        if (d->lines[i].level > worst)
            worst = d->lines[i].level;
    return worst;
}

void pm_doctor_show(const struct pm_doctor *d, int width, bool is_colored, FILE *out)
{
    size_t counts[3] = {0};
    for (size_t i = 0; i < d->count; i++) {
        const struct pm_doctor_line *l = &d->lines[i];
        enum pm_color color = pm_color_of_state(level_names[l->level]);
        counts[l->level]++;
        fprintf(out, "%s%-4s%s  %-8s ", pm_color_begin(color, is_colored), level_names[l->level],
                pm_color_end(color, is_colored), l->subject);
        pm_show_text(l->text, out);
        fputc('\n', out);
        if (l->fix && l->level != PM_DOCTOR_OK)
            pm_options_fill(l->fix, 15, width, out);
    }
    fprintf(out, "\n%zu checks: %zu ok, %zu to look at, %zu that will not work\n", d->count, counts[0],
            counts[1], counts[2]);
}

json_t *pm_doctor_json(const struct pm_doctor *d)
{
    json_t *o = json_object(), *list = json_array();
    json_object_set_new(o, "result", json_string(level_names[pm_doctor_worst(d)]));
    for (size_t i = 0; i < d->count; i++) {
        const struct pm_doctor_line *l = &d->lines[i];
        json_t *item = json_object();
        bool has_fix = l->fix && l->level != PM_DOCTOR_OK;
        json_object_set_new(item, "subject", json_string(l->subject));
        json_object_set_new(item, "level", json_string(level_names[l->level]));
        json_object_set_new(item, "text", json_string(l->text));
        json_object_set_new(item, "fix", has_fix ? json_string(l->fix) : json_null());
        json_array_append_new(list, item);
    }
    json_object_set_new(o, "checks", list);
    return o;
}

void pm_doctor_free(struct pm_doctor *d)
{
    for (size_t i = 0; i < d->count; i++) {
        free(d->lines[i].text);
        free(d->lines[i].fix);
    }
    free(d->lines);
    free(d->state);
    free(d->run);
    free(d->models);
    *d = (struct pm_doctor){0};
}
