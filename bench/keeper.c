#include "keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

// Any byte tells to restart, the end of the stream to stop.
static _Noreturn void keep(int socket, const struct bench_settings *settings) {
    struct bench_daemon daemon;
    uint8_t order;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_daemon_start(&daemon, settings);
    if (send(socket, &daemon, sizeof(daemon), MSG_NOSIGNAL) != sizeof(daemon))
        _exit(EXIT_FAILURE);
    while (recv(socket, &order, 1, 0) == 1) {
        bench_daemon_kill(&daemon);
        bench_daemon_restart(&daemon, settings);
    }
    bench_daemon_stop(&daemon);
    _exit(EXIT_SUCCESS);
}

void bench_keeper_start(struct bench_keeper *keeper, const struct bench_settings *settings,
                        struct bench_daemon *ret_daemon) {
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        bench_fail("socketpair: %s", strerror(errno));
    keeper->pid = fork();
    if (keeper->pid < 0)
        bench_fail("fork: %s", strerror(errno));
    if (keeper->pid == 0) {
        close(sockets[0]);
        keep(sockets[1], settings);
    }
    close(sockets[1]);
    keeper->socket = sockets[0];
    if (recv(keeper->socket, ret_daemon, sizeof(*ret_daemon), MSG_WAITALL) != sizeof(*ret_daemon))
        bench_fail("the process that keeps a daemon has ended");
}

void bench_keeper_restart(const struct bench_keeper *keeper) {
    if (send(keeper->socket, "r", 1, MSG_NOSIGNAL) != 1)
        bench_fail("the process that keeps a daemon has ended");
}

void bench_keeper_stop(struct bench_keeper *keeper) {
    int status;
    close(keeper->socket);
    if (waitpid(keeper->pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        bench_fail("the process that keeps a daemon ended badly");
}
