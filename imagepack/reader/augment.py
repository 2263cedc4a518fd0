"""Augmentation on the fly: a function of (seed, epoch, image id), so that it is the same wherever it runs.

What is drawn for an image comes from a hash of (seed, epoch, operation, image id). Nothing depends on batch, worker
or order: adding an image to the dataset changes no other image's augmentation, switching an operation on or off
changes no other operation, and a resumed epoch continues as if it had never stopped.

With the same version of Pillow the pixels are the same on every machine: the numbers that Pillow computes with are
rounded so that its sums are exact, in whatever order a compiler puts them. Two limits: of Gaussian blur, which Pillow
computes in single precision, a few pixels may differ by one level between processor families; what an operation of
your own does is your own.
"""

import hashlib
import math
import runpy
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

Op = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""An operation of your own: uint8 (H, W, C), which it may change, and its random numbers; uint8 of the same shape."""

WHOLE = (0.0, 0.0, 1.0, 1.0)
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the luma of ITU-R 601, which Pillow calls L."""


@dataclass(frozen=True)
class Sampled:
    """What was drawn for an image and an epoch, in the order in which it is applied.

    Boxes are left, top, right, bottom as shares, 0 to 1, of width and height.
    """

    hflip: bool = False
    vflip: bool = False
    angle: float = 0.0
    """Degrees, counterclockwise, about the centre of `box`; what comes in from outside is the edge's mirror image."""
    box: tuple[float, float, float, float] = WHOLE
    """The part of the flipped image that is kept, and scaled back to full size."""
    brightness: float = 1.0
    """Factor, as are the next two."""
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    """Degrees around the colour circle, from red towards green."""
    blur: float = 0.0
    """Standard deviation in pixels; 0 for none."""
    erased: tuple[float, float, float, float] | None = None
    """The part of the result that is blanked."""

    def words(self, grey: bool = False) -> list[str]:
        """Return what was done, in short: ["flip", "+7°", "crop 86 %"]; what rounds to nothing is left out.

        Args:
            grey: the image is greyscale, so nothing is said of colours.
        """
        left, top, right, bottom = self.box
        wide, tall = right - left, bottom - top
        told = [
            ("flip", self.hflip),
            ("upside down", self.vflip),
            (f"{self.angle:+.0f}°", round(self.angle)),
            (f"crop {100 * wide * tall:.0f} %", round(wide * tall, 2) != 1),
            (f"aspect {wide / tall:.2f}", round(wide / tall, 2) != 1),
            (f"bright {self.brightness:.2f}", round(self.brightness, 2) != 1),
            (f"contrast {self.contrast:.2f}", round(self.contrast, 2) != 1),
            (f"saturation {self.saturation:.2f}", round(self.saturation, 2) != 1 and not grey),
            (f"hue {self.hue:+.0f}°", round(self.hue) and not grey),
            (f"blur {self.blur:.1f}", round(self.blur, 1)),
            ("erased", self.erased),
        ]
        return [word for word, done in told if done]


@dataclass(frozen=True)
class RepositoryOp:
    """An operation of a dataset's stages/augment.py, found by path and name: so it may be pickled for any worker, and
    those of two datasets do not meet."""

    file: Path
    name: str

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _operations(self.file)[self.name](image, rng)


@cache
def _operations(file: Path) -> dict[str, Op]:
    """Return the operations in OPS of a stages/augment.py, by name."""
    return {op.__name__: op for op in runpy.run_path(str(file))["OPS"]}


def _knob(default: float, low: float, high: float) -> float:
    return field(default=default, metadata={"ge": low, "le": high})


@dataclass(frozen=True)
class Augment:
    """What training does to each image anew in each epoch; the fields but for `ops` are the keys of `augment` in
    params.yaml.

    It may be used by many threads at once, and pickled if `ops` may be.

    Raises:
        ValueError: a value outside its range, something in `ops` that is no function or has the name of another; all
            of these at once.
    """

    seed: int = _knob(0, 0, 2**63 - 1)
    hflip: float = _knob(0.5, 0, 1)
    """Probability of a left-right flip."""
    vflip: float = _knob(0.0, 0, 1)
    """Probability of an upside-down flip."""
    rotate: float = _knob(10.0, 0, 180)
    """Degrees: turned by an angle uniform in [-rotate, rotate]."""
    crop: float = _knob(0.7, 0.01, 1)
    """Smallest share of the area that a random crop keeps, uniform in [crop, 1], before it is scaled back to full
    size; as `scale=(crop, 1)` of torchvision's RandomResizedCrop."""
    aspect: float = _knob(1.1, 1, 4)
    """The crop's width by its height, both as shares, is between 1 / aspect and aspect, its logarithm uniform; as
    `ratio`=(1 / aspect, aspect) of RandomResizedCrop. Where such a crop does not fit into the image, RandomResizedCrop
    draws share and ratio again; here the ratio is drawn from those that fit, so that the share remains uniform."""
    brightness: float = _knob(0.2, 0, 1)
    """Factor uniform in [1 - brightness, 1 + brightness], as for the next two; as of torchvision's ColorJitter, in
    this order, without a cut at 0 and 255 in between."""
    contrast: float = _knob(0.2, 0, 1)
    saturation: float = _knob(0.2, 0, 1)
    hue: float = _knob(5.0, 0, 180)
    """Degrees: colours are turned about the grey axis by an angle uniform in [-hue, hue]; 120 makes red green. The
    36 degrees here are the hue=0.1 of ColorJitter."""
    blur: float = _knob(0.1, 0, 1)
    """Probability of a Gaussian blur."""
    blur_radius: float = _knob(1.0, 0, 20)
    """Pixels: the blur's standard deviation is uniform in [0, blur_radius]."""
    erase: float = _knob(0.0, 0, 1)
    """Probability of setting a random rectangle to the image's mean colour: 2 to 20 % of the area."""
    ops: Sequence[Op] = ()
    """Operations of your own, applied in this order after the others. Each has a generator that depends on (seed,
    epoch, image id, the function's name) alone."""

    @classmethod
    def of_repository(cls, folder: str | Path = ".") -> "Augment":
        """Return the augmentation of a dataset's repository: section `augment` of its params.yaml, then the operations
        of its stages/augment.py. Needs PyYAML.

        Raises:
            ValueError: as of the class.
        """
        import yaml  # the reader alone does without

        knobs = yaml.safe_load(Path(folder, "params.yaml").read_text(encoding="utf-8")).get("augment", {})
        file = Path(folder, "stages/augment.py").resolve()
        return cls(**knobs, ops=[RepositoryOp(file, name) for name in _operations(file)])

    def __post_init__(self) -> None:
        if not isinstance(self.ops, list | tuple):
            raise ValueError(f"ops must be a list of functions, is {self.ops!r}")
        faults = [fault for knob in fields(self) if knob.metadata and (fault := self._fault(knob))]
        names = [getattr(op, "__name__", None) for op in self.ops]
        functions = [name and callable(op) for op, name in zip(self.ops, names, strict=True)]
        faults += [f"{op!r} in ops is no function" for op, known in zip(self.ops, functions, strict=True) if not known]
        faults += [f"two ops are called {name}: rename one" for name in {*names} - {None} if names.count(name) > 1]
        if faults:
            raise ValueError("; ".join(faults))
        object.__setattr__(self, "ops", tuple(self.ops))

    def _fault(self, knob) -> str | None:
        """Return what is wrong with a field's value, in words."""
        value, low, high = getattr(self, knob.name), knob.metadata["ge"], knob.metadata["le"]
        number = Integral if knob.type is int else Real
        if isinstance(value, number) and low <= value <= high:
            return None
        whole = "a whole number " if number is Integral else ""
        return f"augment.{knob.name} must be {whole}between {low} and {high}, is {value!r}"

    def __call__(self, image: np.ndarray, image_id: bytes, epoch: int) -> np.ndarray:
        """Return the variant of `image` that `epoch` sees.

        Args:
            image: uint8, (H, W, 3) or (H, W, 1); not changed.
            image_id: the image's 32 bytes of identity, as the pack holds them.
            epoch: 0, 1, 2, ...

        Returns:
            uint8, of the same shape; a fresh array.

        Raises:
            ValueError: an image, an id or an epoch that is none, or one of `ops` that returns something else.
        """
        if _kind(image)[0] != "uint8" or image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
            raise ValueError(f"augment takes uint8 (H, W, 3) or (H, W, 1), not {' '.join(_kind(image))}")
        sampled = self.sample(image_id, epoch)
        picture = _move(image, sampled)
        picture = _tone(picture, sampled)
        if sampled.blur:
            picture = picture.filter(ImageFilter.GaussianBlur(sampled.blur))
        if sampled.erased:
            _erase(picture, sampled.erased)
        result = np.array(picture).reshape(image.shape)
        for op in self.ops:
            result = self._apply(op, result, image_id, epoch)
        return result

    def sample(self, image_id: bytes, epoch: int) -> Sampled:
        """Return what `epoch` does to the image of this id; __call__ applies it."""
        if not isinstance(image_id, bytes) or len(image_id) != 32:
            raise ValueError(f"an image id is 32 bytes (ids[i].tobytes()), not {image_id!r}")
        if not isinstance(epoch, Integral) or epoch < 0:
            raise ValueError(f"an epoch is 0, 1, 2, ..., not {epoch!r}")

        def draw(operation: str) -> list[float]:
            """Return four numbers uniform in [0, 1), of this image, epoch and operation alone."""
            return [number / 2**32 for number in struct.unpack("<4I", self._key(operation, image_id, epoch))]

        def around(middle: float, operation: str) -> float:
            """Return a number uniform up to the operation's knob away from `middle`."""
            amount = getattr(self, operation)
            return middle + (2 * draw(operation)[0] - 1) * amount if amount else middle

        blurred, radius, *_ = draw("blur")
        return Sampled(
            hflip=draw("hflip")[0] < self.hflip,
            vflip=draw("vflip")[0] < self.vflip,
            angle=around(0.0, "rotate"),
            box=self._box(*draw("crop")),
            brightness=around(1.0, "brightness"),
            contrast=around(1.0, "contrast"),
            saturation=around(1.0, "saturation"),
            hue=around(0.0, "hue"),
            blur=radius * self.blur_radius if blurred < self.blur else 0.0,
            erased=_rectangle(*draw("rectangle")) if draw("erase")[0] < self.erase else None,
        )

    def _key(self, operation: str, image_id: bytes, epoch: int) -> bytes:
        """Return 16 bytes that are as good as random."""
        key = f"{self.seed}/{epoch}/{operation}/".encode() + image_id
        return hashlib.blake2b(key, digest_size=16).digest()

    def _box(self, share: float, ratio: float, right: float, down: float) -> tuple[float, float, float, float]:
        """Return the crop, from four numbers in [0, 1)."""
        share = 1 - share * (1 - self.crop)
        widest = min(math.log(self.aspect), -math.log(share))  # a wider one does not fit in
        ratio = math.exp((2 * ratio - 1) * widest)
        return _box_at(math.sqrt(share * ratio), math.sqrt(share / ratio), right, down)

    def _apply(self, op: Op, image: np.ndarray, image_id: bytes, epoch: int) -> np.ndarray:
        """Apply one of `ops`, with random numbers of its own."""
        key = int.from_bytes(self._key(op.__name__, image_id, epoch), "little")
        result = op(image, np.random.Generator(np.random.Philox(key=key)))
        if _kind(result) != _kind(image):
            raise ValueError(f"{op.__name__} returned {' '.join(_kind(result))}, not {' '.join(_kind(image))}")
        return result


def normalise(images: np.ndarray, mean: np.ndarray, std: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return (images / 255 - mean) / std, computed as (images - 255 mean) * (1 / (255 std)) in float32.

    Args:
        images: uint8, (..., H, W, C).
        mean, std: float32, (C,), of pixels scaled to 0..1; std is above 0. A pack has those of its train split.
        out: float32, of the shape of `images`, C-contiguous: where to write; None for a fresh array.

    Raises:
        ValueError: another shape or type.
    """
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if _kind(images)[0] != "uint8" or images.ndim < 3:
        raise ValueError(f"normalise takes uint8 (..., H, W, C), not {' '.join(_kind(images))}")
    *_, width, channels = images.shape
    if mean.shape != (channels,) or std.shape != (channels,) or not (std > 0).all():
        raise ValueError(f"mean and std must be {channels} numbers, std above 0; they are {mean} and {std}")
    if out is None:
        out = np.empty(images.shape, np.float32)
    if _kind(out) != ("float32", str(images.shape)) or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous float32 {images.shape}, not {' '.join(_kind(out))}")
    rows, results = images.reshape(-1, width * channels), out.reshape(-1, width * channels)
    shift, scale = np.tile(255 * mean, width), np.tile(1 / (255 * std), width)  # loops over rows, not over channels
    step = max(1, 2**16 // max(1, width * channels))  # what a core's cache holds
    for start in range(0, len(rows), step):
        block = results[start : start + step]
        block[...] = rows[start : start + step]
        block -= shift
        block *= scale
    return out


def _kind(array: np.ndarray) -> tuple[str, ...]:
    """Return data type and shape, for comparison and messages; the type of what is no array."""
    return (str(array.dtype), str(array.shape)) if isinstance(array, np.ndarray) else (type(array).__name__,)


def _box_at(width: float, height: float, right: float, down: float) -> tuple[float, float, float, float]:
    """Return a box of this size, moved right and down by these shares of the room that is left."""
    left, top = right * (1 - width), down * (1 - height)
    return left, top, min(1.0, left + width), min(1.0, top + height)


def _rectangle(area: float, aspect: float, right: float, down: float) -> tuple[float, float, float, float]:
    """Return what is erased, from four numbers in [0, 1): as Zhong et al. 2017, of at most a fifth of the area."""
    area, aspect = 0.02 + 0.18 * area, 0.3 ** (2 * aspect - 1)
    return _box_at(math.sqrt(area / aspect), math.sqrt(area * aspect), right, down)


def _move(image: np.ndarray, sampled: Sampled) -> Image.Image:
    """Flip, turn and crop; the flips are exact, and the pixels interpolated once at most."""
    height, width = image.shape[:2]
    left, right = (share * width for share in sampled.box[::2])
    top, bottom = (share * height for share in sampled.box[1::2])
    if sampled.angle:
        affine, margin = _affine(sampled.angle, (left, top, right, bottom), width, height)
        if margin:
            image = np.pad(image, [(margin, margin), (margin, margin), (0, 0)], mode="symmetric")
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if sampled.hflip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if sampled.vflip:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if sampled.angle:
        return picture.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    if sampled.box != WHOLE:  # three times as fast as an affine map
        return picture.resize((width, height), Image.Resampling.BILINEAR, (left, top, right, bottom))
    return picture


def _affine(angle: float, box: tuple[float, ...], width: int, height: int) -> tuple[tuple[float, ...], int]:
    """Return where pixels come from: the six numbers of Image.transform, and the margin that the image needs.

    Multiples of 2^-20: with these, coordinates and interpolation are exact in double precision.
    """
    left, top, right, bottom = box
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    across, down = (right - left) * cos / 2, (right - left) * sin / 2  # from the box's centre to its right edge,
    back, along = (bottom - top) * sin / 2, (bottom - top) * cos / 2  # and to its lower edge
    x, y = (left + right) / 2, (top + bottom) / 2
    beyond_x = abs(across) + abs(back) - min(x, width - x)
    beyond_y = abs(down) + abs(along) - min(y, height - y)
    margin = max(0, math.ceil(max(beyond_x, beyond_y)))
    affine = (
        *(2 * across / width, -2 * back / height, margin + x - across + back),
        *(2 * down / width, 2 * along / height, margin + y - down - along),
    )
    return tuple(round(number * 2**20) / 2**20 for number in affine), margin


def _tone(picture: Image.Image, sampled: Sampled) -> Image.Image:
    """Change brightness, contrast, saturation and hue, in one pass over the pixels."""
    colours = picture.mode == "RGB" and (sampled.saturation != 1 or sampled.hue != 0)
    if sampled.brightness == 1 and sampled.contrast == 1 and not colours:
        return picture
    gain = sampled.brightness * sampled.contrast
    offset = sampled.brightness * (1 - sampled.contrast) * _luma(_mean(picture)) if sampled.contrast != 1 else 0.0
    if picture.mode == "L":
        return picture.point(lambda level: gain * level + offset)
    turned = [(1 + 2 * math.cos(math.radians(sampled.hue - 120 * k))) / 3 for k in range(3)]
    matrix = []
    for result in range(3):
        for source in range(3):
            share = sampled.saturation * turned[(result - source) % 3] + (1 - sampled.saturation) * LUMA[source]
            matrix.append(gain * share)
        matrix.append(offset)
    # multiples of 2^-12: a product of one with a level is exact in single precision
    return picture.convert("RGB", tuple(round(number * 2**12) / 2**12 for number in matrix))


def _mean(picture: Image.Image) -> tuple[int, ...] | int:
    """Return the mean colour, or the mean level of greyscale; numpy's mean over pixels takes ten times as long."""
    return picture.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))


def _luma(colour: tuple[int, ...] | int) -> float:
    return colour if isinstance(colour, int) else sum(share * level for share, level in zip(LUMA, colour, strict=True))


def _erase(picture: Image.Image, box: tuple[float, float, float, float]) -> None:
    """Blank a box of `picture` in place."""
    sides = (picture.width, picture.height) * 2
    picture.paste(_mean(picture), tuple(round(share * side) for share, side in zip(box, sides, strict=True)))
