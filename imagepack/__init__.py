"""Read the packs that the pipeline makes: batches of images and labels for training.

from imagepack import PackedImages

train = PackedImages("data/packed").split("train")
for epoch in range(10):
    for images, labels in train.batches(256, shuffle=True, seed=0, epoch=epoch):
        ...
"""

from imagepack.augment import Augment
from imagepack.format import PackError
from imagepack.reader import PackedImages

__all__ = ["Augment", "PackError", "PackedImages"]
