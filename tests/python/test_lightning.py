"""gradientd.lightning in real trainings: what reaches the files, and that the trained weights do not know of it."""

import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from readers import read_scalars
from recording import FAILURE, SUCCESS, Recording, outcome
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from gradientd.lightning import Gradientd

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"
EPOCHS, BATCHES = 3, 4
CLIP = 0.2

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def digits():
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images[:128] / 16, dtype=torch.float32), torch.tensor(labels[:128]))
    return DataLoader(data, batch_size=128 // BATCHES)


class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
        self.losses, self.validation_losses = [], []

    def loss(self, batch):
        return cross_entropy(self.layers(batch[0]), batch[1])

    def training_step(self, batch, _index):
        loss = self.loss(batch)
        self.losses.append(loss.item())
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("unseen", loss, logger=False)
        return loss

    def validation_step(self, batch, _index):
        self.log("valid/loss", self.loss(batch))

    def on_validation_epoch_end(self):
        self.validation_losses.append(self.trainer.callback_metrics["valid/loss"].item())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        self.recording = Recording(optimizer, self)
        return optimizer


class Manual(Digits):
    """Two optimizers, the second of which steps every other batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = self.loss(batch)
        self.manual_backward(loss)
        for optimizer in optimizers[: 1 + index % 2]:
            optimizer.step()

    def configure_optimizers(self):
        optimizers = [torch.optim.Adam(self.layers[0].parameters()), torch.optim.AdamW(self.layers[2].parameters())]
        self.recordings = [Recording(optimizer, self) for optimizer in optimizers]
        return optimizers


def trainer_of(tmp_path, *callbacks, epochs=EPOCHS, **options):
    defaults = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    return pl.Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=tmp_path, callbacks=[*callbacks],
                      **{**defaults, **options})  # fmt: skip


def fit(module, tmp_path, *callbacks, validated=False, ckpt_path=None, **options):
    trainer = trainer_of(tmp_path, *callbacks, **options)
    trainer.fit(module, digits(), digits() if validated else None, ckpt_path=ckpt_path)
    return trainer


def watched(**options):
    return Gradientd(thinning=False, max_stall=10, **options)


def path_of(callback, index=0):
    assert callback.watches[index].skipped == 0
    return Path(callback.watches[index].event_path)


def weights(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


TRAININGS = {
    "plain": {},
    "clipped by norm": {"gradient_clip_val": CLIP},
    "clipped by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "accumulated": {"accumulate_grad_batches": 3},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "16-mixed": {"precision": "16-mixed", "gradient_clip_val": CLIP},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_the_file_holds_what_the_optimizer_consumes_and_the_weights_do_not_know(name, tmp_path):
    options = {**TRAININGS[name], "log_every_n_steps": 0}
    module, callback, alone = Digits(), watched(), Digits()
    fit(module, tmp_path, callback, **options)
    fit(alone, tmp_path, **options)
    assert torch.equal(weights(module), weights(alone))
    recording = module.recording
    assert len(recording.steps) == EPOCHS * (2 if name == "accumulated" else BATCHES)
    losses = {}  # the mean over each epoch, at its end
    for epoch in range(EPOCHS):
        own = module.losses[epoch * BATCHES : (epoch + 1) * BATCHES]
        losses[(epoch + 1) * len(recording.steps) // EPOCHS] = {"loss_epoch": sum(own) / BATCHES}
    recording.compare(path_of(callback), losses)
    if "norm" in name or name == "16-mixed":
        assert max(recording.norms()) == pytest.approx(CLIP, rel=1e-4)
    assert outcome(path_of(callback)) == SUCCESS


def test_metrics_have_the_loggers_names_and_the_steps_of_the_run(tmp_path):
    module, callback = Digits(), watched()
    fit(module, tmp_path, callback, validated=True, log_every_n_steps=3)
    found = {tag: series for tag, series in read_scalars(path_of(callback)).items() if "loss" in tag or "unseen" in tag}
    assert {tag: series.steps for tag, series in found.items()} == {
        "loss_step": [3, 6, 9, 12],
        "loss_epoch": [4, 8, 12],
        "valid/loss": [4, 8, 12],
    }
    assert found["loss_step"].values == pytest.approx(module.losses[2::3], rel=1e-6)
    assert len(module.validation_losses) == 1 + EPOCHS  # the first is the sanity check's
    assert found["valid/loss"].values == pytest.approx(module.validation_losses[1:], rel=1e-6)


def test_the_noise_is_that_of_the_gradient_before_clipping(tmp_path):
    class Sized(Digits):
        def on_train_start(self):
            callback.watches[0].batch_size = 128 // BATCHES
            self.factors = []

        def on_before_optimizer_step(self, optimizer):
            norm = sum(p.grad.double().square().sum().item() for p in self.parameters()) ** 0.5
            self.factors.append(min(1.0, clip / (norm + 1e-6)))

    clip = 0.45  # of which some gradients are longer and some are not
    module, callback = Sized(), watched()
    fit(module, tmp_path, callback, gradient_clip_val=clip, log_every_n_steps=0)
    assert min(module.factors) < 0.9 and max(module.factors) == 1.0
    found = read_scalars(path_of(callback))
    assert any(tag.startswith("noise") for tag in found)
    losses = {step: {"loss_epoch": value} for step, value in zip(found["loss_epoch"].steps, found["loss_epoch"].values)}
    module.recording.compare(path_of(callback), losses, batch_size=128 // BATCHES, clip_factors=module.factors)


def test_manual_optimization_has_a_run_per_optimizer(tmp_path):
    module, callback = Manual(), watched()
    fit(module, tmp_path, callback)
    for index, recording in enumerate(module.recordings):
        assert path_of(callback, index).parent == tmp_path / "gradientd" / f"optimizer{index}"
        assert len(recording.steps) == EPOCHS * BATCHES // (1 + index)
        recording.compare(path_of(callback, index))


def test_the_run_goes_below_a_directory_that_a_logger_writes_to(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="logs", version="1")
    for logdir, directory in [
        (None, tmp_path / "logs" / "1" / "gradientd"),
        (tmp_path / "logs" / "1", tmp_path / "logs" / "1" / "gradientd"),
        (tmp_path / "own", tmp_path / "own"),
    ]:
        callback = watched(logdir=logdir)
        fit(Digits(), tmp_path, callback, epochs=1, logger=logger)
        assert path_of(callback).parent == directory
    callback = watched(logdir=tmp_path, run="a/b")
    fit(Digits(), tmp_path, callback, epochs=1)
    assert path_of(callback).parent == tmp_path / "a" / "b"


def test_a_training_that_is_resumed_goes_on_in_its_run(tmp_path):
    whole = Digits()
    fit(whole, tmp_path / "whole", log_every_n_steps=0)
    trainer = fit(Digits(), tmp_path, watched(), epochs=2)
    trainer.save_checkpoint(tmp_path / "checkpoint")
    module, callback = Digits(), watched()
    fit(module, tmp_path, callback, ckpt_path=tmp_path / "checkpoint", log_every_n_steps=0)
    assert torch.equal(weights(module), weights(whole))
    first = 2 * BATCHES + 1
    assert module.recording.start[0] == 2 * BATCHES
    loss = {EPOCHS * BATCHES: {"loss_epoch": sum(module.losses) / BATCHES}}
    module.recording.compare(path_of(callback), loss, first_step=first)
    assert len(list(path_of(callback).parent.iterdir())) == 2


def test_an_sgd_that_is_resumed_goes_on_at_the_trainers_step(tmp_path):
    class Plain(Digits):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    fit(Plain(), tmp_path, epochs=2).save_checkpoint(tmp_path / "checkpoint")
    callback = watched()
    fit(Plain(), tmp_path, callback, ckpt_path=tmp_path / "checkpoint")
    assert read_scalars(path_of(callback))["gradient/norm"].steps == list(range(2 * BATCHES + 1, EPOCHS * BATCHES + 1))


def test_an_exception_ends_the_run_as_failed(tmp_path):
    class Failing(Digits):
        def training_step(self, batch, index):
            if self.global_step == 5:
                raise RuntimeError("on purpose")
            return super().training_step(batch, index)

    callback = watched()
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(Failing(), tmp_path, callback)
    assert outcome(path_of(callback)) == FAILURE
    fit(Digits(), tmp_path, callback, epochs=1)  # the same callback again
    assert outcome(path_of(callback)) == SUCCESS


def test_the_example_runs(tmp_path):
    command = [sys.executable, EXAMPLES / "lightning_digits.py"]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (path,) = (tmp_path / "runs" / "lightning_digits").iterdir()
    losses = read_scalars(path)["loss"].values
    assert outcome(path) == SUCCESS and losses[-1] < 0.5 * losses[0]
