"""Read the packs that the pipeline makes: batches of images and labels for training.

from imagepack import PackedImages

batches = PackedImages("data/packed").split("train").batches(256, shuffle=True, seed=0)
for epoch in range(10):
    for images, labels in batches:
        ...
"""

from imagepack.augment import Augment, Sampled, normalise
from imagepack.batches import Batches
from imagepack.format import PackError
from imagepack.reader import PackedImages

__all__ = ["Augment", "Batches", "PackError", "PackedImages", "Sampled", "normalise"]
