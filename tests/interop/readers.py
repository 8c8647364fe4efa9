"""Readers of event files: our own, which checks every CRC and every byte, and TensorBoard's and tensorboardX's."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

HEADER_BYTES = 12
FOOTER_BYTES = 4
SESSION_START, SESSION_END = "_hparams_/session_start_info", "_hparams_/session_end_info"


def masked_crc(data):
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def split_records(content):
    """The data of each record of an event file's content, and the count of bytes after the last whole record."""
    found = []
    at = 0
    while at + HEADER_BYTES <= len(content):
        length, length_crc = struct.unpack_from("<QI", content, at)
        assert length_crc == masked_crc(content[at : at + 8]), f"length CRC at {at}"
        end = at + HEADER_BYTES + length
        if end + FOOTER_BYTES > len(content):
            break
        data = content[at + HEADER_BYTES : end]
        assert struct.unpack_from("<I", content, end)[0] == masked_crc(data), f"data CRC at {at}"
        found.append(data)
        at = end + FOOTER_BYTES
    return found, len(content) - at


def read_records(path):
    """All records of a file that must be whole."""
    found, torn_bytes = split_records(Path(path).read_bytes())
    assert torn_bytes == 0, f"{path} ends with {torn_bytes} bytes of a torn record"
    return found


def read_events(path):
    return [event_pb2.Event.FromString(data) for data in read_records(path)]


@dataclass
class Series:
    steps: list = field(default_factory=list)
    wall_times: list = field(default_factory=list)
    values: list = field(default_factory=list)

    def arrays(self):
        return np.array(self.steps), np.array(self.values)


def scalars_of(event):
    """Without what is shown otherwise: histograms, images, text."""
    return [value for value in event.summary.value if value.WhichOneof("value") == "simple_value"]


def read_tensors(path):
    """tag -> [(step, value)] of what is no scalar."""
    found = {}
    for event in read_events(path):
        for value in event.summary.value:
            if value.WhichOneof("value") == "tensor":
                found.setdefault(value.tag, []).append((event.step, value))
    return found


def read_tensor(path, tag):
    """[(step, wall time, array)] of a tag that is no scalar."""
    found = []
    for event in read_events(path):
        for value in event.summary.value:
            if value.tag == tag and value.HasField("tensor"):
                found.append((event.step, event.wall_time, tensor_util.make_ndarray(value.tensor)))
    return found


def collect_scalars(events):
    """tag -> Series."""
    series = {}
    for event in events:
        step, wall_time = event.step, event.wall_time
        for value in scalars_of(event):
            one = series.get(value.tag)
            if one is None:
                one = series[value.tag] = Series()
            one.steps.append(step)
            one.wall_times.append(wall_time)
            one.values.append(value.simple_value)
    return series


def read_scalars(path):
    return collect_scalars(read_events(path))


def read_steps(path):
    """step -> {tag: value}."""
    steps = {}
    for event in read_events(path):
        for value in scalars_of(event):
            assert value.tag not in steps.setdefault(event.step, {}), f"{value.tag} twice at step {event.step}"
            steps[event.step][value.tag] = value.simple_value
    return steps


def read_descriptions(path):
    """tag -> description, of the first value of each tag, where metadata belongs."""
    descriptions = {}
    for event in read_events(path):
        for value in scalars_of(event):
            if value.tag not in descriptions:
                assert value.metadata.plugin_data.plugin_name == "scalars", value.tag
                descriptions[value.tag] = value.metadata.summary_description
    return descriptions


def session_infos(path, tag):
    """The plugin's data in the values of a tag, which have a null tensor each."""
    found = []
    for event in read_events(path):
        for value in event.summary.value:
            if value.tag == tag:
                assert value.metadata.plugin_data.plugin_name == "hparams"
                assert value.HasField("tensor") and [dim.size for dim in value.tensor.tensor_shape.dim] == [0]
                found.append(plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content))
    return found


def last_step(path):
    """The last step with a value in a file that is being written, or None."""
    found, _ = split_records(path.read_bytes())
    steps = [event.step for event in map(event_pb2.Event.FromString, found) if scalars_of(event)]
    return max(steps, default=None)
