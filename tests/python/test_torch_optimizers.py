"""Each of PyTorch's optimizers, with its variants: the rule that the adam/ charts follow, number by number."""

import pytest
import torch
from torch import optim
from training import ADAM_FAMILY, NO_SKIPS, Recording, made, train, values_of

import gradientd

# How an optimizer is made, and its rule.
SUPPORTED = {
    "adam": (lambda p: optim.Adam(p), "adam"),
    "adam-coupled-decay": (lambda p: optim.Adam(p, weight_decay=0.1), "adam"),
    "adam-maximize-decay": (lambda p: optim.Adam(p, lr=1e-4, weight_decay=0.1, maximize=True), "adam"),
    "adam-single-tensor": (lambda p: optim.Adam(p, foreach=False), "adam"),
    "adam-fused": (lambda p: optim.Adam(p, fused=True), "adam"),
    "adam-tensor-rate": (lambda p: optim.Adam(p, lr=torch.tensor(1e-3), foreach=False), "adam"),
    "adam-beta2-eps": (lambda p: optim.Adam(p, betas=(0.8, 0.95), eps=1e-4), "adam"),
    "amsgrad": (lambda p: optim.Adam(p, amsgrad=True), "amsgrad"),
    "amsgrad-decoupled": (lambda p: optim.AdamW(p, amsgrad=True, fused=True), "amsgrad"),
    "adamw": (lambda p: optim.AdamW(p, weight_decay=0.1), "adamw"),
    "adam-decoupled": (lambda p: optim.Adam(p, weight_decay=0.1, decoupled_weight_decay=True), "adamw"),
    "nadam": (lambda p: optim.NAdam(p), "adam"),
    "nadam-decoupled": (lambda p: optim.NAdam(p, weight_decay=0.1, decoupled_weight_decay=True), "adam"),
    "sgd": (lambda p: optim.SGD(p, lr=0.1), "sgd"),
    "sgd-nesterov": (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2), "sgd"),
    "sgd-maximize": (lambda p: optim.SGD(p, lr=1e-3, weight_decay=1e-2, maximize=True), "sgd"),
    "sgd-fused": (lambda p: optim.SGD(p, lr=0.1, fused=True), "sgd"),
    "rmsprop": (lambda p: optim.RMSprop(p, momentum=0.5, weight_decay=1e-2), "rmsprop"),
    "rmsprop-alpha": (lambda p: optim.RMSprop(p, alpha=0.9, eps=1e-3), "rmsprop"),
    "adagrad": (lambda p: optim.Adagrad(p, lr_decay=0.01, initial_accumulator_value=0.1, weight_decay=1e-2), "adagrad"),
    "adagrad-fused": (lambda p: optim.Adagrad(p, fused=True), "adagrad"),
}

# Those without a rule, and what the sentence that says so names.
OTHERS = {
    "radam": (lambda p: optim.RAdam(p, weight_decay=0.1), "RAdam"),
    "adamax": (lambda p: optim.Adamax(p), "Adamax"),
    "adadelta": (lambda p: optim.Adadelta(p, weight_decay=0.1), "Adadelta"),
    "adafactor": (lambda p: optim.Adafactor(p), "Adafactor"),
    "asgd": (lambda p: optim.ASGD(p, weight_decay=0.1), "ASGD"),
    "rprop": (lambda p: optim.Rprop(p), "Rprop"),
    "rmsprop-centered": (lambda p: optim.RMSprop(p, centered=True), "centered"),
}


def watched_training(make, rule, tmp_path, model="mlp", steps=40, **training):
    net = made(model)
    optimizer = make(net.parameters())
    recording = Recording(optimizer, net, rule)
    with gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS) as watch:
        train(net, optimizer, steps, **training)
    return recording, watch.event_path


@pytest.mark.parametrize("case", SUPPORTED)
def test_rule_is_followed(case, tmp_path):
    make, rule = SUPPORTED[case]
    recording, path = watched_training(make, rule, tmp_path)
    recording.compare(path)


@pytest.mark.parametrize("case", OTHERS)
def test_without_a_rule_all_but_adam_is_right(case, tmp_path, caplog):
    make, reason = OTHERS[case]
    recording, path = watched_training(make, "sgd", tmp_path)
    assert [r.message for r in caplog.records if reason in r.message and "there are no adam/ charts" in r.message]
    recording.compare(path, without=ADAM_FAMILY)


def test_muons_decay_is_no_part_of_the_gradient(tmp_path, caplog):
    net = torch.nn.Linear(64, 10, bias=False)
    optimizer = optim.Muon(net.parameters(), weight_decay=0.5)
    recording = Recording(optimizer, net, "sgd")
    with gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS) as watch:
        train(net, optimizer, 10)
    recording.compare(watch.event_path, without=ADAM_FAMILY)
    assert "Muon" in caplog.text


class Renamed(optim.AdamW):
    """Steps as AdamW does."""


class Scaled(optim.Adam):
    """Steps in a way of its own, with torch's hooks around both step()s."""

    def step(self, closure=None):
        return super().step(closure)


def test_subclass_that_steps_as_its_base_is_followed(tmp_path):
    recording, path = watched_training(lambda p: Renamed(p), "adamw", tmp_path)
    recording.compare(path)


def test_subclass_with_a_step_of_its_own_is_seen_once_a_step(tmp_path, caplog):
    net = made()
    optimizer = Scaled(net.parameters())
    optim.Adam(made().parameters())  # from now on Adam.step has hooks too
    with gradientd.attach(optimizer, net, logdir=tmp_path, **NO_SKIPS) as watch:
        train(net, optimizer, 10)
    assert list(values_of(watch)) == list(range(1, 11))
    assert "Scaled is not known" in caplog.text
