/* pagemill model: weights and models. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/cli.h"
#include "client/cli/locate.h"
#include "engine/manifest.h"
#include "engine/pack.h"
#include "engine/pack_build.h"

struct settings {
    const char *out, *models;
};
static const struct pm_option options[] = {
    {"output", 'o', PM_OPTION_TEXT, "OUT", "pack: the model folder to make.", offsetof(struct settings, out),
     0, 0},
    {"models", 0, PM_OPTION_TEXT, "DIR",
     "The folder of models. Default: $PAGEMILL_MODELS, else the installed ones.",
     offsetof(struct settings, models), 0, 0},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int list(const char *models_dir)
{
    struct pm_error err;
    size_t count;
    char **dirs;
    int code = PM_EXIT_OK;
    if (pm_model_list(models_dir, &dirs, &count, &err)) {
        pm_cli_error("%s", err.text);
        return PM_EXIT_FAILED;
    }
    for (size_t i = 0; i < count; i++) {
        struct pm_model_manifest manifest;
        if (pm_model_manifest_read(dirs[i], &manifest, &err)) {
            pm_cli_error("%s", err.text);
            code = PM_EXIT_FAILED;
        } else {
            printf("%-12s %-10s %-6s %s\n", manifest.name, manifest.family,
                   manifest.region_kind == PM_REGION_LINE ? "lines" : "blocks", dirs[i]);
            pm_model_manifest_free(&manifest);
        }
        free(dirs[i]);
    }
    if (!count)
        pm_cli_error("there are no models in %s", models_dir);
    free(dirs);
    return code;
}

static bool is_packed(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && !strcmp(name + n - 4, ".pmw");
}

static int verify_file(const char *path)
{
    struct pm_error err;
    int rc = pm_pack_verify(path, &err);
    if (rc)
        pm_cli_error("%s", err.text);
    else
        printf("%s: ok\n", path);
    return rc ? PM_EXIT_FAILED : PM_EXIT_OK;
}

/* A file, or all packed files of a folder. */
static int verify(const char *path)
{
    struct dirent **entries = NULL;
    int code = PM_EXIT_OK, found = 0;
    if (!pm_fs_is_dir(path))
        return verify_file(path);
    int n = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *file = pm_fs_join(path, entries[i]->d_name);
        if (is_packed(entries[i]->d_name)) {
            found++;
            if (verify_file(file))
                code = PM_EXIT_FAILED;
        } else if (entries[i]->d_name[0] != '.' && pm_fs_is_dir(file)) {
            int below = verify(file);
            code = below ? below : code;
            found++;
        }
        free(file);
        free(entries[i]);
    }
    free(entries);
    if (!found) {
        pm_cli_error("%s: no packed weights here", path);
        code = PM_EXIT_FAILED;
    }
    return code;
}

static int pack(const char *source, const char *out)
{
    struct pm_error err;
    int rc = pm_pack_build(source, out, NULL, &err);
    if (rc)
        pm_cli_error("%s", err.text);
    return rc ? PM_EXIT_FAILED : PM_EXIT_OK;
}

static int run_verb(const struct settings *s, const struct pm_arguments *arguments)
{
    const char *verb = arguments->items[0];
    size_t paths = arguments->count - 1;
    char *models = NULL;
    struct pm_error err;
    if (!strcmp(verb, "pack")) {
        if (paths == 1 && s->out)
            return pack(arguments->items[1], s->out);
        pm_cli_error("model: usage: pagemill model pack SRC -o OUT");
        return PM_EXIT_USAGE;
    }
    bool is_list = !strcmp(verb, "list"), is_verify = !strcmp(verb, "verify");
    if ((!is_list && !is_verify) || (is_list && paths)) {
        pm_cli_error(
            "model: the verbs are list, verify [PATH...] and pack SRC -o OUT; see pagemill model --help");
        return PM_EXIT_USAGE;
    }
    int code = PM_EXIT_OK;
    for (size_t i = 1; i <= paths; i++)
        if (verify(arguments->items[i]))
            code = PM_EXIT_FAILED;
    if (paths)
        return code;
    if (pm_locate_models(s->models, &models, &err)) {
        pm_cli_error("%s", err.text);
        return PM_EXIT_FAILED;
    }
    code = is_list ? list(models) : verify(models);
    free(models);
    return code;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    struct pm_arguments arguments;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0)
        code = run_verb(&s, &arguments);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_model = {
    .name = "model",
    .run = run,
    .usage =
        {.name = "pagemill model",
         .arguments = "list | verify [PATH...] | pack SRC",
         .summary = "list, check and pack models",
         .about =
             "list shows the models that are installed: the name for --reader, the family that runs it, and "
             "whether it "
             "reads lines or blocks.\n"
             "\n"
             "verify compares packed weight files with their checksums: the named files and folders, or all "
             "models.\n"
             "\n"
             "pack turns a folder of safetensors weights into a model folder whose weights are mapped, not "
             "loaded.\n",
         .more = "EXIT STATUS\n 0    all is well\n 1    a model is missing or damaged\n 2    wrong usage\n",
         .tables = tables,
         .least = 1,
         .most = UINT32_MAX},
};
