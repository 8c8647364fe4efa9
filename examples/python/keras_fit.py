"""A small convolutional network for handwritten digits in Keras, on torch or jax (KERAS_BACKEND=jax). Then:
tensorboard --logdir runs"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import gradientd.keras
import keras
from sklearn.datasets import load_digits

images, digits = load_digits(return_X_y=True)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
watch = gradientd.keras.Gradientd("runs/keras_fit", batch_size=64)
model.fit(images.reshape(-1, 8, 8, 1)[:1792] / 16, digits[:1792], 64, epochs=5, verbose=2, callbacks=[watch])
