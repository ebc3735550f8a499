/* Who gets in, and what each role may: the real broker over tcp with CURVE, and ipc with another user's
 * process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"
#include "fake.h"
#include "proto/allowed.h"

enum { SUBMITTER, OTHER, WATCHER, WORKER, ADMIN, UNKNOWN, KEYS };
static const char *const names[KEYS] = {"submitter", "other", "watcher", "worker", "admin", "unknown"};
static const unsigned rights[KEYS] = {PM_RIGHT_SUBMIT, PM_RIGHT_SUBMIT, PM_RIGHT_WATCH,
                                      PM_RIGHT_WORK,   PM_RIGHT_ADMIN,  0};

struct net {
    struct fleet t; /* its services and its client over ipc */
    struct pm_key server, keys[KEYS];
    char *files[KEYS], *allowed_path, endpoint[64];
    char server_text[PM_KEY_CHARS + 1];
    struct pm_allowed allowed;
};

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void net_open(struct net *n)
{
    struct pm_error err;
    *n = (struct net){.endpoint = ""};
    fleet_open(&n->t);
    broker_kill(&n->t.f);
    char *dir = pm_fs_join(n->t.f.state, PM_KEYS_DIR);
    assert_int_equal(pm_key_server(dir, &n->server, &err), 0);
    pm_key_text(n->server.open, n->server_text);
    for (int i = 0; i < KEYS; i++) {
        assert_int_equal(pm_key_make(names[i], &n->keys[i], &err), 0);
        n->files[i] = pm_xprintf("%s/%s.key", n->t.f.dir, names[i]);
        assert_int_equal(pm_key_write(n->files[i], &n->keys[i], &err), 0);
        if (rights[i])
            assert_int_equal(pm_allowed_add(&n->allowed, names[i], rights[i], n->keys[i].open, &err), 0);
    }
    n->allowed_path = pm_fs_join(dir, "allowed");
    assert_int_equal(pm_allowed_write(n->allowed_path, &n->allowed, &err), 0);
    snprintf(n->endpoint, sizeof n->endpoint, "tcp://127.0.0.1:%d", free_port());
    broker_start(&n->t.f, (const char *const[]){"--listen", n->endpoint, NULL});
    free(dir);
    link_close(&n->t.client);
    client_open(&n->t.client, &n->t.f, "local");
    service_hello(&n->t.layoutd, PM_ROLE_LAYOUTD, "layoutd", 8, 0, NULL, 0);
}

static void net_close(struct net *n)
{
    for (int i = 0; i < KEYS; i++)
        free(n->files[i]);
    pm_allowed_free(&n->allowed);
    free(n->allowed_path);
    fleet_close(&n->t);
}

static void net_link(struct net *n, struct link *l, int key, const char *server_text)
{
    static uint64_t instance = 1000;
    struct pm_key_options options = {server_text, n->files[key]};
    struct pm_error err;
    *l = (struct link){.f = &n->t.f, .instance = ++instance};
    l->socket = zmq_socket(n->t.f.zmq, ZMQ_DEALER);
    assert_int_equal(pm_socket_options(l->socket, ZMQ_DEALER, &err), 0);
    assert_int_equal(pm_key_secure_client(l->socket, n->endpoint, &options, &err), 0);
    assert_int_equal(zmq_connect(l->socket, n->endpoint), 0);
}

static bool can_connect(struct link *l, int ms)
{
    zmq_pollitem_t item = {.socket = l->socket, .events = ZMQ_POLLOUT};
    return zmq_poll(&item, 1, ms) > 0;
}

static void hello_as(struct link *l, enum pm_role role, const char *name, uint64_t instance)
{
    const char *readers[] = {"fast"};
    struct pm_msg_hello hello = {.role = role,
                                 .proto_min = PM_PROTO_MIN,
                                 .proto_max = PM_PROTO_MAX,
                                 .name = name,
                                 .version = "",
                                 .host = "far",
                                 .client = "pretender",
                                 .instance = instance,
                                 .readers = readers,
                                 .reader_count = 1};
    l->seq = 0;
    link_send(l, PM_MSG_HELLO, &hello);
}

static void net_client(struct net *n, struct link *l, int key)
{
    net_link(n, l, key, n->server_text);
    hello_as(l, PM_ROLE_CLIENT, names[key], l->instance);
    (void)link_expect(l, PM_MSG_WELCOME);
}

/* Asks; the error's name, "" when it was done. */
static const char *ask(struct link *l, uint32_t type, const void *record)
{
    uint32_t got;
    link_send(l, type, record);
    const void *answer = link_receive(l, &got);
    while (got == PM_MSG_EVENT)
        answer = link_receive(l, &got);
    return got == PM_MSG_REFUSE ? ((const struct pm_msg_refuse *)answer)->code : "";
}

static const char *about_job(struct link *l, uint32_t type, uint64_t job)
{
    struct pm_msg_job_ref q = {.ref = 7, .job = job, .batch = ""};
    return ask(l, type, &q);
}

static uint32_t listed(struct link *l)
{
    struct pm_msg_list q = {.ref = 8, .batch = ""};
    link_send(l, PM_MSG_LIST, &q);
    return ((const struct pm_msg_jobs *)link_expect(l, PM_MSG_JOBS))->job_count;
}

static void roles(void **state)
{
    (void)state;
    struct net n;
    struct link submitter, other, watcher, admin, worker;
    struct pm_msg_stats stats = {.ref = 3};
    struct pm_msg_shutdown shutdown_now = {.ref = 4};
    net_open(&n);
    net_client(&n, &submitter, SUBMITTER);
    net_client(&n, &other, OTHER);
    net_client(&n, &watcher, WATCHER);
    net_client(&n, &admin, ADMIN);

    uint64_t job = submit(&submitter, "source", "a key", NULL);
    struct pm_job_info info = job_status(&submitter, job);
    assert_string_equal(info.client, "submitter"); /* the key's name, whatever it says itself */
    assert_string_equal(about_job(&submitter, PM_MSG_STATUS, job), "");
    assert_string_equal(about_job(&other, PM_MSG_STATUS, job), "denied");
    assert_string_equal(about_job(&other, PM_MSG_CANCEL, job), "denied");
    assert_string_equal(about_job(&other, PM_MSG_FETCH, job), "denied");
    assert_string_equal(about_job(&other, PM_MSG_RETRY, job), "denied");
    assert_string_equal(about_job(&other, PM_MSG_FORGET, job), "denied");
    struct pm_msg_watch watch = {.ref = 5, .job = job, .batch = ""};
    assert_string_equal(ask(&other, PM_MSG_WATCH, &watch), "denied");
    assert_string_equal(ask(&submitter, PM_MSG_WATCH, &watch), "");
    assert_string_equal(ask(&submitter, PM_MSG_STATS, &stats), "denied");
    assert_int_equal(listed(&submitter), 1);
    assert_int_equal(listed(&other), 0);

    assert_int_equal(listed(&watcher), 1);
    assert_string_equal(about_job(&watcher, PM_MSG_STATUS, job), "");
    assert_string_equal(ask(&watcher, PM_MSG_WATCH, &watch), "");
    assert_string_equal(ask(&watcher, PM_MSG_STATS, &stats), "");
    assert_string_equal(about_job(&watcher, PM_MSG_CANCEL, job), "denied");
    assert_string_equal(about_job(&watcher, PM_MSG_FETCH, job), "denied");
    struct pm_msg_submit s = {.ref = 6, .key = "k", .name = "n", .source = "", .batch = ""};
    s.options = (struct pm_options){
        .pages = "", .password = "", .reader = "", .formats = "", .drop = "", .stem = "", .whole = ""};
    assert_string_equal(ask(&watcher, PM_MSG_SUBMIT, &s), "denied");
    assert_string_equal(ask(&watcher, PM_MSG_SHUTDOWN, &shutdown_now), "denied");

    /* A key for work is no client, and one for clients does not work. */
    net_link(&n, &worker, WORKER, n.server_text);
    hello_as(&worker, PM_ROLE_CLIENT, "worker", 1);
    expect_refusal(&worker, "denied", "needs role submit, watch or admin");
    hello_as(&worker, PM_ROLE_WORKER, "worker", 1);
    (void)link_expect(&worker, PM_MSG_WELCOME);
    struct link poser;
    net_link(&n, &poser, SUBMITTER, n.server_text);
    hello_as(&poser, PM_ROLE_WORKER, "worker", 2);
    expect_refusal(&poser, "denied", "a worker needs role work, key submitter has submit");
    /* Nor does another key become that worker by knowing its instance. */
    struct link impostor;
    net_link(&n, &impostor, ADMIN, n.server_text);
    hello_as(&impostor, PM_ROLE_WORKER, "worker", 1);
    expect_refusal(&impostor, "denied", "another key");
    link_close(&impostor);
    link_close(&poser);

    assert_string_equal(about_job(&admin, PM_MSG_CANCEL, job), "");
    assert_true(counter(&n.t.client, "missing_rights") >= 10);
    assert_int_equal(counter(&n.t.client, "impostors"), 1);
    assert_string_equal(ask(&admin, PM_MSG_SHUTDOWN, &shutdown_now), "");
    struct link *all[] = {&submitter, &other, &watcher, &admin, &worker};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        link_close(all[i]);
    net_close(&n);
}

/* What another connection sends under the routing id of a client is nobody's. */
static void routing_ids_prove_nothing(void **state)
{
    (void)state;
    struct net n;
    struct link a, b;
    struct pm_msg_stats stats = {.ref = 3};
    net_open(&n);
    net_link(&n, &a, ADMIN, n.server_text);
    zmq_disconnect(a.socket, n.endpoint);
    assert_int_equal(zmq_setsockopt(a.socket, ZMQ_ROUTING_ID, "same", 4), 0);
    assert_int_equal(zmq_connect(a.socket, n.endpoint), 0);
    hello_as(&a, PM_ROLE_CLIENT, "a", 1);
    (void)link_expect(&a, PM_MSG_WELCOME);
    assert_string_equal(ask(&a, PM_MSG_STATS, &stats), "");
    link_close(&a);
    /* Until the broker has seen that the first one left, the second is not heard at all. */
    bool is_refused = false;
    for (int i = 0; i < 50 && !is_refused; i++) {
        net_link(&n, &b, OTHER, n.server_text);
        zmq_disconnect(b.socket, n.endpoint);
        assert_int_equal(zmq_setsockopt(b.socket, ZMQ_ROUTING_ID, "same", 4), 0);
        assert_int_equal(zmq_connect(b.socket, n.endpoint), 0);
        link_send(&b, PM_MSG_STATS, &stats);
        if (link_try(&b, 100)) {
            assert_int_equal(b.last.header.type, PM_MSG_REFUSE);
            is_refused = true;
        }
        link_close(&b);
    }
    assert_true(is_refused);
    net_close(&n);
}

static void wait_for_counter(struct net *n, const char *name)
{
    for (int64_t until = pm_clock_us() + 10000000; !counter(&n->t.client, name); (void)poll(NULL, 0, 20))
        assert_true(pm_clock_us() < until);
}

static void keys(void **state)
{
    (void)state;
    struct net n;
    struct link l;
    struct pm_error err;
    char wrong[PM_KEY_CHARS + 1];
    net_open(&n);
    /* One that nobody has allowed, and a broker that is another one. */
    net_link(&n, &l, UNKNOWN, n.server_text);
    assert_false(can_connect(&l, 300));
    link_close(&l);
    assert_int_equal(counter(&n.t.client, "keys_refused"), 1);
    pm_key_text(n.keys[UNKNOWN].open, wrong);
    net_link(&n, &l, SUBMITTER, wrong);
    assert_false(can_connect(&l, 300));
    link_close(&l);
    wait_for_counter(&n, "handshakes_failed");
    /* Nothing goes without keys. */
    void *plain = zmq_socket(n.t.f.zmq, ZMQ_DEALER);
    assert_int_equal(pm_socket_options(plain, ZMQ_DEALER, &err), 0);
    assert_int_equal(pm_key_secure_client(plain, n.endpoint, &(struct pm_key_options){0}, &err), PM_EINVAL);
    assert_int_equal(zmq_connect(plain, n.endpoint), 0);
    zmq_pollitem_t item = {.socket = plain, .events = ZMQ_POLLOUT};
    assert_int_equal(zmq_poll(&item, 1, 300), 0);
    zmq_close(plain);
    /* Revoked: the connection ends, and does not come again. A list that is damaged changes nothing. */
    struct link kept;
    net_client(&n, &l, SUBMITTER);
    net_client(&n, &kept, OTHER);
    assert_int_equal(pm_fs_write(n.allowed_path, "nonsense\n", 9, true, &err), 0);
    assert_int_equal(listed(&l), 0);
    assert_true(pm_allowed_remove(&n.allowed, "submitter"));
    assert_int_equal(pm_allowed_write(n.allowed_path, &n.allowed, &err), 0);
    wait_for_counter(&n, "cut_for_key");
    assert_false(can_connect(&l, 1000) && link_try(&l, 1000));
    assert_int_equal(listed(&kept), 0);
    link_close(&l);
    link_close(&kept);
    net_close(&n);
}

/* The directory is closed to others; should it be opened, the kernel's word still counts. */
static void other_users(void **state)
{
    (void)state;
    struct fleet t;
    if (geteuid() != 0) /* only root can be somebody else */
        skip();
    fleet_open(&t);
    char *path = pm_fs_join(t.f.run, "client.sock");
    assert_int_equal(chmod(t.f.dir, 0755) || chmod(t.f.run, 0755) || chmod(path, 0777), 0);
    pid_t child = fork(); /* speaks ZMTP by hand: no ZeroMQ after fork */
    if (!child) {
        char *endpoint = pm_xprintf("ipc://%s", path);
        if (setgid(65534) || setuid(65534))
            _exit(2);
        execl(PM_BUILD_DIR "/tests/attacker", "attacker", "lists", path, "1", "500", PM_TEST_DATA "/proto",
              NULL);
        free(endpoint);
        _exit(3);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 3)
        print_message("the build folder cannot be reached by others: not tested\n");
    else
        assert_true(counter(&t.client, "strangers_refused") > 0);
    assert_int_equal(counter(&t.client, "unknown_peers"), 0);
    free(path);
    fleet_close(&t);
}

static void allow_list_files(void **state)
{
    (void)state;
    static const char key[] = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
    static const struct {
        const char *text, *error;
    } bad[] = {
        {"a submit\n", "f:1"},
        {"a submit short\n", "f:1"},
        {"\n# c\na all rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\n", "f:3"},
        {"a submit,, rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "f:1"},
        {"-a submit rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "f:1"},
        {"a submit rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7 more", "f:1"},
        {"a submit rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\nb work "
         "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\n",
         "f:2"},
    };
    struct pm_allowed list;
    struct pm_error err;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_true(pm_allowed_parse("f", bad[i].text, strlen(bad[i].text), &list, &err) < 0);
        assert_int_equal(strncmp(err.text, bad[i].error, strlen(bad[i].error)), 0);
        assert_int_equal(list.count, 0);
    }
    char *good = pm_xprintf("# keys\r\n\n  a\tsubmit,watch   %s  \r\n", key);
    assert_int_equal(pm_allowed_parse("f", good, strlen(good), &list, &err), 0);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.keys[0].rights, PM_RIGHT_SUBMIT | PM_RIGHT_WATCH);
    assert_false(pm_allowed_remove(&list, "b"));
    assert_true(pm_allowed_remove(&list, key));
    pm_allowed_free(&list);
    free(good);
    assert_int_equal(pm_allowed_read("/nonexistent/allowed", &list, &err), 0);
    assert_int_equal(list.count, 0);
}

static void key_files(void **state)
{
    (void)state;
    struct pm_key key, again;
    struct pm_error err;
    struct pm_buf text = {0};
    char dir[] = "/tmp/pm-keys-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = pm_fs_join(dir, "a.key");
    assert_int_equal(pm_key_make("no/name", &key, &err), PM_EINVAL);
    assert_int_equal(pm_key_make("a", &key, &err), 0);
    assert_int_equal(pm_key_write(path, &key, &err), 0);
    assert_int_equal(pm_key_write(path, &key, &err), PM_EINVAL); /* never replaced */
    assert_int_equal(pm_key_read(path, &again, &err), 0);
    assert_memory_equal(&key, &again, sizeof key);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(pm_key_read(path, &again, &err), PM_EDENIED);
    uint8_t open[PM_KEY_BYTES];
    assert_int_equal(pm_key_public_of(path, open, &err), 0);
    assert_memory_equal(open, key.open, sizeof open);
    assert_int_equal(pm_key_public_of("/nonexistent", open, &err), PM_EINVAL);
    key.secret[0] ^= 8; /* of another key */
    pm_key_print(&key, true, &text);
    assert_int_equal(pm_key_parse("f", text.data, text.size, &again, &err), PM_EINVAL);
    pm_buf_free(&text);
    free(path);
    pm_fs_remove_tree(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allow_list_files),
        cmocka_unit_test(key_files),
        cmocka_unit_test(keys),
        cmocka_unit_test(roles),
        cmocka_unit_test(routing_ids_prove_nothing),
        cmocka_unit_test(other_users),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
