"""What can be found out about a file by its bytes alone: the costly part of validate, which its memo keeps.

Nothing here knows of paths, labels, or the thresholds that say what is wrong: after a change of those, no file has to
be decoded again.
"""

import json
from dataclasses import dataclass, field

from PIL import Image

from imagepack.checks import appearance, metadata
from imagepack.checks.appearance import Appearance
from imagepack.engine.memo import NotMemoised
from imagepack.images import decode, jpeg, strict
from imagepack.images.containers import end_of
from imagepack.images.content import Content, inspect

Seen = tuple[str, str]
"""A check code, and what was seen."""
UNSURE = ("decode_error", "later_frame_error", "resource_limit", "truncated")
"""Faults that a decoder also reports where memory was short, in words of its own: these files are decoded each time."""


@dataclass(frozen=True)
class Limits:
    """Params of section validate that decide how a file is decoded.

    Attributes:
        max_pixels, max_frames: as in params.yaml.
        split: whether later frames are images of their own.
        strict: whether a damaged JPEG is of no use.
        timeout, memory_mib: what a worker may take, since what takes more ends in another result.
    """

    max_pixels: int
    max_frames: int
    split: bool
    strict: bool
    timeout: int
    memory_mib: int


@dataclass
class Examination:
    """Of one file.

    Attributes:
        content, look: of the first frame; Content() and None where it does not decode.
        frames: how many decode.
        later: content and look of the frames behind it, where files are split.
        damage: damage that was passed over.
        ending: findings behind it all: private metadata, several frames, what stands behind the image, and what ended
            the examination.
        all_frames: how many of the last in `ending` are about the later frames too.
        transient: whether a rerun may differ (memory was short); then the memo does not keep it.
    """

    content: Content = field(default_factory=Content)
    look: Appearance | None = None
    frames: int = 0
    later: list[tuple[Content, Appearance]] = field(default_factory=list)
    damage: list[Seen] = field(default_factory=list)
    ending: list[Seen] = field(default_factory=list)
    all_frames: int = 0
    transient: bool = False


def examine(data: bytes, limits: Limits) -> bytes:
    """Decode every frame of a file, each once; an Examination, for `read`."""
    found = Examination()
    try:
        _examine(data, limits, found)
    except decode.Fault as fault:
        found.ending.append((fault.code, fault.seen))
        found.all_frames = 1
        found.transient = fault.code in UNSURE
    except MemoryError:
        found.ending.append(("resource_limit", "needs more memory than a worker may have"))
        found.transient = True
    except Exception as error:  # noqa: BLE001  (no file may end the run, however odd its pixels are)
        found.ending.append(("decode_error", f"{type(error).__name__}: {error}"[:200]))
        found.transient = True
    if private := metadata.private(data):  # also of a file that does not decode: it is pushed as others are
        found.ending.insert(0, ("private_metadata", ", ".join(private)))
    return (NotMemoised if found.transient else bytes)(json.dumps(found, default=_plain).encode())


def _plain(value: object) -> dict | str:
    """For JSON. Not by dataclasses.asdict, which copies all that it meets."""
    return value.hex() if isinstance(value, bytes) else vars(value)


def read(examined: bytes) -> Examination:
    """What `examine` has found out."""
    found = json.loads(examined)
    frames = [(found["content"], found["look"]), *found["later"]]
    (content, look), *later = [
        (Content(**content), look and Appearance(**look | {"signature": bytes.fromhex(look["signature"])}))
        for content, look in frames
    ]
    seen = {name: [tuple(each) for each in found[name]] for name in ("damage", "ending")}
    return Examination(**found | seen | {"content": content, "look": look, "later": later})


def _examine(data: bytes, limits: Limits, found: Examination) -> None:
    whole, wrong = jpeg.mend_header(data)
    if wrong:
        found.damage.append(("damaged_header", wrong))
    image = decode.open_image(whole, limits.max_pixels)
    try:
        pixels = strict.decode_strictly(image, whole)
    except decode.Fault as fault:
        if fault.code != "jpeg_damage" or limits.strict:
            raise
        found.damage.append((fault.code, fault.seen))
        pixels = None
        decode.decode(image)  # as viewers do, and preprocess
    found.content, seen = inspect(image, pixels)
    found.look, found.frames = appearance.measure(seen), 1
    for frame in strict.later_frames(image, data, limits.max_frames, limits.max_pixels, limits.split):
        found.frames += 1
        if limits.split:
            found.later.append(_later(frame))
    if found.frames > 1:
        at_least = " at least" if found.frames == limits.max_frames else ""
        found.ending.append(("multi_frame", f"{found.frames} frames{at_least}"))
    found.ending += _end(data, found.content.format, image.format == "MPO")


def _later(frame: Image.Image) -> tuple[Content, Appearance]:
    content, seen = inspect(frame, None)
    return content, appearance.measure(seen)


def _end(data: bytes, form: str, more_pictures: bool) -> list[Seen]:
    """Findings about the end of the file; behind a phone's JPEG its further pictures are in place."""
    end = end_of(data, form)
    if end is None:
        return [("missing_end_marker", f"{form} without its end")]
    if end < len(data) and not more_pictures:
        return [("trailing_bytes", f"{len(data) - end} bytes behind the image; begin with {data[end : end + 12]!r}")]
    return []
