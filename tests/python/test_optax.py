"""gradientd.optax in real trainings: what reaches the file, and that the trained weights do not know of it."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import gradientd
import gradientd.optax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradientd._tree import flatten

from digits import batches, initial_parameters
from expected import Reference, compare_file, compare_values, read_steps, record, reference_run

RATE = 1e-2
STEPS = 40
EVERY_STEP = {"max_stall": 10, "private_daemon": True}


def loss(parameters, images, digits):
    hidden = jax.nn.relu(images @ parameters["hidden"]["weight"] + parameters["hidden"]["bias"])
    logits = hidden @ parameters["out"]["weight"] + parameters["out"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, digits).mean()


def recorder():
    """Keeps in its state the updates that pass."""
    return optax.GradientTransformation(lambda params: params, lambda updates, state, params=None: (updates, updates))


def train(transformation, count=STEPS, start=None, first=0):
    """Steps under jit with donated buffers; returns the parameters, the state, and the state after each step."""

    def step(parameters, state, images, digits):
        updates, state = transformation.update(jax.grad(loss)(parameters, images, digits), state, parameters)
        return optax.apply_updates(parameters, updates), state

    compiled = jax.jit(step, donate_argnums=0)
    parameters, state = start or (initial_parameters(), None)
    parameters = jax.tree.map(jnp.array, parameters)
    state = transformation.init(parameters) if state is None else state
    states = []
    for images, digits in zip(*(values[first:] for values in batches(first + count))):
        parameters, state = compiled(parameters, state, images, digits)
        states.append(state)
    return parameters, state, states


def adam_step_sizes(state, rate, b2, eps, eps_root=0.0):
    """What optax itself multiplies the first moment with."""
    own = state[2][0]
    corrected = jax.tree.map(lambda nu: np.float64(nu) / (1 - b2 ** int(own.count)), own.nu)
    return {name: rate / (np.sqrt(v + eps_root) + eps) for name, v in flatten(corrected).items()}


def sizes_of(moment, size):
    return {name: size(np.float64(v)) for name, v in flatten(moment).items()}


# name -> (optax's function, its arguments, the effective steps that its own state tells after a step)
VARIANTS = {
    "adam": (
        optax.adam,
        {"b2": 0.99, "eps": 1e-6, "eps_root": 1e-4},
        lambda s: adam_step_sizes(s, RATE, 0.99, 1e-6, 1e-4),
    ),
    "adamw": (optax.adamw, {"weight_decay": 0.1}, lambda s: adam_step_sizes(s, RATE, 0.999, 1e-8)),
    "nadam": (optax.nadam, {"b2": 0.99}, lambda s: adam_step_sizes(s, RATE, 0.99, 1e-8)),
    "amsgrad": (
        optax.amsgrad,
        {"b2": 0.9},
        lambda s: sizes_of(s[2][0].nu_max, lambda v: RATE / (np.sqrt(v) + 1e-8)),
    ),
    "amsgrad of the paper": (
        optax.amsgrad,
        {"b2": 0.9, "bias_correction_nu": False},
        lambda s: sizes_of(s[2][0].nu_max, lambda v: RATE / (np.sqrt(v) + 1e-8)),
    ),
    "rmsprop": (
        optax.rmsprop,
        {"eps": 1e-5, "momentum": 0.9},
        lambda s: sizes_of(s[2][0].nu, lambda v: RATE / np.sqrt(v + 1e-5)),
    ),
    "rmsprop, eps outside, corrected": (
        optax.rmsprop,
        {"decay": 0.99, "eps": 1e-5, "eps_in_sqrt": False, "bias_correction": True},
        lambda s: sizes_of(s[2][0].nu, lambda v: RATE / (np.sqrt(v / (1 - 0.99 ** int(s[2][0].count))) + 1e-5)),
    ),
    "adagrad": (
        optax.adagrad,
        {},
        lambda s: sizes_of(s[2][0].sum_of_squares, lambda v: RATE / np.sqrt(v + 1e-7)),
    ),
    "sgd": (optax.sgd, {"momentum": 0.9}, lambda s: sizes_of(s[0], lambda g: np.full_like(g, RATE))),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_file_holds_what_the_optimizer_does(name, tmp_path):
    optimizer, arguments, step_sizes = VARIANTS[name]
    described = gradientd.optax.describe(optimizer, RATE, **arguments)
    parameters = initial_parameters()
    with gradientd.Run(parameters, logdir=tmp_path, thinning=False, **described, **EVERY_STEP) as run:
        watch = gradientd.optax.watch(run, RATE)
        _, _, states = train(optax.chain(recorder(), watch, optimizer(RATE, **arguments)))
    reference = reference_run(parameters, **described)
    records = [record(reference, step, state[0], np.float32(RATE)) for step, state in enumerate(states, 1)]
    compare_file(reference, records, Path(run.event_path))

    found = read_steps(Path(run.event_path))
    for step in (1, 2, STEPS):
        sizes, gradients = step_sizes(states[step - 1]), flatten(states[step - 1][0])
        active = np.concatenate([sizes[group][np.asarray(gradients[group]) != 0] for group in sizes])
        # optax corrects the bias in f32, where 1 - b2^t is off by up to 6e-8 / (1 - b2)
        tolerance = 1e-5 + 6e-8 / (1 - arguments.get("b2", arguments.get("decay", 0.999)))
        assert found[step]["adam/step_size_mean"] == pytest.approx(np.mean(active), rel=tolerance)


def test_the_second_moment_after_1000_steps_in_a_scan(tmp_path):
    schedule = optax.cosine_decay_schedule(RATE, 2000)
    described = gradientd.optax.describe(optax.adam, schedule)
    with gradientd.Run(initial_parameters(), logdir=tmp_path, **described, **EVERY_STEP) as run:
        transformation = optax.chain(recorder(), gradientd.optax.watch(run, schedule), optax.adam(schedule))

        def step(carry, batch):
            parameters, state = carry
            updates, state = transformation.update(jax.grad(loss)(parameters, *batch), state, parameters)
            return (optax.apply_updates(parameters, updates), state), None

        parameters = jax.tree.map(jnp.array, initial_parameters())
        start = parameters, transformation.init(parameters)
        _, state = jax.jit(lambda: jax.lax.scan(step, start, batches(1000)))()[0]
    assert run.skipped == 0
    found = read_steps(Path(run.event_path))
    assert list(found) == list(range(1, 1001))
    gradients = np.concatenate([np.float64(g).ravel() for g in jax.tree.leaves(state[0])])
    v = np.concatenate([np.float64(nu).ravel() for nu in jax.tree.leaves(state[2][0].nu)]) / (1 - 0.999**1000)
    active = gradients != 0
    sizes = float(schedule(999)) / (np.sqrt(v[active]) + 1e-8)
    assert found[1000]["gradient/norm"] == pytest.approx(np.linalg.norm(gradients), rel=1e-5)
    assert found[1000]["adam/step_size_mean"] == pytest.approx(np.mean(sizes), rel=1e-5)
    rms = np.sqrt(np.sum(gradients[active] ** 2 / v[active]) / gradients.size)
    assert found[1000]["adam/rms"] == pytest.approx(rms, rel=1e-5)


@pytest.mark.parametrize("mode", ["jit", "eager"])
def test_the_weights_are_the_same_bits(mode, tmp_path):
    count = 200 if mode == "jit" else 5
    with jax.disable_jit(mode == "eager"):
        plain, _, _ = train(optax.adamw(RATE), count)
        described = gradientd.optax.describe(optax.adamw)
        with gradientd.Run(initial_parameters(), logdir=tmp_path, **described, **EVERY_STEP) as run:
            watched, _, _ = train(optax.chain(gradientd.optax.watch(run, RATE), optax.adamw(RATE)), count)
    assert len(read_steps(Path(run.event_path))) == count
    jax.tree.map(np.testing.assert_array_equal, watched, plain)


def test_what_clips_stands_before(tmp_path):
    described = gradientd.optax.describe(optax.sgd)
    with gradientd.Run(initial_parameters(), logdir=tmp_path, **described, **EVERY_STEP) as run:
        watch = gradientd.optax.watch(run, 0.1, batch_size=50)
        train(optax.chain(optax.clip_by_global_norm(0.25), watch, optax.sgd(0.1)), 5)
    found = read_steps(Path(run.event_path))
    assert [values["gradient/norm"] for values in found.values()] == pytest.approx([0.25] * 5)
    assert "noise_single/S" in found[2]


def test_injected_rates_are_those_of_each_step(tmp_path):
    described = gradientd.optax.describe(optax.sgd)
    with gradientd.Run(initial_parameters(), logdir=tmp_path, **described, **EVERY_STEP) as run:

        def make(learning_rate):
            return optax.chain(gradientd.optax.watch(run, learning_rate), optax.sgd(learning_rate))

        train(optax.inject_hyperparams(make)(optax.linear_schedule(0.5, 0.25, 2)), 3)
    found = read_steps(Path(run.event_path))
    assert [values["adam/step_size_mean"] for values in found.values()] == [0.5, 0.375, 0.25]


def test_a_step_that_is_not_applied_is_none(tmp_path):
    """Inside apply_if_finite; the step after it has the number it would have had."""
    described = gradientd.optax.describe(optax.adam)
    parameters = {"w": jnp.ones(3)}
    with gradientd.Run(parameters, logdir=tmp_path, **described, **EVERY_STEP) as run:
        inner = optax.chain(gradientd.optax.watch(run, RATE), optax.adam(RATE))
        transformation = optax.apply_if_finite(inner, 5)
        state = transformation.init(parameters)
        update = jax.jit(transformation.update)
        for gradient in ([1.0, 2.0, 2.0], [1.0, np.nan, 2.0], [2.0, 4.0, 4.0]):
            _, state = update({"w": jnp.array(gradient)}, state)
    found = read_steps(Path(run.event_path))
    assert [values["gradient/norm"] for values in found.values()] == [3, 6]
    assert found[2]["gradient/non_finite"] == 0 and found[2]["gradientd/observed_fraction"] == 1


def test_masked_tensors_are_absent(tmp_path):
    parameters = {"w": jnp.ones(3), "frozen": jnp.ones(2)}
    described = gradientd.optax.describe(optax.adam)
    with gradientd.Run(parameters, logdir=tmp_path, **described, **EVERY_STEP) as run:
        inner = optax.chain(gradientd.optax.watch(run, RATE), optax.adam(RATE))
        transformation = optax.masked(inner, {"w": True, "frozen": False})
        transformation.update({"w": jnp.array([1.0, 2.0, 2.0]), "frozen": jnp.ones(2)}, transformation.init(parameters))
    (values,) = read_steps(Path(run.event_path)).values()
    assert values["gradient/norm"] == 3 and "group_norm/w" in values and "group_norm/frozen" not in values


def multi_steps(run, **arguments):
    """Gradients of 1, 3, 5 and 3, 5, 7, each three of which make a step."""
    inner = optax.chain(gradientd.optax.watch(run, RATE, **arguments), optax.adam(RATE))
    transformation = optax.MultiSteps(inner, 3)
    state = transformation.init({"w": jnp.ones(4)})
    update = jax.jit(transformation.update)
    for value in (1.0, 3.0, 5.0, 3.0, 5.0, 7.0):
        _, state = update({"w": jnp.full(4, value)}, state)


def test_accumulated_gradients_are_one_step(tmp_path):
    described = gradientd.optax.describe(optax.adam)
    with gradientd.Run({"w": jnp.ones(4)}, logdir=tmp_path, **described, **EVERY_STEP) as run:
        multi_steps(run, every_k=3)
    found = read_steps(Path(run.event_path))
    assert {step: values["gradient/norm"] for step, values in found.items()} == {1: 6, 2: 10}


def test_accumulation_that_is_not_stated_is_reported(tmp_path, caplog):
    described = gradientd.optax.describe(optax.adam)
    with gradientd.Run({"w": jnp.ones(4)}, logdir=tmp_path, **described, **EVERY_STEP) as run:
        multi_steps(run)
    assert any("step 1 came 2 times" in r.message and "every_k" in r.message for r in caplog.records)


PER_STEP = [f"step_sums/{name}" for name in "ABCD"] + ["adam/step_size_min", "adam/step_size_mean", "adam/rms"]


@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    # optax corrects in f32: of b2 0.999 the first maxima would be off by 5e-5
    [(optax.adam, {}), (optax.amsgrad, {"b2": 0.9}), (optax.rmsprop, {}), (optax.adagrad, {})],
)
def test_a_restart_from_a_checkpoint_goes_on(optimizer, arguments, tmp_path):
    schedule = optax.exponential_decay(RATE, 1, 0.9)
    described = gradientd.optax.describe(optimizer, schedule, **arguments)
    parameters = initial_parameters()
    with gradientd.Run(parameters, logdir=tmp_path, **described, **EVERY_STEP) as run:
        chain = optax.chain(recorder(), gradientd.optax.watch(run, schedule), optimizer(schedule, **arguments))
        trained, state, before = train(chain, 20)
    checkpoint = jax.tree.map(np.asarray, (trained, state))

    restarted = gradientd.optax.describe(optimizer, schedule, **arguments, opt_state=checkpoint[1])
    with gradientd.Run(parameters, logdir=tmp_path, **restarted, **EVERY_STEP) as run:
        chain = optax.chain(recorder(), gradientd.optax.watch(run, schedule), optimizer(schedule, **arguments))
        _, _, after = train(chain, 20, start=checkpoint, first=20)

    unbroken = Reference(reference_run(parameters, **described))
    records = [record(unbroken.run, step, one[0], schedule(step - 1)) for step, one in enumerate(before + after, 1)]
    expected = {one.step: unbroken.step(one) for one in records}
    found = read_steps(Path(run.event_path))
    assert list(found) == list(range(21, 41))
    for step, values in found.items():
        wanted = {tag: expected[step][tag] for tag in PER_STEP if tag in expected[step]}
        if optimizer is optax.adagrad:  # in f32, 0.1 + g^2 may be 0.1, and the coordinate then counts as a new one
            del wanted["step_sums/C"], wanted["step_sums/D"]
        if optimizer is optax.rmsprop:
            wanted.pop("adam/rms", None)  # it waits again for v to fill
        assert len(wanted) >= 5
        compare_values(step, {tag: values[tag] for tag in wanted}, wanted)


def test_what_on_alert_raises_stops_the_program(tmp_path):
    def stop(alert):
        raise RuntimeError(f"stopped by {alert.rule}")

    described = gradientd.optax.describe(optax.sgd)
    with gradientd.Run({"w": jnp.ones(2)}, logdir=tmp_path, on_alert=stop, **described, **EVERY_STEP) as run:
        transformation = optax.chain(gradientd.optax.watch(run, RATE), optax.sgd(RATE))
        state = transformation.init(None)
        update = jax.jit(transformation.update)
        with pytest.raises(jax.errors.JaxRuntimeError, match="stopped by non_finite"):
            for _ in range(10_000):
                _, state = update({"w": jnp.array([np.nan, 1.0])}, state)
                state[0].steps_watched.block_until_ready()


def test_other_tensors_are_one_line_and_training_goes_on(tmp_path, caplog):
    described = gradientd.optax.describe(optax.adam)
    with gradientd.Run({"v": np.ones(3)}, logdir=tmp_path, **described, **EVERY_STEP) as run:
        chain = optax.chain(gradientd.optax.watch(run, RATE), optax.adam(RATE))
        watched, _, _ = train(chain, 5)
    plain, _, _ = train(optax.adam(RATE), 5)
    jax.tree.map(np.testing.assert_array_equal, watched, plain)
    (line,) = [r.message for r in caplog.records if "dropped" in r.message]
    assert "'hidden/bias'" in line and "no group" in line


@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [(optax.lion, {}), (optax.rmsprop, {"centered": True}), (optax.rmsprop, {"initial_scale": 1.0})],
)
def test_other_steps_are_said_to_be_of_another_kind(optimizer, arguments, caplog):
    described = gradientd.optax.describe(optimizer, **arguments)
    assert described == {"optimizer": gradientd.Optimizer("other"), "absent_counts": True}
    (line,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert optimizer.__name__ in line and "no adam/ charts" in line


def test_arguments_that_optax_does_not_take():
    with pytest.raises(TypeError, match="beta2"):
        gradientd.optax.describe(optax.adam, beta2=0.9)
    with pytest.raises(ValueError, match="WatchState"):
        gradientd.optax.describe(optax.adam, opt_state=optax.adam(RATE).init({"w": jnp.ones(2)}))


SEVERAL = """
import gradientd, gradientd.optax, jax, jax.numpy as jnp, numpy as np, optax, sys
run = gradientd.Run({"w": np.ones(4)}, logdir=sys.argv[1], **gradientd.optax.describe(optax.sgd))
tx = optax.chain(gradientd.optax.watch(run, 0.1), optax.sgd(0.1))
state = tx.init(None)
update = lambda gradient: tx.update({"w": gradient}, state)[0]["w"]
mesh = jax.sharding.Mesh(np.array(jax.devices()), "i")
whole, split = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*name)) for name in ((), "i"))
programs = {
    "vmap": lambda: jax.vmap(update)(jnp.ones((2, 4))),
    "jit of vmap": lambda: jax.jit(jax.vmap(update))(jnp.ones((2, 4))),
    "pmap": lambda: jax.pmap(update)(jnp.ones((2, 4))),
    "shard_map": lambda: jax.shard_map(update, mesh=mesh, in_specs=whole.spec, out_specs=whole.spec)(jnp.ones(4)),
    "sharded": lambda: jax.jit(update, out_shardings=whole)(jax.device_put(jnp.arange(4.0), split)),
}
for name, program in programs.items():
    try:
        program()
        print(name, "ran")
    except ValueError as error:
        print(name, "refused:", error)
run.close()
"""


def test_programs_that_hand_over_device_by_device_are_refused(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    program = [sys.executable, "-c", SEVERAL, str(tmp_path)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=100, check=True)
    vmap, jit_of_vmap, pmap, shard_map, sharded = done.stdout.splitlines()
    assert "refused: Cannot `vmap`" in vmap and "refused: Cannot `vmap`" in jit_of_vmap
    assert "refused: watch() is inside" in pmap and "over 2 devices" in pmap
    assert "refused: watch() is inside" in shard_map
    assert sharded == "sharded ran"
    (path,) = tmp_path.glob("events.out.*")
    assert {step: values["gradient/norm"] for step, values in read_steps(path).items()} == {1: pytest.approx(14**0.5)}


AT_EXIT = """
import gradientd, gradientd.optax, jax, jax.numpy as jnp, numpy as np, optax, sys
run = gradientd.Run({"w": np.ones(4)}, logdir=sys.argv[1], max_stall=10, **gradientd.optax.describe(optax.sgd))
tx = optax.chain(gradientd.optax.watch(run, 0.1), optax.sgd(0.1))
state = tx.init(None)
update = jax.jit(tx.update)
for _ in range(50):
    _, state = update({"w": jnp.ones(4)}, state)
"""


def test_the_process_may_just_end(tmp_path):
    subprocess.run([sys.executable, "-c", AT_EXIT, str(tmp_path)], timeout=100, check=True)
    (path,) = tmp_path.glob("events.out.*")
    assert list(read_steps(path)) == list(range(1, 51))
