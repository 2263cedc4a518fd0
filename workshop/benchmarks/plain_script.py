"""What the pipeline is compared with: the script that most projects start from. One process, one loop, one file.

    python workshop/benchmarks/plain_script.py data/raw dataset.h5 128

Nothing is checked, hashed, split or cached; all images are in memory at once.
"""

import sys
from pathlib import Path

import h5py
import numpy as np
from PIL import Image


def convert(source: Path, out: Path, size: int) -> None:
    """Write the images of `source`/CLASS/ to one HDF5 file: `images` uint8 (N, size, size, 3), `labels` int64 (N,)."""
    images, labels = [], []
    for label, folder in enumerate(sorted(source.iterdir())):
        for path in sorted(folder.iterdir()):
            image = Image.open(path).convert("RGB").resize((size, size))
            images.append(np.array(image))
            labels.append(label)
    with h5py.File(out, "w") as file:
        file["images"] = np.array(images)
        file["labels"] = np.array(labels)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
