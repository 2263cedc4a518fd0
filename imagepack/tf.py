"""A pack as a tf.data.Dataset, for Keras' model.fit and for loops of one's own.

import imagepack.tf
from imagepack import PackedImages

train = PackedImages("data/packed").split("train")
model.fit(imagepack.tf.dataset(train, 256, shuffle=True), epochs=10)
"""

import itertools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from imagepack.reader.packed_images import PackedImages


def dataset(images: PackedImages, size: int, *, epoch: int = 0, drop_last: bool = False, **options) -> tf.data.Dataset:
    """Return the batches of `images`; each iteration, such as an epoch of model.fit, is the next epoch of the shuffle.

    Args:
        images: what to load.
        size: images a batch.
        epoch: of the first iteration.
        drop_last: leave out a last batch of fewer images; the size is then part of the shape.
        options: of PackedImages.batches: shuffle, seed, augment, rank, world_size, weights, prefetch, with_positions.

    Returns:
        Pairs of images, uint8 (size or None, H, W, C), and labels, int64 (size or None,), or the dataset's `targets`,
        with known cardinality. With `with_positions` also int64 (size or None,): where they stand in the dataset.
    """
    epochs = itertools.count(epoch)

    def run() -> Iterator[tuple[np.ndarray, ...]]:
        return iter(images.batches(size, epoch=next(epochs), drop_last=drop_last, **options))

    rows, targets = size if drop_last else None, images.targets_of(slice(0))
    specs = tf.TensorSpec((rows, *images.shape), tf.uint8), tf.TensorSpec((rows, *targets.shape[1:]), targets.dtype)
    if options.get("with_positions"):
        specs += (tf.TensorSpec((rows,), tf.int64),)
    steps = len(images.batches(size, drop_last=drop_last, **options))
    batches = tf.data.Dataset.from_generator(run, output_signature=specs)
    return batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(tf.data.AUTOTUNE)
