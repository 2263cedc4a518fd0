"""Augmentation operations of your own: the preview shows them, training applies them, after those of params.yaml.

For example:

    def grain(image, rng):
        noise = rng.integers(-8, 9, image.shape)
        return (image + noise).clip(0, 255).astype("uint8")

    OPS = [grain]

An operation gets an image, uint8 (H, W, C), which it may change, and a numpy Generator; it returns an image of the same
shape. Take every random number from that generator: then an image looks the same in a given epoch, however many
workers there are. In training: `imagepack.Augment.of_repository("path/to/this/repository")`.
"""

from imagepack.reader.augment import Op

OPS: list[Op] = []
