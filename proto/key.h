/* Keys of connections between hosts (CURVE): what a key file holds, and a socket that uses it.
 *
 * A key file, made by `pagemill keys new NAME` with mode 0600:
 *
 *     # comment
 *     name NAME
 *     public Z85          40 characters
 *     secret Z85          missing in a file that is given to others
 *
 * Blank lines and lines that begin with # are skipped; any other word at the start of a line, a line twice,
 * a malformed key, or a secret that does not belong to the public key is an error that names the line.
 *
 * Ownership: everything is held by value; pm_key_forget wipes the secret. Threads: pure functions. Errors:
 * PM_EINVAL for what the writer of a file or an option should change, PM_EDENIED for a secret that others
 * may read. */
#ifndef PM_PROTO_KEY_H
#define PM_PROTO_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/mem.h"

#define PM_KEY_BYTES    32
#define PM_KEY_CHARS    40 /* Z85, without NUL */
#define PM_KEY_NAME_MAX 64

struct pm_key {
    char name[PM_KEY_NAME_MAX + 1];
    uint8_t open[PM_KEY_BYTES];   /* the public key */
    uint8_t secret[PM_KEY_BYTES]; /* meaningless unless has_secret */
    bool has_secret;
};

/* A key's name: 1 to 64 letters, digits, '-', '_', '.', '@', beginning with a letter or digit. */
bool pm_key_is_name(const char *name);
bool pm_key_is_same(const uint8_t a[PM_KEY_BYTES], const uint8_t b[PM_KEY_BYTES]); /* in constant time */
void pm_key_text(const uint8_t key[PM_KEY_BYTES], char out[PM_KEY_CHARS + 1]);
/* Z85 of exactly 40 characters; false for anything else. */
bool pm_key_parse_text(const char *text, uint8_t out[PM_KEY_BYTES]);

int pm_key_make(const char *name, struct pm_key *out, struct pm_error *err);
/* `file` is for messages. */
int pm_key_parse(const char *file, const void *text, size_t bytes, struct pm_key *out, struct pm_error *err);
void pm_key_print(const struct pm_key *key, bool with_secret, struct pm_buf *out);
/* A file with a secret must belong to its reader (or to root) and be closed to others. */
int pm_key_read(const char *path, struct pm_key *out, struct pm_error *err);
/* Refuses to replace a file. Mode 0600, synced. */
int pm_key_write(const char *path, const struct pm_key *key, struct pm_error *err);
/* A public key from an option: its 40 characters, or the path of a file that holds them, alone or as in a key
 * file. */
int pm_key_public_of(const char *text_or_path, uint8_t out[PM_KEY_BYTES], struct pm_error *err);
/* The broker's own: DIR/server.key, made when it is not there, DIR (0700) too. */
int pm_key_server(const char *dir, struct pm_key *out, struct pm_error *err);
void pm_key_forget(struct pm_key *key);

/* What a DEALER needs to reach a broker over tcp; NULL where not given. */
struct pm_key_options {
    const char *server_key; /* the broker's public key: 40 characters or a file */
    const char *key_file;   /* one's own */
};
/* Fills what is not given from $PAGEMILL_SERVER_KEY and $PAGEMILL_KEY. */
void pm_key_options_from_environment(struct pm_key_options *options);
/* Sets the keys of a socket that will connect to `endpoint`. Does nothing for ipc and inproc; tcp without
 * both keys is PM_EINVAL: nothing goes over a network unencrypted. */
int pm_key_secure_client(void *socket, const char *endpoint, const struct pm_key_options *options,
                         struct pm_error *err);
/* Makes a socket a CURVE server. Set ZAP_DOMAIN, too, and answer for every key. */
int pm_key_secure_server(void *socket, const struct pm_key *key, struct pm_error *err);

#endif
