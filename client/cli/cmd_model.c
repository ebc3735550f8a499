/* pagemill model: weights and models. One function a verb (cmd_model.h). */
#include "client/cli/cmd_model.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"

#define AT(field) offsetof(struct pm_model_settings, field)
static const struct pm_option options[] = {
    {"name", 'n', PM_OPTION_TEXT, "NAME", "add, pack: the name of the reader. Default: that of the source.",
     AT(name), 0, 0},
    {"precision", 'p', PM_OPTION_TEXT, "WORD",
     "add, pack: what the model computes in: bf16 (the default), int8 or int4 (smaller and faster, a little "
     "less "
     "exact), or f32, the reference, of twice the size.",
     AT(precision), 0, 0},
    {"replace", 0, PM_OPTION_FLAG, NULL, "add: put the model in the place of the one that has the name.",
     AT(replaces), 0, 0},
    {"output", 'o', PM_OPTION_TEXT, "OUT", "pack: the model folder to make.", AT(out), 0, 0},
    {"json", 0, PM_OPTION_FLAG, NULL, "list, show, bench: as JSON.", AT(is_json), 0, 0},
    {"threads", 't', PM_OPTION_UINT, "N", "bench: compute threads. Default: the cores of the machine.",
     AT(threads), 1, 1024},
    {"crop", 0, PM_OPTION_TEXT, "WIDTHxHEIGHT",
     "bench: the picture that is read. Default: 1120x448, a paragraph; of line readers a line.", AT(crop), 0,
     0},
    {"models", 0, PM_OPTION_TEXT, "DIR[:DIR...]",
     "The folders of models; add and remove work on the first. Default: your own ($PAGEMILL_MODELS, else "
     "$XDG_DATA_HOME/pagemill/models, else ~/.local/share/pagemill/models), then /var/lib/pagemill/models, "
     "where "
     "root's are, then those that came with the program.",
     AT(models), 0, 0},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int usage(const char *text)
{
    pm_cli_error("model: usage: pagemill model %s", text);
    return PM_EXIT_USAGE;
}

static int each(const struct pm_model_settings *s, const struct pm_arguments *arguments,
                int (*act)(const struct pm_model_settings *s, const char *what))
{
    int code = PM_EXIT_OK;
    for (size_t i = 1; i < arguments->count; i++) {
        int one = act(s, arguments->items[i]);
        code = one ? one : code;
    }
    return code;
}

static int run_verb(const struct pm_model_settings *s, const struct pm_arguments *arguments)
{
    static const char *const verbs[] = {"add", "list", "show", "verify", "remove", "pack", "bench", NULL};
    const char *verb = arguments->items[0];
    size_t count = arguments->count - 1;
    if (!strcmp(verb, "add"))
        return count == 1 ? pm_cli_model_add(s, arguments->items[1])
                          : usage("add PATH [--name NAME] [--precision WORD] [--replace]");
    if (!strcmp(verb, "pack"))
        return count == 1 && s->out ? pm_cli_model_pack(s, arguments->items[1]) : usage("pack SRC -o OUT");
    if (!strcmp(verb, "list"))
        return count ? usage("list [--json]") : pm_cli_model_list(s);
    if (!strcmp(verb, "show"))
        return count ? each(s, arguments, pm_cli_model_show) : usage("show NAME... [--json]");
    if (!strcmp(verb, "remove"))
        return count ? each(s, arguments, pm_cli_model_remove) : usage("remove NAME...");
    if (!strcmp(verb, "verify"))
        return count ? each(s, arguments, pm_cli_model_verify) : pm_cli_model_verify(s, NULL);
    if (!strcmp(verb, "bench"))
        return count ? each(s, arguments, pm_cli_model_bench)
                     : usage("bench NAME... [--threads N] [--crop WxH]");
    const char *near = pm_options_nearest(verb, verbs);
    pm_cli_error("model: there is no verb \"%s\"%s%s%s; the verbs are add, list, show, verify, remove, "
                 "pack and bench",
                 verb, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return PM_EXIT_USAGE;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct pm_model_settings s = {0};
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
         .arguments = "VERB [PATH|NAME]...",
         .summary = "add, list, show, check and remove models",
         .about =
             " add PATH [--name NAME] [--precision WORD] [--replace]\n"
             " list [--json]\n"
             " show NAME... [--json]\n"
             " verify [NAME|PATH]...\n"
             " remove NAME...\n"
             " pack SRC -o OUT\n"
             " bench NAME... [--threads N] [--crop WIDTHxHEIGHT]\n"
             "\n"
             "add makes a reader of published weights: a folder of safetensors (one file or shards), an MLX "
             "folder, a GGUF file with its mmproj beside it, or one such file. Everything is checked, the "
             "weights are written once more in the layout that is mapped, not loaded, and the source is not "
             "needed any more. LoRA adapters must be merged into their model first. `pagemill parse --reader "
             "NAME` reads with it.\n"
             "\n"
             "list shows the models that are there: the name for --reader, the family that runs it, whether "
             "it reads lines or blocks, its size, and its folder.\n"
             "\n"
             "show tells what is known of a model: sizes, parameters, precision, tasks and prompts, where it "
             "came from, licence.\n"
             "\n"
             "verify compares packed weight files with their checksums: those of the named models, files and "
             "folders, or of all models; and that a model folder holds what its family needs.\n"
             "\n"
             "remove deletes a model that was added. It refuses those that came with the program, and one "
             "that a process is reading with.\n"
             "\n"
             "pack does what add does, into a folder of your choice.\n"
             "\n"
             "bench tells how fast this machine reads with a model that writes token by token: the picture, "
             "the "
             "prompt, the text of one region and of eight at once, beside how fast it reads memory, which "
             "bounds the text of a single region. Nothing else should run meanwhile.\n",
         .more =
             "EXIT STATUS\n 0    all is well\n 1    a model is missing, damaged or refused\n 2    wrong "
             "usage\n"
             "\fENVIRONMENT\nPAGEMILL_MODELS is the folder of your own models (or several, separated by "
             "':'; add works on the first).\n"
             "\fEXAMPLES\n pagemill model add ~/Downloads/GLM-OCR --name glm-ocr\n"
             " pagemill model add glm-ocr-Q4_K_M.gguf\n pagemill parse scan.pdf --reader glm-ocr -o out/\n",
         .tables = tables,
         .least = 1,
         .most = UINT32_MAX},
};
