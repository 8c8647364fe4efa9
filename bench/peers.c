#include "peers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void become_peer(const struct bench_settings *settings, int questions, int answers) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Settings of an old OpenBLAS's bugs, which slow a new one.
    unsetenv("OPENBLAS_CORETYPE");
    unsetenv("OPENBLAS_L2_SIZE");
    if (dup2(questions, STDIN_FILENO) < 0 || dup2(answers, STDOUT_FILENO) < 0)
        _exit(127);
    execl(settings->python, settings->python, BENCH_PEERS_SCRIPT, (char *)NULL);
    _exit(127);
}

void bench_peers_start(struct bench_peers *peers, const struct bench_settings *settings) {
    int questions[2], answers[2];
    if (pipe2(questions, O_CLOEXEC) < 0 || pipe2(answers, O_CLOEXEC) < 0)
        bench_fail("pipe: %s", strerror(errno));
    peers->pid = fork();
    if (peers->pid < 0)
        bench_fail("fork: %s", strerror(errno));
    if (peers->pid == 0)
        become_peer(settings, questions[0], answers[1]);
    close(questions[0]);
    close(answers[1]);
    peers->questions = fdopen(questions[1], "w");
    peers->answers = fdopen(answers[0], "r");
    if (!peers->questions || !peers->answers)
        bench_fail("fdopen: %s", strerror(errno));
}

void bench_peers_stop(struct bench_peers *peers) {
    fclose(peers->questions);
    fclose(peers->answers);
    waitpid(peers->pid, NULL, 0);
}

double bench_peers_ask(struct bench_peers *peers, const char *format, ...) {
    va_list arguments;
    char line[64], *end = line;

    va_start(arguments, format);
    vfprintf(peers->questions, format, arguments);
    va_end(arguments);
    fputc('\n', peers->questions);
    fflush(peers->questions);
    double number = fgets(line, sizeof(line), peers->answers) ? strtod(line, &end) : 0.0;
    if (end == line)
        bench_fail("%s does not answer: does its Python have torch, numpy and tensorboardX?", BENCH_PEERS_SCRIPT);
    return number;
}
