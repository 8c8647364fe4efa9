#include "tracer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t tracer_start(void (*run)(const void *context), const void *context) {
    int status;
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        run(context);
        _exit(EXIT_FAILURE);
    }
    cr_assert_eq(waitpid(pid, &status, __WALL), pid);
    cr_assert(WIFSTOPPED(status), "wait status 0x%x", (unsigned)status);
    ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    return pid;
}

void tracer_begin(void) {
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(EXIT_FAILURE);
    raise(SIGSTOP);
}

void tracer_mark(void) {
    syscall(SYS_getppid);
}

bool tracer_is_mark(const struct __ptrace_syscall_info *call) {
    return call->entry.nr == SYS_getppid;
}

bool tracer_next_entry(pid_t pid, struct __ptrace_syscall_info *ret_call, int *ret_status) {
    for (;;) {
        cr_assert_eq(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0, "%s", strerror(errno));
        cr_assert_eq(waitpid(pid, ret_status, __WALL), pid);
        if (!WIFSTOPPED(*ret_status))
            return false;
        if (WSTOPSIG(*ret_status) != (SIGTRAP | 0x80))
            continue; // a signal, which is dropped: none is of importance here
        cr_assert_gt(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(*ret_call), ret_call), 0);
        if (ret_call->op == PTRACE_SYSCALL_INFO_ENTRY)
            return true;
    }
}

bool tracer_cannot_block(const struct __ptrace_syscall_info *call) {
    const uint64_t *arguments = call->entry.args;
    switch (call->entry.nr) {
    case SYS_sendmsg:
    case SYS_recvmsg:
        return arguments[2] & MSG_DONTWAIT;
    case SYS_sendto:
    case SYS_recvfrom:
        return arguments[3] & MSG_DONTWAIT;
    case SYS_socket:
        return arguments[1] & SOCK_NONBLOCK;
#ifdef SYS_poll
    case SYS_poll:
        return arguments[2] == 0;
#endif
    case SYS_write: // the warning, after a poll
        return arguments[0] == STDERR_FILENO;
    case SYS_connect:
    case SYS_close:
    case SYS_fcntl:
    case SYS_rt_sigpending:
    case SYS_rt_sigprocmask:
    case SYS_brk:
        return true;
    default:
        return false;
    }
}
