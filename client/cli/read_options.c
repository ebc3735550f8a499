#include "client/cli/read_options.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/pages.h"
#include "proto/page.h"

#define PASSWORD_FILE_BYTES 65536

int pm_read_check_formats(const char *formats, struct pm_error *err)
{
    static const char *const known[] = {"md", "json", "txt"};
    unsigned seen = 0;
    for (const char *p = formats;; p++) {
        size_t n = strcspn(p, ",");
        unsigned bit = 0;
        for (unsigned i = 0; i < 3; i++)
            if (strlen(known[i]) == n && !strncmp(p, known[i], n))
                bit = 1u << i;
        if (!bit)
            return pm_fail(err, PM_EINVAL, "--format knows md, json and txt, not \"%.*s\"",
                           (int)(n < 40 ? n : 40), p);
        if (seen & bit)
            return pm_fail(err, PM_EINVAL, "--format names %.*s twice", (int)n, p);
        seen |= bit;
        p += n;
        if (!*p)
            return 0;
    }
}

static int check_labels(const char *labels, struct pm_error *err)
{
    for (const char *p = labels;; p++) {
        size_t n = strcspn(p, ",");
        bool is_known = false;
        for (int i = 0; i < PM_LABEL_COUNT && !is_known; i++) {
            const char *name = pm_label_name((enum pm_label)i);
            is_known = strlen(name) == n && !strncmp(p, name, n);
        }
        if (!is_known)
            return pm_fail(err, PM_EINVAL,
                           "--drop: there is no label \"%.*s\" (header, footer, number, footnote, "
                           "image, table, ...)",
                           (int)(n < 40 ? n : 40), p);
        p += n;
        if (!*p)
            return 0;
    }
}

static int read_password(struct pm_read_options *o, struct pm_error *err)
{
    struct pm_buf text = {0};
    int rc = pm_fs_read(o->password_file, PASSWORD_FILE_BYTES, &text, err);
    if (!rc) {
        pm_buf_text(&text, "");
        o->password_read = pm_xstrndup((const char *)text.data, strcspn((const char *)text.data, "\r\n"));
        o->password = o->password_read;
    }
    pm_buf_free(&text);
    return rc;
}

static int check(struct pm_read_options *o, struct pm_error *err)
{
    struct pm_pages pages;
    int rc = 0;
    if (o->format)
        rc = pm_read_check_formats(o->format, err);
    if (!rc && o->pages && (rc = pm_pages_parse(o->pages, &pages, err)))
        pm_fail_prefix(err, "--pages");
    if (!rc && o->drop && *o->drop)
        rc = check_labels(o->drop, err);
    if (!rc && o->whole && strcmp(o->whole, "text") != 0 && strcmp(o->whole, "table") != 0 &&
        strcmp(o->whole, "formula") != 0)
        rc = pm_fail(err, PM_EINVAL, "--whole is text, table or formula, not \"%.40s\"", o->whole);
    if (!rc && o->password && o->password_file)
        rc = pm_fail(err, PM_EINVAL, "--password and --password-file exclude each other");
    if (!rc && o->no_save && o->out)
        rc = pm_fail(err, PM_EINVAL, "--no-save and --output exclude each other");
    if (!rc && o->out && !*o->out)
        rc = pm_fail(err, PM_EINVAL, "--output wants the name of a folder");
    return rc;
}

int pm_read_prepare(const struct pm_command *command, struct pm_read_options *o,
                    const struct pm_arguments *arguments, struct pm_batch_config *config,
                    struct pm_intake *intake)
{
    struct pm_error err = {0};
    int rc = check(o, &err);
    if (!rc && !arguments->count && !o->files_from)
        rc = pm_fail(&err, PM_EINVAL,
                     "nothing to read: name files or folders, \"-\" for standard input, or --files-from");
    if (rc) {
        pm_cli_error("%s: %s", command->name, err.text);
        return PM_EXIT_USAGE;
    }
    bool saves = !o->no_save && (o->out || !o->to_stdout);
    config->out_dir = saves ? (o->out ? o->out : "output") : NULL;
    if (config->out_dir)
        pm_intake_skip(intake, config->out_dir);
    if (o->password_file)
        rc = read_password(o, &err);
    for (size_t i = 0; i < arguments->count && !rc; i++)
        rc = pm_intake_add(intake, arguments->items[i], &err);
    if (!rc && o->files_from)
        rc = pm_intake_add_list(intake, o->files_from, &err);
    if (rc) {
        pm_cli_error("%s: %s", command->name, err.text);
        return rc == PM_EINVAL ? PM_EXIT_USAGE : PM_EXIT_FAILED;
    }
    config->submit = (struct pagemill_submit_options)PAGEMILL_SUBMIT_OPTIONS_INIT;
    config->submit.pages = o->pages;
    config->submit.password = o->password;
    config->submit.reader = o->reader;
    config->submit.formats = o->format ? o->format : o->to_stdout ? "md" : "md,json";
    if (saves && !o->format)
        config->submit.formats = "md,json";
    config->submit.drop = o->drop;
    config->submit.dpi = o->dpi;
    config->submit.no_orientation = o->no_orientation;
    config->submit.no_deskew = o->no_deskew;
    config->submit.no_images = o->no_images;
    config->submit.whole = o->whole;
    config->submit.max_tokens = o->max_tokens;
    config->submit.temperature = o->temperature;
    config->submit.repetition_penalty = o->repetition_penalty;
    config->submit.seed = o->seed;
    config->submit.region_timeout_s = o->region_timeout_s;
    config->submit.deadline_s = o->deadline_s;
    config->to_stdout = o->to_stdout;
    config->is_quiet = o->is_quiet;
    config->timeout_s = o->timeout_s;
    return -1;
}

void pm_read_free(struct pm_read_options *o)
{
    free(o->password_read);
    o->password_read = NULL;
}

bool pm_read_is_hopeless(struct pm_intake *intake)
{
    for (size_t i = 0; i < intake->count; i++)
        if (!intake->items[i].error && (!intake->items[i].path || pm_fs_is_file(intake->items[i].path)))
            return false;
    for (size_t i = 0; i < intake->count; i++) {
        struct pm_error err;
        const struct pm_input *input = &intake->items[i];
        if (input->error)
            pm_cli_error("%s: %s", input->path, input->error);
        else if (pm_fs_is_dir(input->path))
            pm_cli_error("%s: is a folder", input->path);
        else {
            struct pm_buf none = {0};
            (void)pm_fs_read(input->path, 0, &none, &err);
            pm_cli_error("%s: %s", input->path, err.text);
            pm_buf_free(&none);
        }
    }
    if (!intake->count)
        pm_cli_error("nothing to read: the list is empty");
    return true;
}
