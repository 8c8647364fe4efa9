"""Softmax regression on handwritten digits, with Adam by hand. Then: tensorboard --logdir runs"""

import gradientd
import numpy as np
from sklearn.datasets import load_digits

images, digits = load_digits(return_X_y=True)
images, wanted = images / 16, np.eye(10)[digits]
parameters = {"weight": np.zeros((64, 10)), "bias": np.zeros(10)}
m = {name: np.zeros_like(value) for name, value in parameters.items()}
v = {name: np.zeros_like(value) for name, value in parameters.items()}
random = np.random.default_rng(0)

with gradientd.Run(parameters, "adam", beta2=0.999, eps=1e-8, logdir="runs/numpy_loop") as run:
    for step in range(1, 501):
        chosen = random.integers(0, len(images), 64)
        logits = images[chosen] @ parameters["weight"] + parameters["bias"]
        softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax /= softmax.sum(axis=1, keepdims=True)
        error = (softmax - wanted[chosen]) / len(chosen)
        gradients = {"weight": images[chosen].T @ error, "bias": error.sum(axis=0)}
        accuracy = np.mean(logits.argmax(axis=1) == digits[chosen])
        run.submit(step, gradients, learning_rate=1e-2, batch_size=64, scalars={"train/accuracy": accuracy})
        for name, g in gradients.items():
            m[name], v[name] = 0.9 * m[name] + 0.1 * g, 0.999 * v[name] + 0.001 * g**2
            parameters[name] -= 1e-2 * (m[name] / (1 - 0.9**step)) / (np.sqrt(v[name] / (1 - 0.999**step)) + 1e-8)
