"""Searches an image cell on one's own torch data set: scikit-learn's digits stand in for it."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

import sgas_cnn

digits = load_digits()
images = torch.from_numpy(digits.images / 16).float()[:, None]  # [N, 1, 8, 8], from 0 to 1
labels = torch.from_numpy(digits.target)
mine = TensorDataset(images[:1400], labels[:1400])
test = TensorDataset(images[1400:], labels[1400:])

searched = sgas_cnn.search(mine, test=test, preset="demo", strategy="cri1")
print(sgas_cnn.train(searched, preset="demo").evaluate())
