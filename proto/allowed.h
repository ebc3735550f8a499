/* Who may connect over tcp: the allow-list of keys, STATE/keys/allowed. One key a line:
 *
 *     # comment
 *     NAME  ROLES          KEY
 *     laptop  submit,watch  rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7
 *
 * NAME as in proto/key.h, ROLES a comma-separated list of submit, work, watch, admin, KEY the public key in
 * Z85. Blank lines are skipped. A name or a key that comes twice, another number of words, an unknown role, a
 * malformed key or a file over its limits is an error that names the line: a list that is half understood
 * lets in the wrong ones.
 *
 * Ownership: pm_allowed_free releases what was read. Threads: pure functions. Errors: PM_EINVAL with file and
 * line, PM_ELIMIT, and those of reading. */
#ifndef PM_PROTO_ALLOWED_H
#define PM_PROTO_ALLOWED_H

#include "proto/key.h"

#define PM_ALLOWED_MOST  1024u
#define PM_ALLOWED_BYTES (1u << 20)
#define PM_KEYS_DIR      "keys" /* below the state folder: "allowed", "server.key" */

enum {
    PM_RIGHT_SUBMIT = 1, /* give work, and see, fetch, cancel and retry one's own */
    PM_RIGHT_WORK = 2,   /* be a service */
    PM_RIGHT_WATCH = 4,  /* see the fleet and everybody's jobs, not what is in them */
    PM_RIGHT_ADMIN = 8,  /* everything */
    PM_RIGHTS_ALL = 15,
};
#define PM_RIGHTS_TEXT 32

struct pm_allowed_key {
    char name[PM_KEY_NAME_MAX + 1];
    uint8_t key[PM_KEY_BYTES];
    unsigned rights;
};
struct pm_allowed { /* zero-initialise */
    struct pm_allowed_key *keys;
    size_t count, capacity;
};

int pm_rights_parse(const char *list, unsigned *out, struct pm_error *err);
const char *pm_rights_text(unsigned rights, char out[PM_RIGHTS_TEXT]); /* "submit,watch" */

/* `file` is for messages. On an error *out is empty. */
int pm_allowed_parse(const char *file, const void *text, size_t bytes, struct pm_allowed *out,
                     struct pm_error *err);
/* A file that is not there is an empty list. One that others may write is PM_EDENIED. */
int pm_allowed_read(const char *path, struct pm_allowed *out, struct pm_error *err);
int pm_allowed_write(const char *path, const struct pm_allowed *list, struct pm_error *err);
void pm_allowed_free(struct pm_allowed *list);

/* NULL when absent. Keys are compared in constant time, all of them. */
const struct pm_allowed_key *pm_allowed_find(const struct pm_allowed *list, const uint8_t key[PM_KEY_BYTES]);
const struct pm_allowed_key *pm_allowed_named(const struct pm_allowed *list, const char *name);
/* PM_EINVAL when the name or the key is there already. */
int pm_allowed_add(struct pm_allowed *list, const char *name, unsigned rights,
                   const uint8_t key[PM_KEY_BYTES], struct pm_error *err);
/* By name or key; false when neither is there. */
bool pm_allowed_remove(struct pm_allowed *list, const char *name_or_key);

#endif
