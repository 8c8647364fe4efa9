"""gradientd.keras in real trainings, on the backend $KERAS_BACKEND: test_keras.py runs this once a backend."""

import logging
from pathlib import Path

import gradientd.keras
import keras
import numpy as np
import pytest
from gradientd._tree import flatten

from digits import load_digits
from expected import Reference, compare_file, compare_values, read_steps, record, reference_run

EPOCH = 10  # steps
BATCH = 50


def model_for(optimizer, **compiled):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((64,)), keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(10, name="out")]
    model = keras.Sequential(layers, name="mlp")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **compiled)
    return model


def fit(model, callbacks, epochs=2, steps=EPOCH, **options):
    images, digits = (values[: BATCH * steps] for values in load_digits())
    model.fit(images, digits, BATCH, epochs, verbose=0, callbacks=callbacks, shuffle=False, **options)


class Recorder(gradientd.keras.Gradientd):
    """Keeps what is submitted, as (step, gradients, learning rate)."""

    def __init__(self, logdir, **options):
        super().__init__(logdir, max_stall=10, **options)
        self.steps = []
        self.paths = []

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.paths.append(Path(self.run.event_path))
        submit = self.run.submit

        def record_and_submit(step, gradients, learning_rate, **more):
            copies = {name: np.array(gradient, np.float32) for name, gradient in gradients.items()}
            self.steps.append((step, copies, learning_rate))
            return submit(step, gradients, learning_rate, **more)

        self.run.submit = record_and_submit


Optimizer = gradientd.Optimizer
SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)

# name -> (a Keras optimizer, the rule, beta2, eps)
OPTIMIZERS = {
    "sgd": (lambda: keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=0.1), Optimizer("sgd"), 0, 0),
    "adam": (
        lambda: keras.optimizers.Adam(0.01, beta_2=0.99, epsilon=1e-4, weight_decay=0.01),
        Optimizer("adam"),
        0.99,
        1e-4,
    ),
    "amsgrad": (
        lambda: keras.optimizers.Adam(0.01, beta_2=0.9, epsilon=1e-4, amsgrad=True),
        Optimizer("amsgrad"),
        0.9,
        1e-4,
    ),
    "adamw": (
        lambda: keras.optimizers.AdamW(SCHEDULE, beta_2=0.99, epsilon=1e-4),
        Optimizer("adamw"),
        0.99,
        1e-4,
    ),
    "nadam": (lambda: keras.optimizers.Nadam(0.01, beta_2=0.99, epsilon=1e-4), Optimizer("adam"), 0.99, 1e-4),
    "rmsprop": (
        lambda: keras.optimizers.RMSprop(0.01, epsilon=1e-5, momentum=0.5),
        Optimizer("rmsprop", eps_root=1e-5),
        0.9,
        0,
    ),
    "adagrad": (
        lambda: keras.optimizers.Adagrad(0.1, epsilon=1e-4),
        Optimizer("adagrad", initial_accumulator=0.1, eps_root=1e-4),
        0,
        0,
    ),
}


def rate_at(optimizer, step):
    rate = optimizer._learning_rate
    return float(np.float32(rate(step - 1) if callable(rate) else rate))


def eps_at(name, optimizer, eps, step):
    """Of Keras' Adam, eps stands beside sqrt(v): a sqrt(1 - b2^t) / (sqrt(v) + eps)."""
    return eps / np.sqrt(1 - optimizer.beta_2**step) if name in ("adam", "adamw", "amsgrad") else eps


def own_step_sizes(name, optimizer, step):
    """The effective steps that Keras' source and the optimizer's own state give after its last step."""
    moments = {"adagrad": "_accumulators", "amsgrad": "_velocity_hats"}.get(name, "_velocities")
    if name == "sgd":
        return rate_at(optimizer, step)
    v = np.concatenate([np.float64(keras.ops.convert_to_numpy(one)).ravel() for one in getattr(optimizer, moments)])
    rate, eps = rate_at(optimizer, step), optimizer.epsilon
    if name in ("rmsprop", "adagrad"):
        return rate / np.sqrt(v + eps)
    correction = np.sqrt(1 - optimizer.beta_2**step)
    return rate / (np.sqrt(v) / correction + eps) if name == "nadam" else rate * correction / (np.sqrt(v) + eps)


def reference_records(name, optimizer, eps, reference, steps):
    return [
        record(
            reference,
            step,
            gradients,
            rate_at(optimizer, step),
            beta2=[reference.parameter_groups[0].beta2],
            eps=[eps_at(name, optimizer, eps, step)],
        )
        for step, gradients, _ in steps
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_file_holds_what_the_optimizer_does(name, tmp_path):
    make, followed, beta2, eps = OPTIMIZERS[name]
    optimizer = make()
    model = model_for(optimizer)
    watch = Recorder(tmp_path)
    fit(model, [watch])
    names = [variable.path for variable in model.trainable_variables]
    reference = reference_run(watch.steps[0][1], followed, beta2, eps)
    records = reference_records(name, optimizer, eps, reference, watch.steps)
    for step in (EPOCH, 2 * EPOCH):
        found = read_steps(watch.paths[0])[step]
        shown = {tag: found[tag] for tag in ("train/loss", "train/accuracy")}
        records[step - 1].scalars = tuple(shown.items())
    compare_file(reference, records, watch.paths[0])

    active = np.concatenate([watch.steps[-1][1][name].ravel() != 0 for name in names])
    sizes = own_step_sizes(name, optimizer, 2 * EPOCH)
    mean = np.mean(sizes[active]) if name != "sgd" else sizes
    assert found["adam/step_size_mean"] == pytest.approx(mean, rel=1e-5)
    assert watch.run is None and "_backend_update_step" not in vars(optimizer)


@pytest.mark.parametrize("name", ["adam", "amsgrad", "rmsprop", "adagrad"])
def test_another_fit_goes_on_in_a_new_file(name, tmp_path):
    make, followed, beta2, eps = OPTIMIZERS[name]
    optimizer = make()
    model = model_for(optimizer)
    watch = Recorder(tmp_path)
    fit(model, [watch])
    fit(model, [watch], epochs=1)
    reference = reference_run(watch.steps[0][1], followed, beta2, eps)
    unbroken = Reference(reference)
    records = reference_records(name, optimizer, eps, reference, watch.steps)
    expected = {one.step: unbroken.step(one) for one in records}
    found = read_steps(watch.paths[1])
    assert list(found) == list(range(2 * EPOCH + 1, 3 * EPOCH + 1))
    tags = ["step_sums/A", "step_sums/B", "step_sums/C", "adam/step_size_mean", "adam/rms"]
    for step, values in found.items():
        wanted = {tag: expected[step][tag] for tag in tags if tag in expected[step]}
        compare_values(step, {tag: values[tag] for tag in wanted}, wanted)


def weights_after(optimizer, callbacks, **compiled):
    model = model_for(optimizer, **compiled)
    fit(model, callbacks)
    return model.get_weights()


@pytest.mark.parametrize(("name", "eagerly"), [("sgd", False), ("adam", False), ("sgd", True)])
def test_the_weights_are_the_same_bits(name, eagerly, tmp_path):
    plain = weights_after(OPTIMIZERS[name][0](), [], run_eagerly=eagerly)
    watched = weights_after(OPTIMIZERS[name][0](), [Recorder(tmp_path)], run_eagerly=eagerly)
    for one, other in zip(plain, watched, strict=True):
        np.testing.assert_array_equal(one, other)


def check_step(model, before, gradients, rate):
    """The weights have moved by this step of plain SGD."""
    for variable, one, other in zip(model.trainable_variables, before, model.get_weights(), strict=True):
        np.testing.assert_allclose(other, one - rate * gradients[variable.path], rtol=1e-6, atol=1e-7)


def test_gradients_are_as_the_optimizer_consumes_them(tmp_path):
    """The step that they explain is the one that the weights take."""
    optimizer = keras.optimizers.SGD(0.5, global_clipnorm=0.25)
    model = model_for(optimizer)
    before = model.get_weights()
    watch = Recorder(tmp_path)
    fit(model, [watch], epochs=1, steps=1)
    ((_, gradients, rate),) = watch.steps
    assert rate == 0.5
    check_step(model, before, gradients, rate)
    (values,) = read_steps(watch.paths[0]).values()
    assert values["gradient/norm"] == pytest.approx(0.25)


def test_accumulated_gradients_are_one_step(tmp_path):
    model = model_for(keras.optimizers.SGD(0.5, gradient_accumulation_steps=5))
    before = model.get_weights()
    watch = Recorder(tmp_path)
    fit(model, [watch], epochs=1, steps=5)
    ((step, gradients, _),) = watch.steps
    assert step == 1
    check_step(model, before, gradients, 0.5)
    fit(model, [watch], epochs=1, steps=5)
    assert [step for step, _, _ in watch.steps] == [1, 2] and list(read_steps(watch.paths[1])) == [2]


def test_a_loss_scale_is_undone_and_skipped_steps_are_none(tmp_path):
    """At first the scaled gradients overflow, and the optimizer takes no step."""
    images, digits = (values[:BATCH] for values in load_digits())
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), initial_scale=2.0**127)
    watch, plain = Recorder(tmp_path), Recorder(tmp_path / "plain")
    for used, recorder in ((optimizer, watch), (keras.optimizers.SGD(0.0), plain)):
        model_for(used).fit(images * 64, digits, BATCH, EPOCH, verbose=0, callbacks=[recorder])
    assert 0 < len(watch.steps) < EPOCH and [step for step, _, _ in watch.steps] == list(range(1, len(watch.steps) + 1))
    for name, gradient in watch.steps[-1][1].items():
        np.testing.assert_allclose(gradient, plain.steps[-1][1][name], rtol=1e-4, atol=1e-7)


def test_frozen_layers_are_no_groups(tmp_path):
    model = model_for(keras.optimizers.Adam())
    model.layers[0].trainable = False
    model.compile(keras.optimizers.Adam(), model.loss)
    watch = Recorder(tmp_path)
    fit(model, [watch], epochs=1)
    assert set(watch.steps[0][1]) == {variable.path for variable in model.layers[1].trainable_variables}


def test_what_keras_logs_is_in_the_file(tmp_path):
    model = model_for(keras.optimizers.Adam())
    watch = Recorder(tmp_path)
    images, digits = load_digits()
    fit(model, [watch], validation_data=(images[:20], digits[:20]))
    found = read_steps(watch.paths[0])
    for epoch, step in enumerate((EPOCH, 2 * EPOCH)):
        for tag, name in (("train/loss", "loss"), ("valid/accuracy", "val_accuracy")):
            assert found[step][tag] == pytest.approx(model.history.history[name][epoch])


def test_fit_without_the_callback_is_not_watched(tmp_path):
    """Before it and after it; on jax, where a step is compiled once, too."""
    model = model_for(keras.optimizers.Adam())
    watch = Recorder(tmp_path)
    fit(model, [], epochs=1)
    fit(model, [watch], epochs=1)
    fit(model, [], epochs=1)
    assert [step for step, _, _ in watch.steps] == list(range(EPOCH + 1, 2 * EPOCH + 1))
    assert list(read_steps(watch.paths[0])) == list(range(EPOCH + 1, 2 * EPOCH + 1))


class Interruption(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 4:
            raise KeyboardInterrupt


def test_training_goes_on_after_an_interruption(tmp_path):
    model = model_for(keras.optimizers.Adam())
    watch = Recorder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [watch, Interruption()])
    fit(model, [watch], epochs=1)
    first, second = map(read_steps, watch.paths)
    assert list(first) == [1, 2, 3, 4, 5] and list(second) == list(range(6, 6 + EPOCH))


class Mine(keras.optimizers.Adam):
    """Whatever it does."""


@pytest.mark.parametrize("make", [keras.optimizers.Lion, lambda: keras.optimizers.RMSprop(centered=True), Mine])
def test_other_optimizers_have_no_adam_charts(make, tmp_path, caplog):
    watch = Recorder(tmp_path)
    optimizer = make()
    fit(model_for(optimizer), [watch], epochs=1)
    values = read_steps(watch.paths[0])[EPOCH]
    assert "coherence/cosine_lag1" in values and not any(tag.startswith("adam/") for tag in values)
    (line,) = [r.message for r in caplog.records if r.name == "gradientd" and r.levelno == logging.WARNING]
    assert type(optimizer).__name__ in line and "no adam/ charts" in line


def test_an_alert_may_stop_the_training(tmp_path):
    model = model_for(keras.optimizers.SGD(1e-3))

    def stop(alert):
        model.stop_training = True

    images, digits = np.full((BATCH, 64), np.nan, np.float32), np.zeros(BATCH, np.int32)
    watch = Recorder(tmp_path, on_alert=stop)
    model.fit(images, digits, BATCH, 5000, verbose=0, callbacks=[watch])
    assert len(watch.steps) < 5000


def test_wrong_options_are_refused_at_the_begin(tmp_path):
    with pytest.raises(ValueError, match="transport is 'pigeons'"):
        fit(model_for(keras.optimizers.Adam()), [gradientd.keras.Gradientd(tmp_path, transport="pigeons")])


def test_without_a_daemon_training_goes_on(tmp_path, caplog):
    nowhere = gradientd.keras.Gradientd(tmp_path, socket=str(tmp_path / "nowhere"), private_daemon=False)
    fit(model_for(keras.optimizers.Adam()), [nowhere])
    (line,) = [r.message for r in caplog.records if r.name == "gradientd"]
    assert "training goes on without gradientd" in line


def test_names_are_those_of_the_variables(tmp_path):
    watch = Recorder(tmp_path)
    fit(model_for(keras.optimizers.Adam()), [watch], epochs=1, steps=1)
    assert len(flatten(watch.steps[0][1])) == 4 and all("/" in name for name in watch.steps[0][1])
