"""A recording that TensorFlow reads. $GD_TENSORFLOW names a Python that has it: scripts/test --long makes one."""

import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest

import test_streams
from recordings import record_command
from trainer import Trainer, widened

TENSORFLOW = os.environ.get("GD_TENSORFLOW")
if not TENSORFLOW:
    pytest.skip("no TensorFlow: $GD_TENSORFLOW is not set", allow_module_level=True)


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("element_type", ["f32", "bf16", "f16"])
def test_tensorflow_reads_what_was_sent(element_type, level, daemon, tmp_path):
    run = replace(test_streams.one_run(), element_type=element_type, probe_gradients=None, outputs=None)
    records = test_streams.records_of(run, seed=5)
    recording, sent = tmp_path / "run.tfrecord.gz", {}
    for record in records:
        sent[f"gradient.{record.step}"] = np.concatenate([widened(g, element_type) for g in record.gradients])
        sent[f"parameters.{record.step}"] = np.concatenate([widened(x, "f32") for x in record.parameters])
    command = record_command(recording, daemon.socket, "--level", str(level))
    trainer = Trainer(run, None, tmp_path / "logs", command=command)
    trainer.send(records)
    trainer.finish()
    np.savez(tmp_path / "sent.npz", **sent)

    reader = os.path.join(os.path.dirname(__file__), "tensorflow_reader.py")
    result = subprocess.run([TENSORFLOW, reader, recording, tmp_path / "sent.npz"], capture_output=True, text=True)
    assert result.returncode == 0, result
    assert result.stdout == f"{2 * len(records)} vectors\n"
