"""Reads a recording as a TensorFlow user would, and compares it with what the trainer sent; run by a Python with
TensorFlow: tensorflow_reader.py RECORDING SENT.npz, whose arrays are named STREAM.STEP."""

import sys

import numpy as np
import tensorflow as tf

FEATURES = {
    "kind": tf.io.FixedLenFeature([], tf.string),
    "step": tf.io.FixedLenFeature([], tf.int64, default_value=-1),
    "gradient": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "gradient_type": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "parameters": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "parameters_type": tf.io.FixedLenFeature([], tf.string, default_value=""),
}
TYPES = {b"f32": tf.float32, b"bf16": tf.bfloat16, b"f16": tf.float16}


def main():
    recording, sent = sys.argv[1], np.load(sys.argv[2])
    dataset = tf.data.TFRecordDataset(recording, compression_type="GZIP")
    dataset = dataset.map(lambda record: tf.io.parse_single_example(record, FEATURES))
    seen = set()
    for example in dataset.filter(lambda example: example["kind"] == "Snapshot"):
        for stream in ("gradient", "parameters"):
            if not example[f"{stream}_type"].numpy():
                continue
            elements = tf.io.decode_raw(example[stream], TYPES[example[f"{stream}_type"].numpy()])
            name = f"{stream}.{example['step'].numpy()}"
            assert (elements.numpy().astype(np.float32) == sent[name]).all(), name
            seen.add(name)
    assert seen == set(sent.files), seen ^ set(sent.files)
    print(f"{len(seen)} vectors")


main()
