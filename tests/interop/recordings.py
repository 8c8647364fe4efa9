"""Recordings as anybody reads them: gzip, TFRecords, tf.train.Example with its map as TensorFlow declares it."""

import gzip
import struct
import subprocess
from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from readers import masked_crc, split_records
from trainer import build_path

RECORD_SECONDS = 120


def _example_class():
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example_for_tests.proto", package="for_tests", syntax="proto3")

    def add(parent, name, fields):
        message = parent.add(name=name)
        for number, field, kind, label, type_name in fields:
            message.field.add(name=field, number=number, type=kind, label=label, type_name=type_name)
        return message

    repeated, optional = kinds.LABEL_REPEATED, kinds.LABEL_OPTIONAL
    add(file.message_type, "BytesList", [(1, "value", kinds.TYPE_BYTES, repeated, None)])
    add(file.message_type, "FloatList", [(1, "value", kinds.TYPE_FLOAT, repeated, None)])
    add(file.message_type, "Int64List", [(1, "value", kinds.TYPE_INT64, repeated, None)])
    feature = add(
        file.message_type,
        "Feature",
        [
            (number, f"{kind.lower()}_list", kinds.TYPE_MESSAGE, optional, f".for_tests.{kind}List")
            for number, kind in enumerate(("Bytes", "Float", "Int64"), 1)
        ],
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    entry = ".for_tests.Features.FeatureEntry"
    features = add(file.message_type, "Features", [(1, "feature", kinds.TYPE_MESSAGE, repeated, entry)])
    fields = [
        (1, "key", kinds.TYPE_STRING, optional, None),
        (2, "value", kinds.TYPE_MESSAGE, optional, ".for_tests.Feature"),
    ]
    add(features.nested_type, "FeatureEntry", fields).options.map_entry = True
    add(file.message_type, "Example", [(1, "features", kinds.TYPE_MESSAGE, optional, ".for_tests.Features")])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("for_tests.Example"))


Example = _example_class()
TYPES = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}


def features_of(data):
    """name -> bytes or int"""
    found = {}
    for name, feature in Example.FromString(data).features.feature.items():
        values = getattr(feature, feature.WhichOneof("kind")).value
        assert len(values) == 1, name
        found[name] = values[0]
    return found


def read_recording(path):
    """The features of each record of a recording that must be whole."""
    records, torn_bytes = split_records(gzip.decompress(Path(path).read_bytes()))
    assert torn_bytes == 0
    return [features_of(data) for data in records]


def write_recording(path, records):
    """Writes records of such features, whose checksums are right whatever they say."""
    content = b""
    for record in records:
        example = Example()
        for name, value in record.items():
            feature = example.features.feature[name]
            (feature.int64_list if isinstance(value, int) else feature.bytes_list).value.append(value)
        data = example.SerializeToString()
        length = struct.pack("<Q", len(data))
        content += length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))
    Path(path).write_bytes(gzip.compress(content, 1))


def elements_of(record, stream):
    """A stream's elements in a record, as an array; bits as they are for bf16."""
    return np.frombuffer(record[stream], TYPES[record[f"{stream}_type"].decode()])


def record_command(path, socket, *options):
    """What records the command that follows."""
    return [build_path("ctl/gradientctl"), "record", "--socket", str(socket), *options, str(path), "--"]


def replay(path, output, *options, status=0, **environment):
    """Replays into `output`; returns the finished process."""
    command = [build_path("ctl/gradientctl"), "replay", "--output", str(output), *map(str, options), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=RECORD_SECONDS, env=environment or None)
    assert result.returncode == status, result
    return result
