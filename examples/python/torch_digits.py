"""Trains a small network on handwritten digits (scikit-learn has them) and watches it: tensorboard --logdir runs"""

import torch
from sklearn.datasets import load_digits

import gradientd

torch.manual_seed(0)
data = load_digits()
images, labels = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

with gradientd.attach(optimizer, model, logdir="runs/torch_digits") as watch:
    for epoch in range(10):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            watch.log({"train/loss": loss.item()})
print(f"loss {loss.item():.3f}, see {watch.event_path}")
