#include "acceptor.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "log.h"

enum { PAUSE_MS = 1000 };

static void on_connection(uv_poll_t *poll, int status, int events);

static void on_pause_timer(uv_timer_t *timer) {
    struct gd_acceptor *acceptor = timer->data;
    if (acceptor->listener.fd >= 0)
        uv_poll_start(&acceptor->poll, UV_READABLE, on_connection);
}

static void on_connection(uv_poll_t *poll, int status, int events) {
    struct gd_acceptor *acceptor = poll->data;
    (void)events;
    int fd = status < 0 ? -1 : accept4(acceptor->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
        gd_log(GD_LOG_WARNING, "no more clients for now: %s", strerror(errno));
        uv_poll_stop(poll); // the client is still there, so the poll would fire again at once
        uv_timer_start(&acceptor->pause_timer, on_pause_timer, PAUSE_MS, 0);
    }
    if (fd >= 0)
        acceptor->take(acceptor->context, fd);
}

void gd_acceptor_init(struct gd_acceptor *acceptor, uv_loop_t *loop, void (*take)(void *context, int fd),
                      void *context) {
    *acceptor = (struct gd_acceptor){.listener = {.fd = -1, .lock = -1}, .take = take, .context = context};
    uv_timer_init(loop, &acceptor->pause_timer);
    acceptor->pause_timer.data = acceptor;
}

int gd_acceptor_listen(struct gd_acceptor *acceptor, const char *path, const struct gd_socket_rights *rights) {
    struct gd_error error;
    int result = gd_listener_init(&acceptor->listener, path, rights, &error);
    if (result < 0) {
        gd_log(GD_LOG_ERROR, "%s", error.text);
        return result;
    }
    result = uv_poll_init(acceptor->pause_timer.loop, &acceptor->poll, acceptor->listener.fd);
    if (result < 0) {
        gd_log(GD_LOG_ERROR, "cannot poll the socket: %s", strerror(-result));
        gd_listener_deinit(&acceptor->listener);
        return result;
    }
    acceptor->poll.data = acceptor;
    uv_poll_start(&acceptor->poll, UV_READABLE, on_connection);
    return 0;
}

void gd_acceptor_stop(struct gd_acceptor *acceptor) {
    if (acceptor->listener.fd < 0)
        return;
    uv_close((uv_handle_t *)&acceptor->poll, NULL);
    gd_listener_deinit(&acceptor->listener);
}

void gd_acceptor_close(struct gd_acceptor *acceptor) {
    uv_close((uv_handle_t *)&acceptor->pause_timer, NULL);
}
