#include "proto/key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>
#include <zmq.h>

#include "base/fs.h"

#define FILE_MOST  4096
#define CONNECT_MS 5000

bool pm_key_is_name(const char *name)
{
    size_t size = strlen(name);
    for (size_t i = 0; i < size; i++) {
        char c = name[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_plain && !(i && strchr("-_.@", c)))
            return false;
    }
    return size > 0 && size <= PM_KEY_NAME_MAX;
}

bool pm_key_is_same(const uint8_t a[PM_KEY_BYTES], const uint8_t b[PM_KEY_BYTES])
{
    return sodium_memcmp(a, b, PM_KEY_BYTES) == 0;
}

void pm_key_text(const uint8_t key[PM_KEY_BYTES], char out[PM_KEY_CHARS + 1])
{
    (void)zmq_z85_encode(out, key, PM_KEY_BYTES);
}

bool pm_key_parse_text(const char *text, uint8_t out[PM_KEY_BYTES])
{
    return strlen(text) == PM_KEY_CHARS && zmq_z85_decode(out, text);
}

int pm_key_make(const char *name, struct pm_key *out, struct pm_error *err)
{
    char open[PM_KEY_CHARS + 1], secret[PM_KEY_CHARS + 1];
    if (!pm_key_is_name(name))
        return pm_fail(err, PM_EINVAL,
                       "\"%.80s\" is not a key's name: 1 to %d letters, digits, or - _ . @ inside", name,
                       PM_KEY_NAME_MAX);
    *out = (struct pm_key){.has_secret = true};
    memcpy(out->name, name, strlen(name) + 1);
    if (zmq_curve_keypair(open, secret))
        return pm_fail(err, PM_EUNSUPPORTED, "this ZeroMQ was built without CURVE: install one with it");
    (void)zmq_z85_decode(out->open, open);
    (void)zmq_z85_decode(out->secret, secret);
    sodium_memzero(secret, sizeof secret);
    return 0;
}

void pm_key_forget(struct pm_key *key)
{
    sodium_memzero(key, sizeof *key);
}

/* ---- files ---- */

static bool has_word(const char *line, const char *word, const char **value_out)
{
    size_t size = strlen(word);
    if (strncmp(line, word, size) != 0 || (line[size] != ' ' && line[size] != '\t'))
        return false;
    *value_out = line + size + strspn(line + size, " \t");
    return true;
}

/* One line, without its end. */
static int take_line(const char *file, unsigned number, const char *line, unsigned *seen, struct pm_key *key,
                     struct pm_error *err)
{
    enum { NAME = 1, OPEN = 2, SECRET = 4 };
    const char *value = "";
    unsigned what = has_word(line, "name", &value)     ? NAME
                    : has_word(line, "public", &value) ? OPEN
                    : has_word(line, "secret", &value) ? SECRET
                                                       : 0;
    if (!*line || *line == '#')
        return 0;
    if (!what)
        return pm_fail(err, PM_EINVAL, "%s:%u: not a line of a key file: name, public or secret", file,
                       number);
    if (*seen & what)
        return pm_fail(err, PM_EINVAL, "%s:%u: this comes twice", file, number);
    *seen |= what;
    if (what == NAME) {
        if (!pm_key_is_name(value))
            return pm_fail(err, PM_EINVAL, "%s:%u: \"%.80s\" is not a key's name", file, number, value);
        memcpy(key->name, value, strlen(value) + 1);
    } else if (!pm_key_parse_text(value, what == OPEN ? key->open : key->secret)) {
        return pm_fail(err, PM_EINVAL, "%s:%u: a key has %d characters of Z85", file, number, PM_KEY_CHARS);
    }
    key->has_secret |= what == SECRET;
    return 0;
}

static int check_key(const char *file, unsigned seen, const struct pm_key *key, struct pm_error *err)
{
    uint8_t open[PM_KEY_BYTES];
    if (!(seen & 2))
        return pm_fail(err, PM_EINVAL, "%s: no line \"public KEY\"", file);
    if (key->has_secret && (crypto_scalarmult_base(open, key->secret) || !pm_key_is_same(open, key->open)))
        return pm_fail(err, PM_EINVAL, "%s: the secret does not belong to the public key", file);
    return 0;
}

int pm_key_parse(const char *file, const void *text, size_t bytes, struct pm_key *out, struct pm_error *err)
{
    const char *at = text, *end = at + bytes;
    unsigned seen = 0, number = 0;
    char line[256];
    int rc = 0;
    *out = (struct pm_key){.has_secret = false};
    while (at < end && !rc) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((stop ? stop : end) - at);
        number++;
        if (size && at[size - 1] == '\r')
            size--;
        if (size >= sizeof line || memchr(at, 0, size)) {
            rc = pm_fail(err, PM_EINVAL, "%s:%u: not a line of a key file", file, number);
        } else {
            memcpy(line, at, size);
            line[size] = 0;
            rc = take_line(file, number, line, &seen, out, err);
        }
        at = stop ? stop + 1 : end;
    }
    sodium_memzero(line, sizeof line);
    if (!rc)
        rc = check_key(file, seen, out, err);
    if (rc)
        pm_key_forget(out);
    return rc;
}

void pm_key_print(const struct pm_key *key, bool with_secret, struct pm_buf *out)
{
    char text[PM_KEY_CHARS + 1];
    if (with_secret)
        pm_buf_printf(out, "# A key of Pagemill. Keep this file: who can read it can use it.\n");
    if (*key->name)
        pm_buf_printf(out, "name %s\n", key->name);
    pm_key_text(key->open, text);
    pm_buf_printf(out, "public %s\n", text);
    if (!with_secret || !key->has_secret)
        return;
    pm_key_text(key->secret, text);
    pm_buf_printf(out, "secret %s\n", text);
    sodium_memzero(text, sizeof text);
}

static void wipe(struct pm_buf *b)
{
    if (b->data)
        sodium_memzero(b->data, b->capacity);
    pm_buf_free(b);
}

int pm_key_read(const char *path, struct pm_key *out, struct pm_error *err)
{
    struct pm_buf text = {0};
    struct stat st;
    int rc = pm_fs_read(path, FILE_MOST, &text, err);
    if (!rc)
        rc = pm_key_parse(path, text.data, text.size, out, err);
    wipe(&text);
    if (rc)
        return rc;
    if (out->has_secret && strcmp(path, "-") != 0) {
        if (stat(path, &st))
            rc = pm_fail_errno(err, "cannot look at %s", path);
        else if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & 077))
            rc =
                pm_fail(err, PM_EDENIED,
                        "%s holds a secret and is open to others (user %u, mode %o): chmod 600 it, or make a "
                        "new key if others have read it",
                        path, (unsigned)st.st_uid, (unsigned)(st.st_mode & 0777));
    }
    if (rc)
        pm_key_forget(out);
    return rc;
}

int pm_key_write(const char *path, const struct pm_key *key, struct pm_error *err)
{
    struct pm_buf text = {0};
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600), rc;
    if (fd < 0 && errno == EEXIST)
        return pm_fail(err, PM_EINVAL, "%s is there already: keys are never replaced, remove it first", path);
    if (fd < 0)
        return pm_fail_errno(err, "cannot make %s", path);
    pm_key_print(key, true, &text);
    rc = pm_fs_write_all(fd, text.data, text.size, err);
    if (!rc && fsync(fd))
        rc = pm_fail_errno(err, "cannot write %s", path);
    wipe(&text);
    close(fd);
    if (rc)
        unlink(path);
    return rc;
}

int pm_key_public_of(const char *text_or_path, uint8_t out[PM_KEY_BYTES], struct pm_error *err)
{
    struct pm_buf text = {0};
    struct pm_key key;
    if (pm_key_parse_text(text_or_path, out))
        return 0;
    int rc = pm_fs_read(text_or_path, FILE_MOST, &text, err);
    if (rc == PM_ENOTFOUND)
        return pm_fail(err, PM_EINVAL,
                       "\"%.80s\" is neither a public key (%d characters) nor a file that holds one",
                       text_or_path, PM_KEY_CHARS);
    if (rc)
        return rc;
    pm_buf_text(&text, "");
    char *line = (char *)text.data;
    bool is_bare = text.size >= PM_KEY_CHARS && line[PM_KEY_CHARS + strspn(line + PM_KEY_CHARS, "\r\n")] == 0;
    if (is_bare)
        line[PM_KEY_CHARS] = 0;
    if (!is_bare || !pm_key_parse_text(line, out)) {
        rc = pm_key_parse(text_or_path, text.data, text.size, &key, err);
        if (!rc)
            memcpy(out, key.open, PM_KEY_BYTES);
        pm_key_forget(&key);
    }
    wipe(&text);
    return rc;
}

int pm_key_server(const char *dir, struct pm_key *out, struct pm_error *err)
{
    char *path = pm_fs_join(dir, "server.key");
    int rc = pm_fs_mkdir_p(dir, 0700, err);
    if (!rc && access(path, F_OK) != 0) {
        rc = pm_key_make("broker", out, err);
        if (!rc)
            rc = pm_key_write(path, out, err);
        if (rc == PM_EINVAL && access(path, F_OK) == 0)
            rc = 0; /* somebody else was faster */
        if (!rc)
            rc = pm_fs_sync_dir(dir, err);
    }
    if (!rc)
        rc = pm_key_read(path, out, err);
    if (!rc && !out->has_secret)
        rc = pm_fail(err, PM_EINVAL, "%s holds no secret: remove it, and a new key is made", path);
    free(path);
    return rc;
}

/* ---- sockets ---- */

void pm_key_options_from_environment(struct pm_key_options *options)
{
    const char *server = getenv("PAGEMILL_SERVER_KEY"), *own = getenv("PAGEMILL_KEY");
    if (!options->server_key && server && *server)
        options->server_key = server;
    if (!options->key_file && own && *own)
        options->key_file = own;
}

static int set(void *socket, int option, const void *value, size_t size, const char *name,
               struct pm_error *err)
{
    if (zmq_setsockopt(socket, option, value, size))
        return pm_fail(err, errno == EINVAL ? PM_EUNSUPPORTED : PM_EINTERNAL,
                       "cannot set socket option %s: %s", name, zmq_strerror(errno));
    return 0;
}

static int set_number(void *socket, int option, int value, const char *name, struct pm_error *err)
{
    return set(socket, option, &value, sizeof value, name, err);
}

int pm_key_secure_client(void *socket, const char *endpoint, const struct pm_key_options *options,
                         struct pm_error *err)
{
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return 0;
    if (!options->server_key || !options->key_file)
        return pm_fail(err, PM_EINVAL,
                       "%s needs keys: the broker's public one (--server-key, PAGEMILL_SERVER_KEY; "
                       "`pagemill keys server` prints it there) and one of your own (PAGEMILL_KEY, "
                       "--key-file, of daemons --key; "
                       "`pagemill keys new` makes one)",
                       endpoint);
    uint8_t server[PM_KEY_BYTES];
    struct pm_key own;
    int rc = pm_key_public_of(options->server_key, server, err);
    if (rc)
        return pm_fail_prefix(err, "the broker's key");
    rc = pm_key_read(options->key_file, &own, err);
    if (rc)
        return rc;
    if (!own.has_secret)
        rc = pm_fail(err, PM_EINVAL, "%s holds no secret: wanted is the file that `pagemill keys new` made",
                     options->key_file);
    if (!rc)
        rc = set(socket, ZMQ_CURVE_SERVERKEY, server, sizeof server, "CURVE_SERVERKEY", err);
    if (!rc)
        rc = set(socket, ZMQ_CURVE_PUBLICKEY, own.open, sizeof own.open, "CURVE_PUBLICKEY", err);
    if (!rc)
        rc = set(socket, ZMQ_CURVE_SECRETKEY, own.secret, sizeof own.secret, "CURVE_SECRETKEY", err);
    pm_key_forget(&own);
    if (!rc)
        rc = set_number(socket, ZMQ_CONNECT_TIMEOUT, CONNECT_MS, "CONNECT_TIMEOUT", err);
    if (!rc)
        rc = set_number(socket, ZMQ_IPV6, 1, "IPV6", err);
    return rc;
}

int pm_key_secure_server(void *socket, const struct pm_key *key, struct pm_error *err)
{
    int rc = set_number(socket, ZMQ_CURVE_SERVER, 1, "CURVE_SERVER", err);
    if (!rc)
        rc = set(socket, ZMQ_CURVE_SECRETKEY, key->secret, sizeof key->secret, "CURVE_SECRETKEY", err);
    return rc;
}
