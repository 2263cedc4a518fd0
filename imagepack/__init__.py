"""Read the packs that the pipeline makes: batches of images and labels for training.

from imagepack import PackedImages

batches = PackedImages("data/packed").split("train").batches(256, shuffle=True, seed=0)
for epoch in range(10):
    for images, labels in batches:
        ...
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagepack.reader.augment import Augment, Sampled, normalise
    from imagepack.reader.batches import Batches
    from imagepack.reader.format import PackError
    from imagepack.reader.packed_images import PackedImages

__all__ = ["Augment", "Batches", "PackError", "PackedImages", "Sampled", "normalise"]
MODULES = {
    "Augment": "reader.augment",
    "Batches": "reader.batches",
    "PackError": "reader.format",
    "PackedImages": "reader.packed_images",
    "Sampled": "reader.augment",
    "normalise": "reader.augment",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is: stages take small modules from here, and need no h5py."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
