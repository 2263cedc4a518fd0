"""The table of check codes: what each means, its level, and what to do about it.

Reports, `validate.levels` in params.yaml and docs/output.md are made from it, or tested against it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import create_model

from imagepack.engine.params import Section

Level = Literal["error", "warning", "info", "ignore"]
"""What a finding does: an error rejects the image, a warning or info is reported, ignore drops it."""


@dataclass(frozen=True)
class Check:
    """What validate can find out about an image.

    Attributes:
        level: unless `validate.levels` in params.yaml says another.
        meaning: completes "a file with this code ...", or "a class ...", "a table ...".
        fix: what to do about it.
        fixed: whether the level cannot be changed, since there are no pixels that could be used.
        subject: what it is about: a class or a table cannot be rejected.
        by_name: whether data/acknowledged.csv names the file by its path, because it may have no content to hash.
        knob: the key of section `validate` that decides who has this code; empty if there is none.
    """

    level: Level
    meaning: str
    fix: str
    fixed: bool = False
    subject: Literal["file", "class", "table"] = "file"
    by_name: bool = False
    knob: str = ""


CHECKS = {
    "no_label": Check(
        "error",
        "stands directly in data/raw",
        "move it into a folder named after its class",
        fixed=True,
        by_name=True,
    ),
    "bad_name": Check(
        "error",
        "has a name of more than 251 bytes or, in a zip, one that is not valid UTF-8. At one on disk DVC "
        "stops, in words that name no file: `python3 run.py` names it",
        "rename it: a name must be valid UTF-8 and leave room for .png behind it",
        fixed=True,
        by_name=True,
    ),
    "non_portable_name": Check(
        "info",
        "has a name, or stands in a folder with one, that Windows does not take",
        "rename it before someone works on Windows",
        by_name=True,
    ),
    "name_collision": Check(
        "warning",
        "has a name that is another's on disks that ignore case or the way accents are written, or stands in "
        "a class folder with such a name",
        "rename one: Windows and macOS keep only one of the two",
        by_name=True,
    ),
    "outside_link": Check(
        "warning",
        "is a link that leads out of data/raw. `dvc add` and `dvc repro` put in its place what it leads to, "
        "so this is seen only of links that came later",
        "put the image itself here: DVC stores what the link leads to today",
        by_name=True,
    ),
    "unreadable": Check(
        "error",
        "could not be read, or is a link to a folder; in a zip: is encrypted, or compressed otherwise than by deflate",
        "check that it is a file and may be read, or copy it again; in a zip: unpack it, or zip it anew "
        "without a password, by deflate",
        fixed=True,
        by_name=True,
    ),
    "empty_file": Check(
        "error",
        "has no bytes",
        "copy or download it again",
        fixed=True,
        by_name=True,
    ),
    "junk": Check(
        "error",
        "was left by a system or a program, or stands below a folder that was: .DS_Store, ._*, Thumbs.db, "
        "desktop.ini, .git*, .ipynb_checkpoints, @eaDir, .AppleDouble, \\_\\_MACOSX, .Trash*, lost+found, ... "
        "It is compared with no other file, and its folder is no class. DVC tracks it until `python3 run.py "
        "quarantine junk` moves it out; those in .dvcignore (.DS_Store, Thumbs.db) are tracked by nobody and "
        "only counted",
        "remove it: the system or a program left it there",
        fixed=True,
    ),
    "not_image": Check(
        "error",
        "is something else, such as a zip inside a zip",
        "remove it, or copy or download it again; unpack a zip",
        fixed=True,
    ),
    "unsupported_format": Check(
        "error",
        "is an image of another format: SVG, JPEG 2000, ..., or HEIC or JPEG XL [without its extra](#more-formats)",
        "convert it to 8- or 16-bit JPEG, PNG, BMP, GIF, TIFF, WebP or AVIF, or install the extra that reads "
        "it (docs/output.md, More formats)",
        fixed=True,
    ),
    "unsupported_variant": Check(
        "error",
        "is of a kind that its decoder does not read (a lossless JPEG, a TIFF compressed by JPEG 2000, JPEG "
        "XL or WebP), or that leaves open which value is white (32-bit pixels, 12-bit TIFF), or is brighter "
        "than white (AVIF and HEIC of high dynamic range), or has more text in it than pixels, though it may "
        "be whole",
        "save it as an ordinary 8- or 16-bit file of its format",
        fixed=True,
    ),
    "bomb": Check(
        "error",
        "has more pixels than `validate.max_pixels`; it is not decoded",
        "shrink it, or raise validate.max_pixels",
        fixed=True,
        knob="max_pixels",
    ),
    "truncated": Check(
        "error",
        "ends too early, or has fewer rows of pixels than it says",
        "copy or download it again: its end is missing",
        fixed=True,
    ),
    "decode_error": Check(
        "error",
        "cannot be decoded for another reason, or a checksum of its pixels is wrong, or its pixels are "
        "complete before their data end (WebP, GIF, TIFF), or bytes that no encoder writes, such as zeros, "
        "stand where there should be pixels (AVIF, HEIC)",
        "copy or download it again: its content is damaged",
        fixed=True,
    ),
    "jpeg_damage": Check(
        "error",
        "is a JPEG of which libjpeg warns, or in which zeros stand where there should be pixels: it opens, "
        "but part of the picture is wrong. With a lower level it is used as viewers show it",
        "copy or download it again: part of the picture is wrong, though most viewers do not say so",
    ),
    "damaged_header": Check(
        "warning",
        "is a JPEG whose pixels are whole, and whose colour profile lacks a part (it counts as sRGB) or in "
        "whose header stand up to 8 bytes of zeros too many",
        "save it again: the picture is whole, its colour profile or what stands around it is not",
    ),
    "later_frame_error": Check(
        "error",
        "has a frame behind the first that does not decode or is damaged (one of a kind that is not read, "
        "such as 32-bit pixels, is none where only the first is used), or has a damaged further picture "
        "(depth, gain map) in a phone's JPEG",
        "copy or download it again, or save its first frame alone",
    ),
    "decoder_crash": Check(
        "error",
        "killed the process that decoded it",
        "remove it: it killed the process that decoded it",
        fixed=True,
    ),
    "timeout": Check(
        "error",
        "took longer than `validate.timeout` to decode",
        "remove it, or raise validate.timeout",
        fixed=True,
        knob="timeout",
    ),
    "resource_limit": Check(
        "error",
        "needed more than `validate.memory_mib` to decode",
        "shrink it, or raise validate.memory_mib",
        fixed=True,
        knob="memory_mib",
    ),
    "extension_mismatch": Check(
        "warning",
        "has an extension that does not belong to its format",
        "rename it to the extension of its format",
    ),
    "trailing_bytes": Check(
        "warning",
        "has something behind the image (JPEG, PNG, GIF, WebP, AVIF, HEIC): a phone's film, padding, a second file",
        "save it again, unless you know what stands behind the image",
    ),
    "missing_end_marker": Check(
        "warning",
        "has all its pixels, and no end marker (JPEG of one scan, PNG, GIF)",
        "save it again: its pixels are all there, its end marker is not",
    ),
    "private_metadata": Check(
        "warning",
        'says where it was taken, or by or of whom: "GPS position, author or owner, serial number" ([what '
        "counts](#private-metadata)). Never what it says",
        "remove it: python3 run.py strip; or leave it, if all who get the data may know it",
    ),
    "extra_bands": Check(
        "warning",
        "is a TIFF with bands of which it does not say what they are (ExtraSamples 0, or a fourth band "
        "without that tag): its colours alone are used, and none of them as transparency",
        "save its colours alone, or with a tag that says what the others are (ExtraSamples)",
    ),
    "unused_range": Check(
        "error",
        "has 16 bits a channel and more than one tone, but no value above a quarter of white: most often 10, "
        "12 or 14 bits that were not scaled, which would come out black. A single brighter pixel hides it: "
        "such an image is at most `dark`",
        "multiply its values, so that white is 65535; if it is as dark as that, lower validate.levels.unused_range",
    ),
    "reduced_depth": Check(
        "info",
        "has more than 8 bits a channel, of which preprocess makes 8",
        "nothing, if 8 bits are enough: preprocess scales to them",
    ),
    "multi_frame": Check(
        "info",
        "has several frames: the first is used, or each is an image of its own",
        "see that validate.multi_frame is what you want: first, error or split",
        fixed=True,
        knob="multi_frame",
    ),
    "too_small": Check(
        "error",
        "has a side shorter than `validate.min_side`",
        "replace it with a larger one, or lower validate.min_side",
        knob="min_side",
    ),
    "too_large": Check(
        "warning",
        "has a side longer than `validate.max_side`",
        "shrink it, or raise validate.max_side",
        knob="max_side",
    ),
    "aspect": Check(
        "warning",
        "is longer than wide, or wider than long, by more than `validate.max_aspect`",
        "crop it, or raise validate.max_aspect",
        knob="max_aspect",
    ),
    "uniform": Check(
        "warning",
        "is of one tone: a standard deviation below `validate.uniform`",
        "remove it: it shows one tone",
        knob="uniform",
    ),
    "dark": Check(
        "warning",
        "is below `validate.dark` in 99 % of its pixels",
        "remove it if nothing can be seen, or lower validate.dark",
        knob="dark",
    ),
    "bright": Check(
        "warning",
        "is above `validate.bright` in 99 % of its pixels",
        "remove it if nothing can be seen, or raise validate.bright",
        knob="bright",
    ),
    "low_information": Check(
        "info",
        "has an entropy below `validate.low_information`",
        "look at it: it has hardly more than one tone",
        knob="low_information",
    ),
    "blurry": Check(
        "info",
        "has a sharpness below `validate.blurry`",
        "look at it: it may be out of focus",
        knob="blurry",
    ),
    "mode_mix": Check(
        "info",
        "is of another `kind` than most: CMYK, 16-bit grey, palette, grey stored as RGB, another colour profile",
        "see that preprocess treats it as you want: most others are stored otherwise",
    ),
    "exif_orientation": Check(
        "info",
        "is stored turned (a TIFF's tag is applied without a word); preprocess sets it upright",
        "nothing: preprocess turns it upright; look whether its tag is right",
    ),
    "exact_duplicate": Check(
        "error",
        "has the same bytes as an earlier one with the same label; the first is kept",
        "remove one of the two",
    ),
    "pixel_duplicate": Check(
        "error",
        "shows the same pixels as an earlier one with the same label, in other bytes",
        "remove one of the two",
    ),
    "near_duplicate": Check(
        "warning",
        "looks like an earlier one with the same label: saved again, resized, slightly lighter or darker",
        "remove one of the two, or leave both: they never stand in different splits",
        knob="near_distance",
    ),
    "label_conflict": Check(
        "error",
        "has the bytes or the pixels of one with another label; none of them is kept",
        "keep it in the one class where it belongs",
    ),
    "similar_labels": Check(
        "warning",
        "looks like one with another label, within `validate.near_distance`: a mistake, or classes that "
        "differ by something small, such as a defect",
        "see that both labels are right; if images that differ look alike here, lower validate.near_distance",
        knob="near_distance",
    ),
    "no_cell": Check(
        "error",
        "has no label where `labels.column` says which column has them: no row, an empty cell, one that cannot be a "
        "class's name, or a number that is not finite",
        "give it a row with a label in the table; docs/tables.md also says how to write that it has none of several",
        fixed=True,
        by_name=True,
    ),
    "no_row": Check(
        "warning",
        "lies at or below the folder of a table that has no row of it",
        "give it a row, or remove it",
        by_name=True,
    ),
    "label_mismatch": Check(
        "warning",
        "lies in a folder called like one class, and has another as label in the table, which counts",
        "see which is right, and move the image or change the cell",
    ),
    "row_without_image": Check(
        "warning",
        "has a row whose image is not there",
        "remove the row, or bring the image back",
        subject="table",
    ),
    "similar_class_names": Check(
        "warning",
        "has a name that is another's but for case, spaces, accents or punctuation",
        "make one of the two, if they are the same",
        subject="class",
    ),
    "class_too_small": Check(
        "warning",
        "has fewer accepted images than `validate.min_class_images`",
        "add images, or lower validate.min_class_images",
        subject="class",
    ),
    "class_imbalance": Check(
        "warning",
        "has `validate.max_class_ratio` times fewer accepted images than the largest",
        "add images, weight the classes in training, or raise validate.max_class_ratio",
        subject="class",
    ),
}
"""The template's own, by code."""

Checks = Mapping[str, Check]


def levels_section(checks: Checks) -> type[Section]:
    """Return the class of params section `validate.levels`: a field for each check whose level may be changed."""
    kinds = {True: Level, False: Literal["warning", "info", "ignore"]}
    fields = {code: (kinds[check.subject == "file"], check.level) for code, check in checks.items() if not check.fixed}
    return create_model("Levels", __base__=Section, __doc__="Levels of findings.", **fields)


def keepable(checks: Checks) -> set[str]:
    """Return the codes in spite of which data/acknowledged.csv may keep an image: its pixels can be used.

    Not jpeg_damage: its level decides how all JPEGs are decoded.
    """
    usable = {code for code, check in checks.items() if not check.fixed and check.subject == "file"}
    return usable - {"jpeg_damage"} | {"multi_frame"}
