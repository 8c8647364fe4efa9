"""What people use today, measured beside the daemon's own work: started by gradientd-bench --peers, which asks for one
repetition at a time, so that both take turns on the same noisy machine.

Reads lines from stdin and answers each with a number:
    torch WORK ELEMENTS TENSOR LAGS      seconds of one step's diagnostics by tuned PyTorch on one thread, tensors of so
                                         many elements; WORK: everything, cosine
    numpy cosine ELEMENTS                seconds of one cosine
    scalars WRITER TAGS STEPS            scalars a second into a closed event file; WRITER: tensorboardX, torch

Tuned: everything preallocated and touched, sums as dot products and norms of the BLAS, no autograd.
"""

import sys
import tempfile
import time
import warnings

import numpy as np
import torch

RATE, BETA2, EPS = 1e-3, 0.999, 1e-8


class Parameter:
    """One tensor with its history and optimiser state, and scratch space for the step."""

    def __init__(self, elements, lags):
        self.gradient = torch.randn(elements).mul_(1e-3)
        self.history = torch.randn(lags, elements).mul_(1e-3)  # the ring of the last gradients
        self.second_moment = torch.rand(elements).add_(0.5).mul_(1e-6)
        self.step_size = torch.ones(elements)
        self.scratch = [torch.zeros(elements) for _ in range(3)]
        self.mask = torch.zeros(elements, dtype=torch.bool)

    def everything(self, step):
        """The sums of one step: norm, dots with every lag, health, second moment and Adam terms."""
        g, v, e_before = self.gradient, self.second_moment, self.step_size
        square, e, other = self.scratch
        sums = [torch.dot(g, g), torch.mv(self.history, g)]
        torch.abs(g, out=other)
        sums += [other.max(), torch.count_nonzero(g)]
        torch.lt(other, float("inf"), out=self.mask)  # finite
        sums.append(self.mask.sum())

        torch.mul(g, g, out=square)
        v.lerp_(square, 1.0 - BETA2)
        torch.mul(v, 1.0 / (1.0 - BETA2**step), out=other)  # vhat
        square.div_(torch.clamp(other, min=EPS * EPS, out=e))
        sums.append(square.sum())  # for adam/rms
        torch.sqrt(other, out=e)
        e.add_(EPS).reciprocal_().mul_(RATE)
        torch.ne(g, 0.0, out=self.mask)  # active coordinates
        e.mul_(self.mask)
        sums += [e.sum(), e.min()]
        torch.mul(e, g, out=other)
        sums.append(torch.dot(other, other))
        torch.sub(e, e_before, out=other)
        sums += [torch.linalg.vector_norm(other, 1), torch.dot(other, other)]

        self.step_size, self.scratch[1] = e, e_before
        self.history[step % len(self.history)].copy_(g)
        return sums

    def cosine(self, _step):
        past = self.history[0]
        return [torch.dot(self.gradient, self.gradient), torch.dot(self.gradient, past)]


class TorchModel:
    def __init__(self, elements, tensor_elements, lags):
        sizes = [tensor_elements] * (elements // tensor_elements)
        if elements % tensor_elements:
            sizes.append(elements % tensor_elements)
        self.parameters = [Parameter(size, lags) for size in sizes]
        self.step = 1000
        for _ in range(2):
            self.run("everything")

    def run(self, work):
        self.step += 1
        with torch.no_grad():
            sums = [getattr(parameter, work)(self.step) for parameter in self.parameters]
            return float(sum(s[0] for s in sums))


def scalars_per_second(writer, tags, steps):
    from tensorboardX import SummaryWriter as TensorboardX
    from torch.utils.tensorboard import SummaryWriter as Torch

    names = [f"layer{i:03d}/some_statistic" for i in range(tags)]
    with tempfile.TemporaryDirectory() as directory:
        file = {"tensorboardX": TensorboardX, "torch": Torch}[writer](directory)
        start = time.perf_counter()
        for step in range(steps):
            for name in names:
                file.add_scalar(name, float(step), step)
        file.close()
        return tags * steps / (time.perf_counter() - start)


def made_once(cache, make, *arguments):
    key = (make, *arguments)
    if key not in cache:
        cache[key] = make(*arguments)
    return cache[key]


def numpy_arrays(elements):
    random = np.random.default_rng(1)
    return [random.standard_normal(elements, dtype=np.float32) * np.float32(1e-3) for _ in range(2)]


def numpy_seconds(elements, cache):
    gradient, past = made_once(cache, numpy_arrays, elements)
    start = time.perf_counter()
    float(np.dot(gradient, gradient) + np.dot(gradient, past))
    return time.perf_counter() - start


def torch_seconds(work, elements, tensor_elements, lags, cache):
    torch.set_num_threads(1)
    model = made_once(cache, TorchModel, elements, tensor_elements, lags)
    start = time.perf_counter()
    model.run(work)
    return time.perf_counter() - start


def answer(words, cache):
    kind, what, *numbers = words
    numbers = [int(number) for number in numbers]
    if kind == "scalars":
        return scalars_per_second(what, *numbers)
    if kind == "numpy":
        return numpy_seconds(*numbers, cache)
    return torch_seconds(what, *numbers, cache)


def main():
    warnings.simplefilter("ignore")
    cache = {}
    for line in sys.stdin:
        print(answer(line.split(), cache), flush=True)


if __name__ == "__main__":
    main()
