"""A network for handwritten digits in JAX. Then: tensorboard --logdir runs"""

import gradientd.optax
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

images, digits = load_digits(return_X_y=True)
make = jax.nn.initializers.he_normal()
params = {"in": make(jax.random.key(0), (64, 32)), "out": make(jax.random.key(1), (32, 10)), "bias": np.zeros(10, "f")}
rate = optax.cosine_decay_schedule(1e-2, 500)
run = gradientd.Run(params, logdir="runs/jax_optax", **gradientd.optax.describe(optax.adam, rate))
tx = optax.chain(optax.clip_by_global_norm(1.0), gradientd.optax.watch(run, rate, batch_size=64), optax.adam(rate))

@jax.jit
def train_step(params, state, x, y):
    def loss(p):
        logits = jax.nn.relu(x @ p["in"]) @ p["out"] + p["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


state = tx.init(params)
for chosen in np.random.default_rng(0).integers(0, len(images), (500, 64)):
    params, state = train_step(params, state, images[chosen] / 16, digits[chosen])
run.close()
