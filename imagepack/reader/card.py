"""A card that says what a pack holds: lines for a terminal, HTML with thumbnails for a notebook."""

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imagepack.names import visible
from imagepack.reader.format import SPLITS

if TYPE_CHECKING:
    from imagepack.reader.packed_images import PackedImages

CLASSES, THUMBNAILS, THUMBNAIL = 20, 5, 64
"""Classes that are listed, images shown of each, and their longest side in pixels."""


def facts(dataset: "PackedImages") -> dict[str, str]:
    """Return what there is to say of the whole, by name."""
    height, width, channels = dataset.shape
    mean, std = (" ".join(f"{value:.3f}" for value in values) for values in (dataset.mean, dataset.std))
    index = dataset.index
    colours = "RGB" if channels == 3 else "grey"
    return {
        "images": f"{len(dataset):,} of {width} x {height} pixels, {colours}, {index.encoding}",
        **_predicted(dataset),
        "pack": f"{len(index.labels):,} images, {int(index.shard_bytes.sum()) / 2**20:,.1f} MiB "
        f"in {len(index.shard_names):,} shard{'s' * (len(index.shard_names) != 1)}",
        "mean, std": f"{mean}, {std} (train, pixels scaled to 0..1)",
        "digest": dataset.digest,
    }


def _predicted(dataset: "PackedImages") -> dict[str, str]:
    if dataset.label_kind != "numbers":
        return {"labels" if dataset.label_kind == "multilabel" else "classes": f"{len(dataset.classes):,}"}
    if not len(dataset):
        return {"numbers": ", ".join(map(visible, dataset.classes))}
    low, mean, high = (of(dataset.labels, 0) for of in (np.min, np.mean, np.max))
    told = [
        f"{visible(name)} {low[k]:g} to {high[k]:g}, mean {mean[k]:.4g}"
        for k, name in enumerate(dataset.classes[:CLASSES])
    ]
    return {"numbers": "; ".join(told)}


def counts(dataset: "PackedImages") -> np.ndarray:
    """Count images by class or label and split: int64, (C, len(SPLITS)); of numbers (0, len(SPLITS))."""
    if dataset.label_kind == "numbers":
        return np.zeros((0, len(SPLITS)), np.int64)
    if dataset.label_kind == "multilabel":
        inside = dataset.splits[:, None] == np.arange(len(SPLITS))
        return dataset.labels.T.astype(np.int64) @ inside
    cells = dataset.labels * len(SPLITS) + dataset.splits
    return np.bincount(cells, minlength=len(dataset.classes) * len(SPLITS)).reshape(-1, len(SPLITS))


def text(dataset: "PackedImages") -> str:
    """Return the card for a terminal."""
    table = counts(dataset)
    shown = list(zip(map(visible, dataset.classes[:CLASSES]), table.tolist(), strict=False))
    if len(table) > CLASSES:
        shown.append((f"{len(table) - CLASSES} more", table[CLASSES:].sum(0).tolist()))
    whole = np.bincount(dataset.splits, minlength=len(SPLITS)).tolist()  # an image may have several labels, or none
    head = "class" if dataset.label_kind == "class" else "label" if dataset.label_kind == "multilabel" else "images"
    rows = [(head, SPLITS), *shown, ("all", whole)]
    name = max(len(first) for first, _ in rows)
    lines = [f"{key:10} {value}" for key, value in facts(dataset).items()]
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in numbers] for _, numbers in rows]
    lines += [
        "",
        *(
            f"{first:{name}}" + "".join(f"{cell:>11}" for cell in row)
            for (first, _), row in zip(rows, cells, strict=True)
        ),
    ]
    return "\n".join(lines)


def html(dataset: "PackedImages") -> str:
    """Return the card for a notebook, with some images of each class; every name escaped."""
    lines = "".join(f"<tr><th>{key}</th><td>{escape(value)}</td></tr>" for key, value in facts(dataset).items())
    head = "".join(f"<th>{split}</th>" for split in SPLITS)
    body = []
    for label, (name, row) in enumerate(zip(dataset.classes, counts(dataset).tolist(), strict=False)):  # no numbers
        if label == CLASSES:
            body.append(f"<tr><td>and {len(dataset.classes) - CLASSES:,} more</td></tr>")
            break
        cells = "".join(f"<td>{cell:,}</td>" for cell in row)
        chosen = np.flatnonzero(dataset.has(label))[:THUMBNAILS]
        pictures = "".join(_thumbnail(image) for image in dataset.take(chosen))
        body.append(f"<tr><td>{escape(name)}</td>{cells}<td>{pictures}</td></tr>")
    return f"<table>{lines}</table><table><tr><th>class</th>{head}<th></th></tr>{''.join(body)}</table>"


def _thumbnail(image: np.ndarray) -> str:
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return (
        f'<img style="display:inline" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}" alt="">'
    )
