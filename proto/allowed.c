#include "proto/allowed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"

static const struct {
    const char *name;
    unsigned right;
} rights_by_name[] = {{"submit", PM_RIGHT_SUBMIT},
                      {"work", PM_RIGHT_WORK},
                      {"watch", PM_RIGHT_WATCH},
                      {"admin", PM_RIGHT_ADMIN}};
#define RIGHTS (sizeof rights_by_name / sizeof rights_by_name[0])

int pm_rights_parse(const char *list, unsigned *out, struct pm_error *err)
{
    *out = 0;
    for (const char *at = list;;) {
        size_t size = strcspn(at, ","), i = 0;
        while (i < RIGHTS &&
               (strlen(rights_by_name[i].name) != size || strncmp(rights_by_name[i].name, at, size) != 0))
            i++;
        if (i == RIGHTS)
            return pm_fail(err, PM_EINVAL, "\"%.80s\" is not a list of roles: submit, work, watch, admin",
                           list);
        *out |= rights_by_name[i].right;
        if (!at[size])
            return 0;
        at += size + 1;
    }
}

const char *pm_rights_text(unsigned rights, char out[PM_RIGHTS_TEXT])
{
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < RIGHTS; i++) {
        if (!(rights & rights_by_name[i].right))
            continue;
        size_t size = strlen(rights_by_name[i].name);
        if (used)
            out[used++] = ',';
        memcpy(out + used, rights_by_name[i].name, size + 1);
        used += size;
    }
    return out;
}

const struct pm_allowed_key *pm_allowed_find(const struct pm_allowed *list, const uint8_t key[PM_KEY_BYTES])
{
    const struct pm_allowed_key *found = NULL;
    for (size_t i = 0; i < list->count; i++)
        if (pm_key_is_same(list->keys[i].key, key))
            found = &list->keys[i];
    return found;
}

const struct pm_allowed_key *pm_allowed_named(const struct pm_allowed *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->keys[i].name, name))
            return &list->keys[i];
    return NULL;
}

int pm_allowed_add(struct pm_allowed *list, const char *name, unsigned rights,
                   const uint8_t key[PM_KEY_BYTES], struct pm_error *err)
{
    if (!pm_key_is_name(name))
        return pm_fail(err, PM_EINVAL,
                       "\"%.80s\" is not a key's name: 1 to %d letters, digits, or - _ . @ inside", name,
                       PM_KEY_NAME_MAX);
    if (!rights || rights & ~(unsigned)PM_RIGHTS_ALL)
        return pm_fail(err, PM_EINVAL, "a key needs a role: submit, work, watch, admin");
    if (pm_allowed_named(list, name))
        return pm_fail(err, PM_EINVAL, "the name %s is in the list already", name);
    const struct pm_allowed_key *same = pm_allowed_find(list, key);
    if (same)
        return pm_fail(err, PM_EINVAL, "this key is in the list already, as %s", same->name);
    if (list->count >= PM_ALLOWED_MOST)
        return pm_fail(err, PM_ELIMIT, "the list holds %u keys, which is the limit", PM_ALLOWED_MOST);
    PM_GROW(list->keys, list->count, list->capacity);
    struct pm_allowed_key *k = &list->keys[list->count++];
    *k = (struct pm_allowed_key){.rights = rights};
    memcpy(k->name, name, strlen(name) + 1);
    memcpy(k->key, key, PM_KEY_BYTES);
    return 0;
}

bool pm_allowed_remove(struct pm_allowed *list, const char *name_or_key)
{
    uint8_t key[PM_KEY_BYTES];
    const struct pm_allowed_key *found = pm_allowed_named(list, name_or_key);
    if (!found && pm_key_parse_text(name_or_key, key))
        found = pm_allowed_find(list, key);
    if (!found)
        return false;
    size_t i = (size_t)(found - list->keys);
    memmove(&list->keys[i], &list->keys[i + 1], (list->count - i - 1) * sizeof *list->keys);
    list->count--;
    return true;
}

void pm_allowed_free(struct pm_allowed *list)
{
    free(list->keys);
    *list = (struct pm_allowed){0};
}

/* ---- the file ---- */

#define WORDS     3
#define LINE_MOST 256

/* Cuts a line into its words; how many there are, at most WORDS + 1. */
static size_t split(char *line, char *words[WORDS + 1])
{
    size_t count = 0;
    char *rest = line, *word;
    while (count <= WORDS && (word = strsep(&rest, " \t")))
        if (*word)
            words[count++] = word;
    return count;
}

static int take_line(char *line, struct pm_allowed *out, struct pm_error *err)
{
    char *words[WORDS + 1];
    uint8_t key[PM_KEY_BYTES];
    unsigned rights;
    if (line[strspn(line, " \t")] == '#')
        return 0;
    size_t count = split(line, words);
    if (!count)
        return 0;
    if (count != WORDS)
        return pm_fail(err, PM_EINVAL, "a line is NAME ROLES KEY");
    int rc = pm_rights_parse(words[1], &rights, err);
    if (!rc && !pm_key_parse_text(words[2], key))
        rc = pm_fail(err, PM_EINVAL, "\"%.60s\" is not a public key: %d characters of Z85", words[2],
                     PM_KEY_CHARS);
    return rc ? rc : pm_allowed_add(out, words[0], rights, key, err);
}

int pm_allowed_parse(const char *file, const void *text, size_t bytes, struct pm_allowed *out,
                     struct pm_error *err)
{
    const char *at = text, *end = bytes ? at + bytes : at;
    char line[LINE_MOST];
    unsigned number = 0;
    int rc = 0;
    *out = (struct pm_allowed){0};
    if (bytes > PM_ALLOWED_BYTES)
        return pm_fail(err, PM_ELIMIT, "%s has %zu bytes, the limit is %u", file, bytes, PM_ALLOWED_BYTES);
    while (at < end && !rc) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((stop ? stop : end) - at);
        number++;
        if (size >= sizeof line || memchr(at, 0, size)) {
            rc = pm_fail(err, PM_EINVAL, "a line is NAME ROLES KEY, at most %d bytes", LINE_MOST - 1);
        } else {
            memcpy(line, at, size);
            line[size && line[size - 1] == '\r' ? size - 1 : size] = 0;
            rc = take_line(line, out, err);
        }
        at = stop ? stop + 1 : end;
    }
    if (!rc)
        return 0;
    pm_allowed_free(out);
    return pm_fail_prefix(err, "%s:%u", file, number);
}

int pm_allowed_read(const char *path, struct pm_allowed *out, struct pm_error *err)
{
    struct pm_buf text = {0};
    struct stat st;
    *out = (struct pm_allowed){0};
    if (stat(path, &st))
        return errno == ENOENT ? 0 : pm_fail_errno(err, "cannot look at %s", path);
    if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & 022))
        return pm_fail(err, PM_EDENIED,
                       "%s can be written by others (user %u, mode %o): chown and chmod 600 it, then look "
                       "whether its keys are yours",
                       path, (unsigned)st.st_uid, (unsigned)(st.st_mode & 0777));
    int rc = pm_fs_read(path, PM_ALLOWED_BYTES, &text, err);
    if (!rc)
        rc = pm_allowed_parse(path, text.data, text.size, out, err);
    pm_buf_free(&text);
    return rc;
}

int pm_allowed_write(const char *path, const struct pm_allowed *list, struct pm_error *err)
{
    struct pm_buf text = {0};
    char key[PM_KEY_CHARS + 1], rights[PM_RIGHTS_TEXT];
    pm_buf_printf(&text,
                  "# Keys that may connect over tcp: NAME ROLES KEY. `pagemill keys` writes this file; "
                  "the broker sees changes at once.\n");
    for (size_t i = 0; i < list->count; i++) {
        pm_key_text(list->keys[i].key, key);
        pm_buf_printf(&text, "%s %s %s\n", list->keys[i].name, pm_rights_text(list->keys[i].rights, rights),
                      key);
    }
    mode_t before = umask(077);
    int rc = pm_fs_write(path, text.data, text.size, true, err);
    umask(before);
    pm_buf_free(&text);
    return rc;
}
