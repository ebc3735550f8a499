/* The limit: a process that only passes messages on, ROUTER in front, DEALER behind, and what answers behind
 * it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "rig.h"

static void *socket_at(void *zmq, int type, const char *dir, const char *name, bool is_bound)
{
    void *socket = zmq_socket(zmq, type);
    int none = 0;
    char *endpoint = pm_xprintf("ipc://%s/%s", dir, name);
    zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof none);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    if (is_bound ? zmq_bind(socket, endpoint) : zmq_connect(socket, endpoint))
        die("cannot use %s: %s", endpoint, zmq_strerror(zmq_errno()));
    free(endpoint);
    return socket;
}

static void tell(int ready_fd)
{
    if (write(ready_fd, "1", 1) != 1)
        die("nobody waits");
    close(ready_fd);
}

/* Every message that is there. */
static void pass_on(void *from, void *to)
{
    for (;;) {
        bool has_more = true;
        for (size_t i = 0; has_more; i++) {
            zmq_msg_t frame;
            zmq_msg_init(&frame);
            if (zmq_msg_recv(&frame, from, ZMQ_DONTWAIT) < 0) {
                zmq_msg_close(&frame);
                return;
            }
            has_more = zmq_msg_more(&frame);
            zmq_msg_send(&frame, to, has_more ? ZMQ_SNDMORE : 0);
        }
    }
}

int role_forward(const char *dir, int ready_fd)
{
    void *zmq = zmq_ctx_new();
    void *front = socket_at(zmq, ZMQ_ROUTER, dir, "front.sock", true);
    void *back = socket_at(zmq, ZMQ_DEALER, dir, "back.sock", true);
    tell(ready_fd);
    for (;;) {
        zmq_pollitem_t items[] = {{.socket = front, .events = ZMQ_POLLIN},
                                  {.socket = back, .events = ZMQ_POLLIN}};
        zmq_poll(items, 2, -1);
        pass_on(front, back);
        pass_on(back, front);
    }
}

int role_echo(const char *dir, int ready_fd)
{
    void *zmq = zmq_ctx_new();
    void *socket = socket_at(zmq, ZMQ_DEALER, dir, "back.sock", false);
    tell(ready_fd);
    for (;;) {
        zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, -1);
        pass_on(socket, socket);
    }
}
