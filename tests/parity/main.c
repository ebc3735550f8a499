/* parity KIND PATH...: runs golden cases, a line a case, and closes with "N passed, N failed". */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "tests/parity/golden.h"
#include "tests/parity/parity.h"

static const struct parity_kind *const kinds[] = {&parity_ppocr, &parity_engine, &parity_preprocess,
                                                  &parity_tokenizer};
enum { KIND_COUNT = sizeof kinds / sizeof kinds[0] };

static const char usage[] =
    "usage: parity KIND PATH... [--pages DIR] [--model DIR]\n"
    "\n"
    "Runs the golden cases in each PATH, a folder or one NAME.jsonl, through this build.\n"
    "KIND engine takes case folders, or a folder of them; each brings its model, or --model DIR does.\n"
    "A line a case: verdict, the largest error and its limit. The last line is \"N passed, N failed\".\n"
    "\n"
    "  --pages DIR  page pictures that cases name (default: PATH/../../pages/dev, then PATH/pages)\n"
    "  --model DIR  model folder (default: the one of the source tree, or beside the program)\n"
    "\n"
    "Exit codes: 0 all passed, 1 some failed, 2 wrong usage or a PATH without cases.\n";

/* ---- verdicts ---- */

void parity_report(struct parity_verdict *v, const char *what, double error, double limit)
{
    bool is_bad = !(error <= limit);
    double share = isnan(error) ? INFINITY : limit > 0 ? error / limit : is_bad ? INFINITY : 0;
    double worst = v->limit > 0 ? v->error / v->limit : v->what[0] ? (v->error > 0 ? INFINITY : 0) : -1;
    if (share > worst) {
        v->error = error;
        v->limit = limit;
        snprintf(v->what, sizeof v->what, "%s", what);
    }
    v->failed |= is_bad;
}

void parity_fail(struct parity_verdict *v, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(v->note, sizeof v->note, format, args);
    va_end(args);
    v->failed = true;
}

void parity_note(struct parity_verdict *v, const char *format, ...)
{
    if (v->failed)
        return; /* the first failure says more */
    va_list args;
    va_start(args, format);
    vsnprintf(v->note, sizeof v->note, format, args);
    va_end(args);
}

static void print_failure(struct parity_counts *counts, const char *check, const char *name, const char *why)
{
    counts->failed++;
    printf("FAIL  %-14s %-20s %s\n", check, name, why);
}

void parity_print(struct parity_counts *counts, const char *check, const char *name, int rc,
                  const struct parity_verdict *verdict, const struct pm_error *err)
{
    if (rc) {
        print_failure(counts, check, name, err->text);
        return;
    }
    struct parity_verdict v = *verdict;
    if (!v.what[0] && !v.failed)
        parity_fail(&v, "the check compared nothing");
    counts->passed += !v.failed;
    counts->failed += v.failed;
    printf("%s  %-14s %-20s", v.failed ? "FAIL" : "pass", check, name);
    if (v.what[0])
        printf(" %s %.3g (limit %.3g)", v.what, v.error, v.limit);
    printf("%s%s\n", v.note[0] ? "  " : "", v.note);
    fflush(stdout);
}

static void run_case(const struct parity_check *check, const struct parity_case *c,
                     struct parity_counts *counts)
{
    struct parity_verdict v = {0};
    struct pm_error err = {0};
    int rc = check->run(c, &v, &err);
    parity_print(counts, check->name, c->name, rc, &v, &err);
}

/* ---- files and folders ---- */

static void run_file(struct parity_run *run, const struct parity_check *check, const char *path,
                     struct parity_counts *counts)
{
    struct parity_file *file;
    struct pm_error err = {0};
    if (parity_file_open(run, path, check->needs_tensors, &file, &err)) {
        print_failure(counts, check->name, "-", err.text);
        return;
    }
    struct parity_case c;
    int cases = 0, rc;
    while ((rc = parity_file_next(file, &c, &err)) != PM_ENOTFOUND) {
        cases++;
        if (rc)
            print_failure(counts, check->name, c.name, err.text);
        else
            run_case(check, &c, counts);
    }
    if (cases == 0)
        print_failure(counts, check->name, "-", "the file holds no case");
    parity_file_close(&file);
}

static const struct parity_check *find_check(const struct parity_kind *kind, const char *name, size_t length)
{
    for (size_t i = 0; i < kind->check_count; i++)
        if (strlen(kind->checks[i].name) == length && memcmp(kind->checks[i].name, name, length) == 0)
            return &kind->checks[i];
    return NULL;
}

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

/* Files that no check owns count as failures: a case that nobody runs must not look like one that passed. */
static void report_strangers(const struct parity_kind *kind, const char *folder, struct parity_counts *counts)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        const char *name = entry->d_name;
        bool is_list = ends_with(name, ".jsonl"), is_tensors = ends_with(name, ".safetensors");
        if (!is_list && !is_tensors)
            continue;
        const char *dot = strrchr(name, '.');
        const struct parity_check *check = find_check(kind, name, (size_t)(dot - name));
        if (!check) {
            print_failure(counts, name, "-", "no check of this kind has that name");
        } else if (is_tensors) {
            char *list = pm_xprintf("%s/%s.jsonl", folder, check->name);
            if (!pm_fs_is_file(list))
                print_failure(counts, check->name, "-", "tensors without a .jsonl file");
            free(list);
        }
    }
    closedir(dir);
}

/* Number of golden files run; 0 is a usage error. */
static int run_path(struct parity_run *run, const struct parity_kind *kind, const char *path,
                    struct parity_counts *counts)
{
    if (kind->run_path)
        return kind->run_path(path, counts);
    if (kind->run_model_path)
        return kind->run_model_path(path, run->model_dir, counts);
    if (pm_fs_is_dir(path)) {
        int files = 0;
        for (size_t i = 0; i < kind->check_count; i++) {
            char *list = pm_xprintf("%s/%s.jsonl", path, kind->checks[i].name);
            if (pm_fs_is_file(list)) {
                files++;
                run_file(run, &kind->checks[i], list, counts);
            }
            free(list);
        }
        if (files > 0)
            report_strangers(kind, path, counts);
        return files;
    }
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const struct parity_check *check = NULL;
    if (ends_with(name, ".jsonl"))
        check = find_check(kind, name, strlen(name) - strlen(".jsonl"));
    if (!check || !pm_fs_is_file(path))
        return 0;
    run_file(run, check, path, counts);
    return 1;
}

/* ---- arguments ---- */

/* The kind's model in the source tree that this was built from, or above or beside the program. */
static char *default_model(const struct parity_kind *kind)
{
    char *candidate = pm_xprintf("%s/%s", PM_SOURCE_DIR, kind->default_model);
    if (pm_fs_is_dir(candidate))
        return candidate;
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = 0;
    for (int level = 0; level < 3; level++) {
        char *slash = strrchr(program, '/');
        if (!slash)
            break;
        *slash = 0;
        char *other = pm_xprintf("%s/%s", program, kind->default_model);
        if (pm_fs_is_dir(other)) {
            free(candidate);
            return other;
        }
        free(other);
    }
    return candidate; /* checks that need it say what is missing */
}

static int fail_usage(const char *problem, const char *what)
{
    fprintf(stderr, "parity: %s%s\n\n%s", problem, what, usage);
    return 2;
}

int main(int argc, char **argv)
{
    const struct parity_kind *kind = NULL;
    const char **paths = pm_xalloc((size_t)argc * sizeof *paths);
    int path_count = 0, status = 2;
    struct parity_run run = {0};
    char *model = NULL;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            fputs(usage, stdout);
            free(paths);
            return 0;
        }
        bool is_pages = strcmp(arg, "--pages") == 0;
        if (is_pages || strcmp(arg, "--model") == 0) {
            if (i + 1 == argc) {
                status = fail_usage("a folder is missing after ", arg);
                goto done;
            }
            *(is_pages ? &run.pages_dir : &run.model_dir) = argv[++i];
        } else if (arg[0] == '-') {
            status = fail_usage("unknown option ", arg);
            goto done;
        } else if (!kind) {
            for (int k = 0; k < KIND_COUNT; k++)
                if (strcmp(kinds[k]->name, arg) == 0)
                    kind = kinds[k];
            if (!kind) {
                status = fail_usage("no such kind: ", arg);
                goto done;
            }
        } else {
            paths[path_count++] = arg;
        }
    }
    if (!kind || path_count == 0) {
        status = fail_usage(kind ? "no PATH given" : "no KIND given", "");
        goto done;
    }
    if (!run.model_dir && kind->default_model)
        run.model_dir = model = default_model(kind);
    struct parity_counts counts = {0};
    bool all_found = true;
    for (int i = 0; i < path_count; i++) {
        if (run_path(&run, kind, paths[i], &counts) == 0) {
            fprintf(stderr, "parity: %s: no golden cases of kind %s there\n", paths[i], kind->name);
            all_found = false;
        }
    }
    if (kind->close)
        kind->close(run.state);
    parity_run_close(&run);
    printf("%d passed, %d failed\n", counts.passed, counts.failed);
    status = !all_found ? 2 : counts.failed > 0;
done:
    free(model);
    free(paths);
    return status;
}
