"""Lightning on scikit-learn's digits: one callback. Then: tensorboard --logdir runs/lightning_digits"""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from gradientd.lightning import Gradientd


class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))

    def training_step(self, batch, _index):
        loss = cross_entropy(self.layers(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


images, labels = load_digits(return_X_y=True)
data = torch.utils.data.TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
watched = Gradientd("runs/lightning_digits")
trainer = pl.Trainer(max_epochs=20, logger=False, enable_checkpointing=False, callbacks=[watched])
trainer.fit(Digits(), torch.utils.data.DataLoader(data, batch_size=64, shuffle=True))
