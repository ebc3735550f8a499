/* mutants COUNT [FORMAT] [SEED]: valid files of each format, damaged COUNT times: bytes, lengths, numbers,
 * text. Every one of them must be read or be refused with a reason. Run it under sanitizers, with 2000 and
 * more.
 *
 * Another format is one row of `formats`. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "engine/weights/weights.h"
#include "tests/unit/weights/mutants.h"

static const char *const documents[] = {
    "config.json",    "generation_config.json", "preprocessor_config.json",
    "tokenizer.json", "tokenizer_config.json",  "chat_template.jinja"};

/* Opens a model folder, reads every tensor (whole, and its last row alone) and every document. */
static int try_weights(const char *folder, const struct files *files, struct pm_error *err)
{
    struct pm_weights *w;
    (void)files;
    int rc = pm_weights_open(folder, &w, err);
    if (rc)
        return rc;
    const struct pm_weights_tensor *t;
    for (size_t i = 0; (t = pm_weights_at(w, i)) && !rc; i++) {
        void *values;
        rc = pm_alloc_array((size_t)t->rows, (size_t)t->columns * sizeof(float), &values, err);
        if (rc)
            break;
        if (pm_weights_find(w, t->name) != t)
            abort();
        rc = pm_weights_read(w, t, 0, t->rows, values, err);
        if (!rc)
            rc = pm_weights_read(w, t, t->rows - 1, 1, values, err);
        free(values);
    }
    for (size_t i = 0; i < sizeof documents / sizeof *documents && !rc; i++) {
        const char *text;
        size_t bytes;
        rc = pm_weights_document(w, documents[i], &text, &bytes, err);
        if (!rc && text[bytes] != '\0')
            abort();
        if (rc == PM_ENOTFOUND)
            rc = 0;
    }
    pm_weights_close(&w);
    return rc;
}

static const struct mutant_format formats[] = {
    {"safetensors", model_safetensors, try_weights},
    {"shards", model_shards, try_weights},
    {"mlx", model_mlx, try_weights},
    {"gguf", model_gguf, try_weights},
    {"config", documents_config, try_config},
    {"tokenizer", documents_tokenizer, try_tokenizer},
    {"template", documents_template, try_template},
};

/* ---- damage ---- */

struct dice {
    uint64_t state;
};

/* splitmix64 */
static uint64_t roll(struct dice *d)
{
    uint64_t z = d->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t below(struct dice *d, size_t n)
{
    return n ? (size_t)(roll(d) % n) : 0;
}

/* A place: mostly in the first part, where the descriptions are. */
static size_t place(struct dice *d, const struct pm_buf *b)
{
    size_t head = b->size < 2048 ? b->size : 2048;
    return below(d, below(d, 4) ? head : b->size);
}

static void splice(struct pm_buf *b, size_t at, size_t cut, const void *data, size_t bytes)
{
    struct pm_buf out = {0};
    pm_buf_append(&out, b->data, at);
    pm_buf_append(&out, data, bytes);
    pm_buf_append(&out, b->data + at + cut, b->size - at - cut);
    pm_buf_free(b);
    *b = out;
}

/* A number in the text becomes another one. */
static void change_number(struct dice *d, struct pm_buf *b)
{
    static const char *const numbers[] = {
        "0",   "1",    "-1",    "4294967296",           "9223372036854775807", "1e30",
        "2.5", "null", "\"7\"", "18446744073709551616", "4611686018427387904", "[]",
        "{}",  "true", "7"};
    size_t at = place(d, b), end;
    while (at < b->size && (b->data[at] < '0' || b->data[at] > '9'))
        at++;
    for (end = at; end < b->size && b->data[end] >= '0' && b->data[end] <= '9';)
        end++;
    const char *number = numbers[below(d, sizeof numbers / sizeof *numbers)];
    splice(b, at, end - at, number, strlen(number));
}

static void damage_once(struct dice *d, struct pm_buf *b)
{
    static const uint64_t lengths[] = {
        0,          1,          2,          0xff,       0xffff,       0x7fffffff,        0x80000000,
        0xffffffff, 1ull << 32, 1ull << 40, 1ull << 62, ~(uint64_t)0, ~(uint64_t)0 >> 1, 33,
        7};
    size_t at = place(d, b);
    switch (below(d, 11)) {
    case 0: /* a bit */
        b->data[at] ^= (uint8_t)(1u << below(d, 8));
        break;
    case 1: /* a byte */
        b->data[at] = (uint8_t)roll(d);
        break;
    case 2: /* the end is missing */
        b->size = below(d, 2) ? at : b->size - below(d, b->size < 64 ? b->size : 64);
        break;
    case 3: { /* a length of four or eight bytes */
        uint64_t v = lengths[below(d, sizeof lengths / sizeof *lengths)];
        size_t n = below(d, 2) ? 4 : 8;
        if (b->size >= n)
            memcpy(b->data + below(d, (b->size < 2048 ? b->size : 2048) - n + 1), &v, n);
        break;
    }
    case 4: /* something more */
        splice(b, at, 0, b->data + place(d, b) / 2,
               below(d, 24) < b->size / 2 ? below(d, 24) % (b->size / 2 + 1) : 0);
        break;
    case 5: { /* something less */
        size_t n = 1 + below(d, 16);
        splice(b, at, n < b->size - at ? n : b->size - at, NULL, 0);
        break;
    }
    case 6: { /* one part over another */
        size_t from = place(d, b), n = 1 + below(d, 40), most = b->size - (from > at ? from : at);
        memmove(b->data + at, b->data + from, n < most ? n : most);
        break;
    }
    case 7:
    case 8: /* another digit, so that lengths and syntax stay */
        while (at < b->size && (b->data[at] < '0' || b->data[at] > '9'))
            at++;
        if (at < b->size)
            b->data[at] = (uint8_t)('0' + below(d, 10));
        break;
    default:
        change_number(d, b);
    }
}

static void damage(struct dice *d, struct files *files)
{
    int times = 1 + (int)below(d, 3);
    for (int i = 0; i < times; i++) {
        struct pm_buf *b = &files->file[below(d, (size_t)files->count)].bytes;
        if (b->size && (below(d, 2) || !mutate_json(b, roll(d))))
            damage_once(d, b);
    }
}

static void copy_files(const struct files *from, struct files *to)
{
    for (int i = 0; i < from->count; i++)
        pm_buf_append(files_add(to, from->file[i].name), from->file[i].bytes.data, from->file[i].bytes.size);
}

static bool is_same(const struct pm_buf *a, const struct pm_buf *b)
{
    return a->size == b->size && !memcmp(a->data, b->data, a->size);
}

/* Writes the damaged files, and those that were damaged the last time. */
static bool write_changed(const char *folder, const struct files *valid, const struct files *mutant,
                          bool *is_changed)
{
    bool is_good = true;
    for (int i = 0; i < valid->count && is_good; i++) {
        bool was_changed = is_changed[i];
        is_changed[i] = !is_same(&valid->file[i].bytes, &mutant->file[i].bytes);
        if (!is_changed[i] && !was_changed)
            continue;
        struct files one = {.count = 1};
        one.file[0] = mutant->file[i];
        is_good = files_write(&one, folder);
    }
    return is_good;
}

static int run(const struct mutant_format *format, const char *folder, long count, uint64_t seed)
{
    struct files valid = {0};
    struct pm_error err = {0};
    struct dice dice = {seed};
    bool is_changed[FILES_MAX] = {false};
    long refused = 0;
    int rc = 0;
    format->make(&valid);
    if (!files_write(&valid, folder) || format->try(folder, &valid, &err)) {
        fprintf(stderr, "%s: the undamaged files are refused: %s\n", format->name, err.text);
        rc = 1;
    }
    for (long i = 0; i < count && !rc; i++) {
        struct files mutant = {0};
        uint64_t state = dice.state;
        copy_files(&valid, &mutant);
        damage(&dice, &mutant);
        err = (struct pm_error){0};
        int answer = write_changed(folder, &valid, &mutant, is_changed) ? format->try(folder, &mutant, &err)
                                                                        : PM_EINTERNAL;
        if (answer && (answer == PM_EINTERNAL || !err.text[0] || err.code != answer)) {
            fprintf(stderr, "%s: mutant %ld (state %" PRIu64 "): %d without a reason: %s\n", format->name, i,
                    state, answer, err.text);
            rc = 1;
        }
        refused += answer != 0;
        if (getenv("PM_MUTANTS_SHOW"))
            printf("%s %ld: %s\n", format->name, i, answer ? err.text : "read");
        files_free(&mutant);
    }
    printf("%s: %ld mutants, %ld refused, %ld read\n", format->name, count, refused, count - refused);
    if (!rc && count >= 100 && refused < count / 5) {
        fprintf(stderr, "%s: the damage does not reach what is checked\n", format->name);
        rc = 1;
    }
    files_free(&valid);
    return rc;
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? strtol(argv[1], NULL, 10) : 200;
    const char *only = argc > 2 ? argv[2] : NULL;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    int rc = 0, found = 0;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (only && strcmp(only, formats[i].name))
            continue;
        char folder[] = "/tmp/pm-mutants-XXXXXX";
        if (!mkdtemp(folder)) {
            perror("mkdtemp");
            return 1;
        }
        rc |= run(&formats[i], folder, count, seed);
        pm_fs_remove_tree(folder, NULL);
        found++;
    }
    if (!found)
        fprintf(stderr, "mutants: there is no format %s\n", only);
    return rc || !found;
}
