// The client's header as a C++ program uses it: it compiles without a warning, links, and without a daemon says so.
#include <gradientd/client.h>
#include <gradientd/protocol.h>

#include <cstdio>
#include <cstring>
#include <vector>

int main() {
    std::vector<gradientd_group> groups(1);
    groups[0].name = "weights";
    groups[0].numel = 2;
    gradientd_parameter_group rates = {0.999, 1e-8, 0.0};
    gradientd_options options = gradientd_options_default();
    options.logdir = "/tmp";
    options.socket = "/nowhere/socket";
    options.groups = groups.data();
    options.n_groups = groups.size();
    options.parameter_groups = &rates;
    options.n_parameter_groups = 1;
    options.optimizer.rule = GRADIENTD_ADAM;

    gradientd_run *run = nullptr;
    gradientd_error error;
    if (gradientd_open(&options, &run, &error) >= 0 || run || !std::strstr(error.text, "/nowhere/socket")) {
        std::fprintf(stderr, "open without a daemon: %s\n", error.text);
        return 1;
    }
    const float gradient[] = {1.0f, 2.0f};
    const void *gradients[] = {gradient};
    const double learning_rate = 1e-3;
    gradientd_step step = gradientd_step();
    step.step = 1;
    step.learning_rates = &learning_rate;
    return gradientd_submit(run, &step, gradients) == GRADIENTD_DETACHED &&
                   gradientd_close(run, GRADIENTD_SUCCESS) == GRADIENTD_DETACHED
               ? 0
               : 1;
}
