"""The effective steps of real optimisers, from their own state, against what the daemon follows from the gradients.

A small network is trained by torch.optim and by optax; every step's gradient is kept and submitted afterwards. What A,
B, C and D must be follows from the optimiser's state after each step, widened to double precision.

Tolerance: both sides hold an f32 second moment that takes a rounding of 2^-24 a step and forgets it at the rate b2, so
each is off by at most about 2^-24 sqrt(1 / (1 - b2^2)) < 6e-7 (b2 = 0.99) of itself, in either direction; A and B are
sums over hundreds of coordinates: 1e-5 is wide. Each |e_t - e_{t-1}| is (1 - b2) / 2 = 5e-3 of e, with two such
roundings of 1e-7 on either side: 6e-5 of itself, and 6e-5 / sqrt(500 coordinates x 40 steps) = 4e-7 in the sums.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from readers import read_steps
from trainer import Group, Optimizer, ParameterGroup, Run, Step, train

STEPS = 40
RELATIVE = 1e-5
RATE = 1e-2

# name -> (inputs, outputs) of a layer's weight, and its bias
SHAPES = {"hidden.weight": (24, 16), "hidden.bias": (24,), "output.weight": (8, 24), "output.bias": (8,)}


@dataclass
class Trained:
    """What a training kept: per step one gradient and one effective step per tensor."""

    names: list
    gradients: list
    effective: list


def sums_of(trained):
    """A, B, C, D after each step, by their definitions."""
    total = np.zeros(4)
    before, counted = None, [np.zeros(g.size, bool) for g in trained.gradients[0]]
    found = []
    for gradients, effective in zip(trained.gradients, trained.effective):
        for i, (g, e) in enumerate(zip(gradients, effective)):
            g = g.astype(np.float64)
            active = g != 0
            total[0] += e[active].sum()
            total[1] += ((e[active] * g[active]) ** 2).sum()
            if before is not None:
                both = active & counted[i]
                change = e[both] - before[i][both]
                total[2] += np.abs(change).sum()
                total[3] += (change**2).sum()
            counted[i] |= active
        before = effective
        found.append(total.copy())
    return found


def check(trained, optimizer, parameter_group, rates, daemon, logdir):
    groups = [Group(name, g.size) for name, g in zip(trained.names, trained.gradients[0])]
    run = Run(groups, optimizer, [parameter_group])
    records = [
        Step(step=i + 1, gradients=g, learning_rates=[rate])
        for i, (g, rate) in enumerate(zip(trained.gradients, rates))
    ]
    steps = read_steps(train(run, records, daemon.socket, logdir))
    for step, expected in enumerate(sums_of(trained), 1):
        found = [steps[step][f"adam/{name}"] for name in "ABCD"]
        assert found == pytest.approx(expected, rel=RELATIVE), f"step {step}"


# --- PyTorch


def batch(random):
    """Inputs and a target that is a fixed function of them plus noise."""
    inputs = random.standard_normal((32, 16))
    targets = np.sin(inputs[:, :8]) + inputs[:, 8:] ** 2 + 0.1 * random.standard_normal((32, 8))
    return inputs.astype(np.float32), targets.astype(np.float32)


def torch_model():
    torch.manual_seed(1)
    model = torch.nn.Sequential()
    model.add_module("hidden", torch.nn.Linear(16, 24))
    model.add_module("relu", torch.nn.ReLU())
    model.add_module("output", torch.nn.Linear(24, 8))
    return model


def train_torch(make_optimizer, effective_step, schedule=None):
    """`effective_step(parameter's state, parameter group)` -> e_t per coordinate, in double precision."""
    model = torch_model()
    optimizer = make_optimizer(model.parameters())
    scheduler = schedule(optimizer) if schedule else None
    random = np.random.default_rng(3)
    names, parameters = zip(*model.named_parameters())
    trained = Trained(list(names), [], [])
    rates = []
    for _ in range(STEPS):
        inputs, targets = (torch.from_numpy(one) for one in batch(random))
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs), targets).backward()
        group = optimizer.param_groups[0]
        rates.append(group["lr"])
        trained.gradients.append([consumed_gradient(p, optimizer) for p in parameters])
        optimizer.step()
        trained.effective.append([effective_step(optimizer.state[p], group, p.numel()) for p in parameters])
        if scheduler:
            scheduler.step()
    return trained, rates


def consumed_gradient(parameter, optimizer):
    """The gradient as the optimiser consumes it: coupled weight decay is added by the trainer."""
    gradient = parameter.grad.detach()
    decay = optimizer.param_groups[0]["weight_decay"]
    if decay and not isinstance(optimizer, torch.optim.AdamW):
        gradient = gradient.add(parameter.detach(), alpha=decay)
    return gradient.numpy().reshape(-1).copy()


def wide(tensor):
    return tensor.detach().numpy().reshape(-1).astype(np.float64)


def sgd_effective(state, group, numel):
    return np.full(numel, group["lr"])


def adam_effective(state, group, numel):
    moment = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
    correction = 1 - group["betas"][1] ** state["step"].item()
    return group["lr"] / (np.sqrt(wide(state[moment]) / correction) + group["eps"])


def rmsprop_effective(state, group, numel):
    return group["lr"] / (np.sqrt(wide(state["square_avg"])) + group["eps"])


def adagrad_effective(state, group, numel):
    rate = group["lr"] / (1 + (state["step"].item() - 1) * group["lr_decay"])
    return rate / (np.sqrt(wide(state["sum"])) + group["eps"])


def decaying(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + step) ** -0.5)


BETAS = (0.9, 0.99)
ADAM = ParameterGroup(beta2=0.99, eps=1e-8)
TORCH = {
    "SGD": (lambda p: torch.optim.SGD(p, RATE, momentum=0.9), sgd_effective, Optimizer("sgd"), ParameterGroup()),
    "Adam": (lambda p: torch.optim.Adam(p, RATE, BETAS), adam_effective, Optimizer("adam"), ADAM),
    "Adam-weight-decay": (
        lambda p: torch.optim.Adam(p, RATE, BETAS, weight_decay=0.1),
        adam_effective,
        Optimizer("adam"),
        ADAM,
    ),
    "Adam-amsgrad": (
        lambda p: torch.optim.Adam(p, RATE, BETAS, amsgrad=True),
        adam_effective,
        Optimizer("amsgrad", maximum_of="raw_then_corrected"),
        ADAM,
    ),
    "AdamW": (lambda p: torch.optim.AdamW(p, RATE, BETAS), adam_effective, Optimizer("adamw"), ADAM),
    "AdamW-amsgrad": (
        lambda p: torch.optim.AdamW(p, RATE, BETAS, amsgrad=True),
        adam_effective,
        Optimizer("amsgrad"),
        ADAM,
    ),
    "RMSprop": (
        lambda p: torch.optim.RMSprop(p, RATE, alpha=0.99, eps=1e-6),
        rmsprop_effective,
        Optimizer("rmsprop"),
        ParameterGroup(beta2=0.99, eps=1e-6),
    ),
    "Adagrad": (
        lambda p: torch.optim.Adagrad(p, RATE, lr_decay=0.02, initial_accumulator_value=0.1),
        adagrad_effective,
        Optimizer("adagrad", initial_accumulator=0.1, learning_rate_decay=0.02),
        ParameterGroup(eps=1e-10),
    ),
}


@pytest.mark.parametrize("schedule", [None, decaying])
@pytest.mark.parametrize("name", TORCH)
def test_torch(name, schedule, daemon, tmp_path):
    make, effective_step, optimizer, parameter_group = TORCH[name]
    trained, rates = train_torch(make, effective_step, schedule)
    check(trained, optimizer, parameter_group, rates, daemon, tmp_path)


def test_torch_parameter_without_gradient(daemon, tmp_path):
    """PyTorch counts steps per parameter: one without gradient keeps its state and its own t."""
    parameters = [torch.nn.Parameter(torch.zeros(30)) for _ in range(2)]
    optimizer = torch.optim.Adam(parameters, RATE, BETAS)
    random = np.random.default_rng(5)
    records, expected, total = [], [], np.zeros(4)
    before = [None, None]
    for step in range(1, STEPS + 1):
        gradients = [
            None if step % 3 == 0 and i == 1 else random.standard_normal(30).astype(np.float32) for i in (0, 1)
        ]
        records.append(Step(step, gradients, [RATE]))
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = None if gradient is None else torch.from_numpy(gradient)
        optimizer.step()
        for i, (parameter, gradient) in enumerate(zip(parameters, gradients)):
            if gradient is None:
                continue
            e = adam_effective(optimizer.state[parameter], optimizer.param_groups[0], 30)
            change = np.zeros(1) if before[i] is None else e - before[i]
            total += e.sum(), ((e * gradient) ** 2).sum(), np.abs(change).sum(), (change**2).sum()
            before[i] = e
        expected.append(total.copy())

    run = Run([Group("a", 30), Group("b", 30)], Optimizer("adam"), [ADAM])
    steps = read_steps(train(run, records, daemon.socket, tmp_path))
    for step, sums in enumerate(expected, 1):
        # 60 coordinates instead of hundreds: 6e-5 / sqrt(60 x steps) while there are few steps
        found = [steps[step][f"adam/{name}"] for name in "ABCD"]
        assert found == pytest.approx(sums, rel=RELATIVE), f"step {step}"


# --- optax


def optax_loss(parameters, inputs, targets):
    hidden = jax.nn.relu(inputs @ parameters["hidden.weight"].T + parameters["hidden.bias"])
    return jnp.mean((hidden @ parameters["output.weight"].T + parameters["output.bias"] - targets) ** 2)


def state_of(states, kind):
    """The one state of this type in a chain of optax states."""
    if isinstance(states, kind):
        return states
    found = [state_of(state, kind) for state in states if isinstance(state, tuple)]
    return next((state for state in found if state is not None), None)


def train_optax(transformation, effective_step):
    """`effective_step(states, name)` -> e_t of one tensor per coordinate, in double precision."""
    random = np.random.default_rng(4)
    parameters = {name: jnp.asarray(0.3 * random.standard_normal(shape), jnp.float32) for name, shape in SHAPES.items()}
    states = transformation.init(parameters)
    gradient_of = jax.jit(jax.grad(optax_loss))
    update = jax.jit(transformation.update)
    trained = Trained(list(SHAPES), [], [])
    for _ in range(STEPS):
        gradients = gradient_of(parameters, *batch(random))
        updates, states = update(gradients, states, parameters)
        parameters = optax.apply_updates(parameters, updates)
        trained.gradients.append([np.array(gradients[name]).reshape(-1) for name in SHAPES])
        trained.effective.append([effective_step(states, name).reshape(-1) for name in SHAPES])
    return trained


def moment_of(kind, field, name, states):
    return np.array(getattr(state_of(states, kind), field)[name], np.float64)


def optax_adam_effective(states, name):
    state = state_of(states, optax.ScaleByAdamState)
    vhat = np.array(state.nu[name], np.float64) / (1 - 0.99 ** int(state.count))
    return RATE / (np.sqrt(vhat + 1e-4) + 1e-6)


def optax_amsgrad_effective(states, name):
    vhat = moment_of(optax.ScaleByAmsgradState, "nu_max", name, states)
    return RATE / (np.sqrt(vhat) + 1e-8)


def optax_rmsprop_effective(states, name):
    return RATE / np.sqrt(moment_of(optax.ScaleByRmsState, "nu", name, states) + 1e-5)


def optax_adagrad_effective(states, name):
    return RATE / np.sqrt(moment_of(optax.ScaleByRssState, "sum_of_squares", name, states) + 1e-7)


OPTAX = {
    "adam": (
        optax.adam(RATE, 0.9, 0.99, eps=1e-6, eps_root=1e-4),
        optax_adam_effective,
        Optimizer("adam", eps_root=1e-4),
        ParameterGroup(beta2=0.99, eps=1e-6),
    ),
    "amsgrad": (
        optax.amsgrad(RATE, 0.9, 0.99),
        optax_amsgrad_effective,
        Optimizer("amsgrad", maximum_of="corrected"),
        ParameterGroup(beta2=0.99, eps=1e-8),
    ),
    "rmsprop": (
        optax.rmsprop(RATE, decay=0.99, eps=1e-5),
        optax_rmsprop_effective,
        Optimizer("rmsprop", eps_root=1e-5),
        ParameterGroup(beta2=0.99),
    ),
    "adagrad": (
        optax.adagrad(RATE, initial_accumulator_value=0.1, eps=1e-7),
        optax_adagrad_effective,
        Optimizer("adagrad", initial_accumulator=0.1, eps_root=1e-7),
        ParameterGroup(),
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_optax(name, daemon, tmp_path):
    transformation, effective_step, optimizer, parameter_group = OPTAX[name]
    trained = train_optax(transformation, effective_step)
    check(trained, optimizer, parameter_group, [RATE] * STEPS, daemon, tmp_path)
