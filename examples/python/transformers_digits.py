"""A small vision transformer on scikit-learn's digits with Hugging Face's Trainer: one callback.
Then: tensorboard --logdir runs/transformers_digits"""

import torch
from sklearn.datasets import load_digits
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from gradientd.transformers import Gradientd

images, labels = load_digits(return_X_y=True)
pixels = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
data = [{"pixel_values": image, "labels": label} for image, label in zip(pixels, labels)]

config = ViTConfig(image_size=8, patch_size=2, num_channels=1, hidden_size=32, num_hidden_layers=2,
                   num_attention_heads=4, intermediate_size=64, num_labels=10)  # fmt: skip
args = TrainingArguments("runs/transformers_digits", num_train_epochs=3, per_device_train_batch_size=32,
                         learning_rate=1e-3, logging_steps=10, save_strategy="no", report_to="none")  # fmt: skip
Trainer(ViTForImageClassification(config), args, train_dataset=data, callbacks=[Gradientd()]).train()
