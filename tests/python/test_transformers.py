"""gradientd.transformers in real trainings: what reaches the file, and that the trained weights do not know of it."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from readers import read_scalars
from recording import FAILURE, SUCCESS, Recording, outcome
from sklearn.datasets import load_digits
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

from gradientd.transformers import Gradientd

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"
STEPS = 8
NORM = 0.5  # a gradient that is longer is clipped

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def digits(count=64):
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images[:count] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return [{"pixel_values": image, "labels": int(label)} for image, label in zip(pixels, labels)]


def model_of():
    set_seed(1)
    return ViTForImageClassification(
        ViTConfig(image_size=8, patch_size=4, num_channels=1, hidden_size=8, num_hidden_layers=1,
                  num_attention_heads=2, intermediate_size=16, num_labels=10)
    )  # fmt: skip


class RecordingTrainer(Trainer):
    def create_optimizer(self, *arguments):
        optimizer = super().create_optimizer(*arguments)
        self.recording = Recording(optimizer, self.model)
        return optimizer


def arguments(tmp_path, **options):
    defaults = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return TrainingArguments(str(tmp_path), **{**defaults, **options})


def trained(tmp_path, *callbacks, resume_from_checkpoint=None, **options):
    args = arguments(tmp_path, **options)
    data = {"train_dataset": digits(), "eval_dataset": digits(16)}
    trainer = RecordingTrainer(model_of(), args, callbacks=[*callbacks], **data)
    trainer.train(resume_from_checkpoint=resume_from_checkpoint)
    return trainer


def watched(**options):
    return Gradientd(thinning=False, max_stall=10, **options)


def path_of(callback):
    assert callback.watch.skipped == 0
    return Path(callback.watch.event_path)


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def logged(trainer, first_step=1):
    """What the Trainer says it has logged, by step and by its TensorBoard callback's names; the first value of each."""
    values = {}
    for entry in trainer.state.log_history:
        of_step = values.setdefault(entry["step"], {})
        for name, value in entry.items():
            if name != "step" and entry["step"] >= first_step:
                of_step.setdefault("eval/" + name[5:] if name.startswith("eval_") else "train/" + name, value)
    return values


TRAININGS = {
    "clipped by the Trainer's default": {},
    "clipped": {"max_grad_norm": NORM},
    "not clipped": {"max_grad_norm": 0.0},
    "accumulated": {"gradient_accumulation_steps": 2},
    "bf16": {"bf16": True},
    "not fused": {"optim": "adamw_torch"},
    "values at every step": {"logging_steps": 1, "eval_strategy": "steps", "eval_steps": 3},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_the_file_holds_what_the_optimizer_consumes_and_the_weights_do_not_know(name, tmp_path):
    callback = watched()
    trainer = trained(tmp_path, callback, **TRAININGS[name])
    alone = trained(tmp_path, **TRAININGS[name])
    assert torch.equal(weights(trainer), weights(alone))
    recording = trainer.recording
    assert len(recording.steps) == STEPS
    recording.compare(path_of(callback), logged(trainer))
    if name == "clipped":
        assert max(recording.norms()) == pytest.approx(NORM, rel=1e-4)
    assert outcome(path_of(callback)) == SUCCESS


def test_without_clipping_the_batch_size_tells_of_noise(tmp_path):
    class Sized(TrainerCallback):
        def on_train_begin(self, *_, **__):
            callback.watch.batch_size = 8

    callback = watched()
    trainer = trained(tmp_path, callback, Sized(), max_grad_norm=0.0)
    assert any(tag.startswith("noise") for tag in read_scalars(path_of(callback)))
    trainer.recording.compare(path_of(callback), logged(trainer), batch_size=8)


def test_the_run_has_a_directory_of_its_own(tmp_path, monkeypatch):
    callback = watched()
    trained(tmp_path, callback, max_steps=1, report_to="tensorboard")
    assert path_of(callback).parent == tmp_path / "runs" / "gradientd"
    theirs = [path for path in (tmp_path / "runs").rglob("events*") if not path.name.endswith(".gradientd")]
    assert theirs and path_of(callback).parent not in [path.parent for path in theirs]

    callback = watched(logdir=tmp_path / "own")
    trained(tmp_path, callback, max_steps=1)
    assert path_of(callback).parent == tmp_path / "own"

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "theirs"))
    for logdir in (None, tmp_path / "theirs"):
        callback = watched(logdir=logdir)
        trained(tmp_path, callback, max_steps=1, report_to="tensorboard")
        assert path_of(callback).parent == tmp_path / "theirs" / "gradientd"


def test_an_evaluation_at_the_start_is_at_step_0(tmp_path):
    callback = watched()
    trainer = trained(tmp_path, callback, eval_on_start=True, eval_strategy="steps", eval_steps=4)
    found = read_scalars(path_of(callback))["eval/loss"]
    assert found.steps == [0, 4, 8]
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert found.values == pytest.approx(losses, rel=1e-6)


def test_a_training_that_is_resumed_goes_on_in_its_run(tmp_path):
    callback = watched()
    trained(tmp_path, callback, save_strategy="steps", save_steps=5)
    first = path_of(callback)
    callback = watched()
    trainer = trained(tmp_path, callback, resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    alone = trained(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert torch.equal(weights(trainer), weights(alone))
    assert trainer.recording.start[0] == 5 and len(trainer.recording.steps) == STEPS - 5
    trainer.recording.compare(path_of(callback), logged(trainer, first_step=6), first_step=6)
    assert path_of(callback) != first and path_of(callback).parent == first.parent


def test_sgd_that_is_resumed_goes_on_at_the_trainers_step(tmp_path):
    def sgd(*callbacks, **options):
        args = arguments(tmp_path, optim="sgd", save_strategy="steps", save_steps=5)
        Trainer(model_of(), args, train_dataset=digits(), callbacks=[*callbacks]).train(**options)

    sgd()
    callback = watched()
    sgd(callback, resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert read_scalars(path_of(callback))["gradient/norm"].steps == [6, 7, 8]


class Failing(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 3:
            raise RuntimeError("on purpose")


def test_a_training_that_an_exception_ends_has_failed_when_the_next_one_begins(tmp_path):
    callback = watched()
    with pytest.raises(RuntimeError, match="on purpose"):
        trained(tmp_path, callback, Failing())
    failed = path_of(callback)
    trained(tmp_path, callback)
    assert outcome(failed) == FAILURE and outcome(path_of(callback)) == SUCCESS


def test_a_training_that_an_exception_ends_has_failed_when_its_trainer_goes(tmp_path):
    callback = watched()
    with pytest.raises(RuntimeError, match="on purpose"):
        trained(tmp_path, callback, Failing())
    failed = path_of(callback)
    assert outcome(failed) is None
    del callback
    gc.collect()
    assert outcome(failed) == FAILURE


AN_EXCEPTION_THAT_IS_CAUGHT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import conftest, test_transformers as tests
callback = tests.watched()
try:
    tests.trained(Path(sys.argv[2]), callback, tests.Failing())
except RuntimeError:
    pass
"""


def test_a_training_that_an_exception_ends_has_failed_when_the_process_exits(tmp_path):
    subprocess.run([sys.executable, "-c", AN_EXCEPTION_THAT_IS_CAUGHT, Path(__file__).parent, tmp_path], check=True)
    (path,) = (tmp_path / "runs" / "gradientd").iterdir()
    assert outcome(path) == FAILURE


def test_the_example_runs(tmp_path):
    command = [sys.executable, EXAMPLES / "transformers_digits.py"]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (path,) = (tmp_path / "runs" / "transformers_digits" / "runs" / "gradientd").iterdir()
    losses = read_scalars(path)["train/loss"].values
    assert outcome(path) == SUCCESS and losses[-1] < 0.9 * losses[0]
