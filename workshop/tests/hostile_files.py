"""Malformed and odd image files, made here byte by byte: each function returns {file name: bytes}, always the same."""

import contextlib
import io
import itertools
import random
import struct
import zlib
from collections.abc import Iterator

from conftest import picture
from PIL import Image, ImageCms

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row, column step and row step of each pass."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By PNG colour type."""
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "La", "CMYK", "YCbCr", "LAB", "HSV")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
TIFF_COMPRESSIONS = (None, "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg", "lzma", "zstd")
TIFF_COMPRESSIONS += ("group3", "group4", "tiff_ccitt")
SAVED = {
    "jpg": ("JPEG", ({}, {"progressive": True}, {"quality": 100, "subsampling": 0})),
    "png": ("PNG", ({}, {"bits": 1}, {"bits": 2}, {"bits": 4}, {"transparency": 0})),
    "gif": ("GIF", ({}, {"interlace": 0}, {"transparency": 0})),
    "bmp": ("BMP", ({},)),
    "dib": ("DIB", ({},)),
    "tif": (
        "TIFF",
        (*({"compression": name} for name in TIFF_COMPRESSIONS), {"big_tiff": True}),
    ),
    "webp": ("WEBP", ({}, {"lossless": True})),
    "avif": ("AVIF", ({}, {"quality": 100})),
}
"""By extension: Pillow's format and the ways to save in it."""
FAR = 2**31 - 1
Files = dict[str, bytes]


# Building blocks.


def encoded(form: str, image: Image.Image | None = None, **options) -> bytes:
    """An image file of format `form`."""
    file = io.BytesIO()
    (image or picture(1)).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A part of a PNG file, with a CRC of its own or a right one."""
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(
    width: int = 40,
    height: int = 32,
    bits: int = 8,
    colour: int = 0,
    interlaced: bool = False,
    rows: bytes | None = None,
    before: bytes = b"",
    middle: bytes | None = None,
    after: bytes = b"",
) -> bytes:
    """A PNG.

    Args:
        width, height, bits, colour: what its header says.
        interlaced: by Adam7.
        rows: filter bytes and samples; None for what the header says.
        before, after: chunks before and behind the pixels.
        middle: chunks in place of the pixels.
    """
    if colour == 3 and b"PLTE" not in before:
        before = chunk(b"PLTE", bytes(range(256)) * 3)[: 8 + 3 * 2 ** min(bits, 8)] + before
        palette = bytes(value * 255 // (2**bits - 1) for value in range(2**bits) for _ in range(3))
        before = chunk(b"PLTE", palette) + before[8 + 3 * 2 ** min(bits, 8) :]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))
    if middle is None:
        middle = chunk(
            b"IDAT", zlib.compress(scanlines(width, height, bits, colour, interlaced) if rows is None else rows)
        )
    return PNG_MAGIC + header + before + middle + after + chunk(b"IEND", b"")


def scanlines(width: int, height: int, bits: int, colour: int, interlaced: bool) -> bytes:
    """What the pixels of a PNG are before they are compressed: noise, unfiltered."""
    noise = random.Random(f"{width} {height} {bits} {colour}")
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    lines = []
    for left, top, right, down in passes:
        columns, count = -(-(width - left) // right), -(-(height - top) // down)
        length = (columns * bits * CHANNELS.get(colour, 1) + 7) // 8
        lines += [b"\0" + noise.randbytes(length) for _ in range(count if columns > 0 else 0)]
    return b"".join(lines)


def gif(frames: int = 1, width: int = 40, height: int = 32, trailer: bytes = b";", **changes) -> bytes:
    """A GIF of black frames; `changes` are arguments of gif_frame."""
    screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return screen + gif_frame(width, height, **changes) * frames + trailer


def gif_frame(
    width: int, height: int, left: int = 0, top: int = 0, code_size: int = 2, pixels: int | None = None
) -> bytes:
    """A black frame: before every two pixels a clear code, so that all codes are of 3 bits."""
    count = width * height if pixels is None else pixels
    codes = [code for i in range(count) for code in ((4, 0) if i % 2 == 0 else (0,))] + [5]
    bits = "".join(format(code, "03b") for code in reversed(codes))
    data = int(bits, 2).to_bytes(-(-len(bits) // 8), "little")
    blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
    return struct.pack("<BHHHHB", 0x2C, left, top, width, height, 0) + bytes([code_size]) + blocks + b"\0"


def bmp(width: int = 40, height: int = 32, bits: int = 24, method: int = 0, colours: int = 0, **changes) -> bytes:
    """A BMP; `changes` are header (its size), at (where the pixels are), pixels, palette and planes."""
    palette = changes.get("palette", bytes(range(256)) * 4 if bits <= 8 else b"")
    stride = (abs(width) * bits + 31) // 32 * 4
    pixels = changes.get("pixels")
    if pixels is None:
        pixels = bytes(min(stride * abs(height), 100_000))
    size = changes.get("header", 40)
    info = struct.pack("<IiiHHIIiiII", size, width, height, changes.get("planes", 1), bits, method, 0, 0, 0, colours, 0)
    info = info[: max(size, 4)] if size <= 40 else info + bytes(min(size, 124) - 40)
    at = changes.get("at", 14 + len(info) + len(palette))
    return (
        struct.pack("<2sIHHI", b"BM", 14 + len(info) + len(palette) + len(pixels), 0, 0, at) + info + palette + pixels
    )


def tiff(
    changes: dict[int, tuple[int, int, int] | None] | None = None,
    width: int = 40,
    height: int = 32,
    pixels: bytes | None = None,
    following: int = 0,
    order: str = "<",
    entries: int | None = None,
) -> bytes:
    """A grey TIFF: header, directory, pixels.

    Args:
        changes: by tag, (type, count, value) in place of what is right, or None to leave it out.
        width, height: of the picture.
        pixels: the one strip.
        following: where the next directory is.
        order: of the bytes.
        entries: how many the directory says it has.
    """
    pixels = bytes(i % 251 for i in range(width * height)) if pixels is None else pixels
    tags = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 0),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, len(pixels)),
    } | (changes or {})
    tags = {tag: entry for tag, entry in tags.items() if entry}
    at = 8 + 2 + 12 * len(tags) + 4
    if tags.get(273) == (4, 1, 0):
        tags[273] = (4, 1, at)
    shorts = {3: "HxxH"[:1] + "xx", 8: "hxx", 1: "Bxxx", 6: "bxxx"}
    directory = b"".join(
        struct.pack(order + "HHI" + (shorts.get(kind, "I") if count == 1 else "I"), tag, kind, count, value)
        for tag, (kind, count, value) in sorted(tags.items())
    )
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    count = len(tags) if entries is None else entries
    return head + struct.pack(order + "H", count) + directory + struct.pack(order + "I", following) + pixels


def riff(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    """A WebP file of these chunks."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def webp_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a WebP file."""
    chunks, at = [], 12
    while at < len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return chunks


def segment(marker: int, data: bytes) -> bytes:
    """A part of a JPEG file."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(*segments: bytes, data: bytes | None = None) -> bytes:
    """A JPEG with these parts at its beginning."""
    data = data or encoded("JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def exif(entries: list[tuple[int, int, int, bytes]], following: int = 0, order: str = "<", more: bytes = b"") -> bytes:
    """An EXIF block: tag, type, count and the four bytes of the value or of its place."""
    directory = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return head + struct.pack(order + "H", len(entries)) + directory + struct.pack(order + "I", following) + more


def zeros(mib: int, wrap: int = 15) -> bytes:
    """That many MiB of zeros, compressed."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, wrap)
    return b"".join([*(compressor.compress(bytes(2**20)) for _ in range(mib)), compressor.flush()])


# Good files of every kind, and where their parts begin.


def good() -> Files:
    """A good file of every kind that the others are made from."""
    frames = {"save_all": True, "append_images": [picture(2), picture(3)], "duration": 50}
    grey, cmyk, palette, clear = (picture(1, mode=mode) for mode in ("L", "CMYK", "P", "RGBA"))
    clear.putalpha(picture(5, mode="L"))
    rgb = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    return {
        "baseline.jpg": encoded("JPEG"),
        "progressive.jpg": encoded("JPEG", progressive=True),
        "grey.jpg": encoded("JPEG", grey),
        "cmyk.jpg": encoded("JPEG", cmyk),
        "cmyk_progressive.jpg": encoded("JPEG", cmyk, progressive=True),
        "restarts.jpg": encoded("JPEG", restart_marker_blocks=2),
        "described.jpg": encoded("JPEG", exif=exif([(0x112, 3, 1, b"\6\0\0\0")]), icc_profile=srgb(), comment=b"hi"),
        "phone.jpg": encoded("MPO", save_all=True, append_images=[picture(2)]),
        "plain.png": encoded("PNG"),
        "palette.png": encoded("PNG", palette),
        "alpha.png": encoded("PNG", clear),
        "interlaced.png": png(colour=2, interlaced=True),
        "interlaced_bits.png": png(37, 33, bits=2, colour=0, interlaced=True),
        "deep.png": png(bits=16),
        "deep_colour.png": png(bits=16, colour=2),
        "deep_alpha.png": png(bits=16, colour=6),
        "one_clear_grey.png": png(before=chunk(b"tRNS", b"\0\7")),
        "one_clear_deep.png": png(bits=16, before=chunk(b"tRNS", b"\x9c\x40")),
        "one_clear_bit.png": png(bits=1, before=chunk(b"tRNS", b"\0\1")),
        "one_clear_four_bits.png": png(bits=4, before=chunk(b"tRNS", b"\0\7")),
        "one_clear_colour.png": png(colour=2, before=rgb),
        "one_clear_deep_colour.png": png(bits=16, colour=2, before=rgb),
        "clear_palette.png": png(bits=4, colour=3, after=b"", before=chunk(b"tRNS", bytes(range(0, 160, 10)))),
        "animated.png": encoded("PNG", **frames),
        "parts.png": png(
            middle=b"".join(chunk(b"IDAT", part) for part in _parts(zlib.compress(scanlines(40, 32, 8, 0, False)), 100))
        ),
        "plain.gif": encoded("GIF"),
        "animated.gif": encoded("GIF", **frames),
        "plain.bmp": encoded("BMP"),
        "palette.bmp": encoded("BMP", palette),
        "bit.bmp": encoded("BMP", picture(1, mode="1")),
        "runs.bmp": bmp(bits=8, method=1, pixels=(b"\x28\1\0\0" * 32) + b"\0\1"),
        "raw.tif": encoded("TIFF"),
        "directory_first.tif": tiff(),
        "big_end.tif": tiff(order=">"),
        "lzw.tif": encoded("TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded("TIFF", compression="tiff_adobe_deflate"),
        "packbits.tif": encoded("TIFF", compression="packbits"),
        "jpeg.tif": encoded("TIFF", compression="jpeg"),
        "fax.tif": encoded("TIFF", picture(1, mode="1"), compression="group4"),
        "pages.tif": encoded("TIFF", save_all=True, append_images=[picture(2), picture(3)]),
        "big.tif": encoded("TIFF", big_tiff=True),
        "lossy.webp": encoded("WEBP"),
        "lossless.webp": encoded("WEBP", lossless=True),
        "alpha.webp": encoded("WEBP", clear),
        "described.webp": encoded("WEBP", exif=exif([(0x112, 3, 1, b"\6\0\0\0")]), icc_profile=srgb(), xmp=b"<x/>"),
        "animated.webp": encoded("WEBP", **frames),
        "plain.avif": encoded("AVIF"),
        "alpha.avif": encoded("AVIF", clear, exif=exif([(0x112, 3, 1, b"\6\0\0\0")]), icc_profile=srgb()),
        "animated.avif": encoded("AVIF", **frames),
    }


def _parts(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def srgb() -> bytes:
    """A colour profile, without the time at which it was made."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)
    return bytes(profile)


def boundaries(data: bytes) -> list[int]:
    """Where the parts of a good file begin."""
    if data[:2] == b"\xff\xd8":
        found = _jpeg_boundaries(data)
    elif data[:4] == PNG_MAGIC[:4]:
        found = _png_boundaries(data)
    elif data[:3] == b"GIF":
        found = _gif_boundaries(data)
    elif data[:2] == b"BM":
        found = iter([2, 14, 14 + data[14], struct.unpack_from("<I", data, 10)[0]])
    elif data[:2] in (b"II", b"MM"):
        found = _tiff_boundaries(data)
    elif data[4:8] == b"ftyp":
        found = _box_boundaries(data)
    else:
        found = _riff_boundaries(data)
    return sorted({at for at in found if 0 <= at <= len(data)} | {len(data)})


def _jpeg_boundaries(data: bytes) -> Iterator[int]:
    at = 0
    while (at := data.find(b"\xff", at)) != -1 and at + 1 < len(data):
        marker = data[at + 1]
        if marker in (0, 0xFF):
            at += 1
            continue
        yield from (at, at + 2)
        at += 2
        if marker not in (*range(0xD0, 0xDA),):
            length = struct.unpack_from(">H", data, at)[0]
            yield from (at + 2, at + length)
            at += length


def _png_boundaries(data: bytes) -> Iterator[int]:
    at = 8
    while at < len(data):
        length = struct.unpack_from(">I", data, at)[0]
        yield from (at, at + 4, at + 8, at + 8 + length)
        at += 12 + length


def _gif_boundaries(data: bytes) -> Iterator[int]:
    yield from (6, 13)
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[at] != 0x3B:
        yield at
        if data[at] == 0x2C:
            flags = data[at + 9]
            at += 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            yield at
            at += 1
        else:
            at += 2
        while data[at]:
            yield from (at, at + 1)
            at += 1 + data[at]
        at += 1
    yield at


def _tiff_boundaries(data: bytes) -> Iterator[int]:
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    counting, entry, pointer = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    at = struct.unpack_from(order + pointer, data, 8 if big else 4)[0]
    yield from (4, 8)
    while at:
        yield at
        count = struct.unpack_from(order + counting, data, at)[0]
        at += struct.calcsize(counting)
        for _ in range(count):
            yield at
            tag, _, number, place = struct.unpack_from(order + entry, data, at)
            at += struct.calcsize("<" + entry)
            if number > 2 or tag == 273:
                yield place
        yield at
        at = struct.unpack_from(order + pointer, data, at)[0]


def _box_boundaries(data: bytes) -> Iterator[int]:
    """Of an AVIF's boxes; of the one that describes the picture also those inside."""
    at = 0
    while at < len(data):
        yield from (at, at + 4, at + 8)
        at += 12 if data[at + 4 : at + 8] == b"meta" else struct.unpack_from(">I", data, at)[0]


def _riff_boundaries(data: bytes) -> Iterator[int]:
    yield from (4, 8, 12)
    at = 12
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 4)[0]
        yield from (at, at + 4, at + 8)
        at += 8 + length + length % 2


# Families of hostile files.


def truncated() -> Files:
    """Each good file, cut at the boundaries of its parts, one byte before and behind, and inside each."""
    files = {}
    for name, data in good().items():
        stem, suffix = name.split(".")
        edges = boundaries(data)
        middles = [(one + other) // 2 for one, other in itertools.pairwise(edges)]
        places = {at + step for at in edges for step in (-1, 0, 1)} | set(middles)
        places = sorted(at for at in places if 0 <= at < len(data))
        for at in places[:: max(1, len(places) // 60)] + places[-6:]:
            files[f"{stem}_{at}_of_{len(data)}.{suffix}"] = data[:at]
    return files


def overwritten() -> Files:
    """Each good file with a flipped bit, a run of zeros, or a run of ones: at its boundaries and in between."""
    files = {}
    for name, data in good().items():
        stem, suffix = name.split(".")
        noise = random.Random(name)
        edges = boundaries(data)[:-1]
        places = edges[:: max(1, len(edges) // 12)] + [noise.randrange(len(data)) for _ in range(12)]
        for at in places:
            bit = noise.randrange(8)
            length = noise.choice((1, 4, 16, 300))
            files[f"{stem}_flip_{at}.{suffix}"] = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            files[f"{stem}_zero_{at}.{suffix}"] = (data[:at] + bytes(length) + data[at + length :])[: len(data)]
            files[f"{stem}_ones_{at}.{suffix}"] = (data[:at] + b"\xff" * 4 + data[at + 4 :])[: len(data)]
    return files


def disguised() -> Files:
    """One format's beginning on another's body, and files glued together."""
    files = {}
    heads = {
        "jpg": b"\xff\xd8\xff\xe0",
        "png": PNG_MAGIC,
        "gif": b"GIF89a",
        "bmp": b"BM",
        "tif": b"II*\0\x08\0\0\0",
        "webp": b"RIFF\0\0\0\0WEBP",
    }
    bodies = {suffix: good()[name] for suffix, name in zip(heads, _plain_names(), strict=True)}
    for suffix, head in heads.items():
        for other, body in bodies.items():
            if suffix != other:
                files[f"{suffix}_on_{other}.{suffix}"] = head + body[len(head) :]
                files[f"{suffix}_before_{other}.{suffix}"] = head + body
                files[f"{suffix}_and_{other}.{suffix}"] = bodies[suffix] + body
        files[f"alone.{suffix}"] = head
        files[f"noise.{suffix}"] = head + random.Random(suffix).randbytes(2000)
        files[f"zeros.{suffix}"] = head + bytes(2000)
        files[f"named_{suffix}.txt"] = bodies[suffix] + b"\0"
    return files


def _plain_names() -> list[str]:
    return ["baseline.jpg", "plain.png", "plain.gif", "plain.bmp", "raw.tif", "lossy.webp"]


def lying_sizes() -> Files:
    """Widths and heights that are not those of the pixels."""
    files = {}
    values = (0, 1, 39, 41, 80, 4096, 65_535, 2**16, FAR, 2**31, 2**32 - 1)
    for width, height in [(v, 32) for v in values] + [(40, v) for v in values] + [(v, v) for v in values]:
        name = f"{width}x{height}"
        rows = scanlines(40, 32, 8, 0, False)
        files[f"{name}.png"] = png(width, height, rows=rows)
        files[f"{name}_interlaced.png"] = png(width, height, interlaced=True, rows=scanlines(40, 32, 8, 0, True))
        files[f"{name}.tif"] = tiff({256: (4, 1, width), 257: (4, 1, height)})
        lzw, deflate = (good_tiff(compression) for compression in ("tiff_lzw", "tiff_adobe_deflate"))
        files[f"{name}_lzw.tif"] = _retagged(lzw, {256: width, 257: height})
        files[f"{name}_deflate.tif"] = _retagged(deflate, {256: width, 257: height})
        signed = [value - 2**32 if value >= 2**31 else value for value in (width, height)]
        files[f"{name}.bmp"] = bmp(*signed, pixels=bytes(40 * 3 * 32))
        files[f"{name}_runs.bmp"] = bmp(*signed, bits=8, method=1, pixels=(b"\x28\1\0\0" * 32) + b"\0\1")
        if width < 65_536 and height < 65_536:
            for kind in ("baseline", "progressive", "cmyk"):
                files[f"{name}_{kind}.jpg"] = _resized_jpeg(good_jpeg(kind), width, height)
            for kind in ("screen", "frame"):
                files[f"{name}_{kind}.gif"] = _resized_gif(width, height, kind)
        if width < 16_384 and height < 16_384:
            files[f"{name}_lossy.webp"] = _resized_webp(encoded("WEBP"), width, height)
            files[f"{name}_lossless.webp"] = _resized_webp(encoded("WEBP", lossless=True), width, height)
        if 0 < width <= 2**24 and 0 < height <= 2**24:
            files[f"{name}_canvas.webp"] = _resized_canvas(width, height)
    return files


def good_jpeg(kind: str) -> bytes:
    """A JPEG, `baseline`, `progressive` or `cmyk`."""
    return encoded("JPEG", picture(1, mode="CMYK" if kind == "cmyk" else "RGB"), progressive=kind == "progressive")


def good_tiff(compression: str) -> bytes:
    """A grey TIFF."""
    return encoded("TIFF", picture(1, mode="L"), compression=compression)


def _retagged(data: bytes, values: dict[int, int]) -> bytes:
    """A little-endian TIFF with other numbers, as 32 bits, in the tags of its first directory."""
    changed = bytearray(data)
    at = struct.unpack_from("<I", data, 4)[0]
    for i in range(struct.unpack_from("<H", data, at)[0]):
        place = at + 2 + 12 * i
        tag = struct.unpack_from("<H", data, place)[0]
        if tag in values:
            struct.pack_into("<HHII", changed, place, tag, 4, 1, values[tag])
    return bytes(changed)


def _resized_jpeg(data: bytes, width: int, height: int) -> bytes:
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _resized_gif(width: int, height: int, kind: str) -> bytes:
    data = bytearray(gif())
    struct.pack_into("<HH", data, 6 if kind == "screen" else data.index(b"\x2c") + 5, width, height)
    return bytes(data)


def _resized_webp(data: bytes, width: int, height: int) -> bytes:
    changed = bytearray(data)
    if data[12:16] == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0] & ~(2**28 - 1)
        struct.pack_into("<I", changed, 21, bits | (max(width, 1) - 1) & 0x3FFF | ((max(height, 1) - 1) & 0x3FFF) << 14)
    else:
        struct.pack_into("<HH", changed, 26, width, height)
    return bytes(changed)


def _resized_canvas(width: int, height: int) -> bytes:
    (kind, header), *rest = webp_chunks(encoded("WEBP", exif=exif([])))
    assert kind == b"VP8X"
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff((kind, header[:4] + size), *rest)


def odd_sizes() -> Files:
    """Pictures of one pixel, and of one long row or column."""
    files = {}
    for width, height in ((1, 1), (1, 2), (3, 1), (65_535, 1), (1, 65_535), (16_383, 1), (1, 65_500)):
        for suffix, form in (
            ("jpg", "JPEG"),
            ("png", "PNG"),
            ("gif", "GIF"),
            ("bmp", "BMP"),
            ("tif", "TIFF"),
            ("webp", "WEBP"),
        ):
            with contextlib.suppress(OSError, ValueError):
                files[f"{width}x{height}.{suffix}"] = encoded(form, Image.new("RGB", (width, height), (9, 99, 199)))
        for colour, bits in ((0, 1), (0, 16), (2, 8), (3, 4), (6, 16)):
            files[f"{width}x{height}_{colour}_{bits}.png"] = png(width, height, bits, colour, interlaced=True)
    return files


def png_faults() -> Files:
    """PNGs that break one rule each."""
    body = scanlines(40, 32, 8, 0, False)
    packed = zlib.compress(body)
    pixels = chunk(b"IDAT", packed)
    files = {
        "few_rows": png(rows=body[: 41 * 31]),
        "half_a_row": png(rows=body[:-20]),
        "one_byte_short": png(rows=body[:-1]),
        "no_rows": png(rows=b""),
        "extra_row": png(rows=body + bytes(41)),
        "many_extra_rows": png(middle=chunk(b"IDAT", zlib.compress(body + bytes(50_000_000)))),
        "no_pixels": png(middle=b""),
        "empty_pixels": png(middle=chunk(b"IDAT", b"")),
        "empty_parts": png(middle=chunk(b"IDAT", b"") * 20_000 + pixels),
        "byte_by_byte": png(middle=b"".join(chunk(b"IDAT", packed[i : i + 1]) for i in range(len(packed)))),
        "pixels_apart": png(middle=chunk(b"IDAT", packed[:99]) + chunk(b"tEXt", b"k\0v") + chunk(b"IDAT", packed[99:])),
        "no_end": png()[:-12],
        "end_twice": png(after=chunk(b"IEND", b"")),
        "end_with_data": png(after=chunk(b"IEND", b"data")),
        "header_twice": png(before=chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))),
        "header_short": PNG_MAGIC + chunk(b"IHDR", struct.pack(">II", 40, 32)) + pixels + chunk(b"IEND", b""),
        "header_long": PNG_MAGIC + chunk(b"IHDR", struct.pack(">IIBBBBB9s", 40, 32, 8, 0, 0, 0, 0, b"")) + pixels,
        "header_late": PNG_MAGIC + chunk(b"tEXt", b"k\0v") + png()[8:],
        "pixels_first": PNG_MAGIC + pixels + png()[8:],
        "wrong_check_sum": png(middle=chunk(b"IDAT", packed, crc=1)),
        "wrong_check_sum_of_text": png(before=chunk(b"tEXt", b"k\0v", crc=1)),
        "wrong_check_sum_of_text_behind": png(after=chunk(b"tEXt", b"k\0v", crc=1)),
        "wrong_check_sum_of_header": png().replace(b"\0\0\0\x28", b"\0\0\0\x29", 1),
        "wrong_adler": png(middle=chunk(b"IDAT", packed[:-4] + b"oops")),
        "no_adler": png(middle=chunk(b"IDAT", packed[:-4])),
        "bytes_behind_the_stream": png(middle=chunk(b"IDAT", packed + bytes(500))),
        "unknown_critical": png(before=chunk(b"ABCD", b"data")),
        "unknown_ancillary": png(before=chunk(b"abCd", b"data")),
        "odd_kind": png(before=chunk(b"\0\xff 1", b"data")),
        "length_far": png().replace(struct.pack(">I", len(packed)) + b"IDAT", struct.pack(">I", FAR) + b"IDAT"),
        "length_beyond": png().replace(struct.pack(">I", len(packed)) + b"IDAT", b"\xff\xff\xff\xffIDAT"),
        "length_short": png().replace(struct.pack(">I", len(packed)) + b"IDAT", b"\0\0\0\5IDAT"),
        "filter_unknown": png(rows=b"\7" + body[1:]),
        "filters_all_unknown": png(rows=b"\xff" * len(body)),
        "bits_three": png(bits=3),
        "bits_zero": png(bits=0),
        "bits_32": png(bits=32),
        "colour_five": png(colour=5),
        "bits_16_palette": png(bits=16, colour=3, before=chunk(b"PLTE", bytes(768))),
        "bits_4_colour": png(bits=4, colour=2),
        "compression_9": _changed(png(), 26, 9),
        "filter_9": _changed(png(), 27, 9),
        "interlace_9": _changed(png(), 28, 9),
        "interlace_lies": _changed(png(), 28, 1),
        "no_palette": png(colour=3, before=chunk(b"PLTE", b"")),
        "palette_short": png(bits=8, colour=3, before=chunk(b"PLTE", b"\1\2\3")),
        "palette_of_two_bytes": png(bits=8, colour=3, before=chunk(b"PLTE", b"\1\2")),
        "palette_long": png(bits=2, colour=3, before=chunk(b"PLTE", bytes(3000))),
        "palette_twice": png(bits=2, colour=3, before=chunk(b"PLTE", bytes(12)) + chunk(b"PLTE", b"\xff" * 12)),
        "palette_of_grey": png(before=chunk(b"PLTE", bytes(768))),
        "clear_palette_long": png(bits=2, colour=3, before=chunk(b"PLTE", bytes(12)) + chunk(b"tRNS", bytes(300))),
        "clear_without_palette": png(bits=2, colour=3, before=chunk(b"tRNS", bytes(2)) + chunk(b"PLTE", bytes(12))),
        "backgrounds": png(before=chunk(b"bKGD", b"\0" * 6) + chunk(b"bKGD", b"")),
        "numbers": png(before=chunk(b"gAMA", bytes(4)) + chunk(b"pHYs", b"\xff" * 9) + chunk(b"cHRM", b"\xff" * 32)),
        "numbers_short": png(before=chunk(b"gAMA", b"\0") + chunk(b"cHRM", b"\0" * 3)),
        "resolution_short": png(before=chunk(b"pHYs", b"\0")),
        "rendering_short": png(before=chunk(b"sRGB", b"")),
        "exif_short": png(before=chunk(b"eXIf", b"")),
        "text_odd": png(before=chunk(b"tEXt", b"\xff\xfe") + chunk(b"iTXt", b"k") + chunk(b"zTXt", b"k\0\7x")),
        "texts": png(before=chunk(b"tEXt", b"k\0v") * 20_000),
        "animation_of_none": png(before=chunk(b"acTL", bytes(8))),
        "animation_short": png(before=chunk(b"acTL", bytes(3))),
        "animation_endless": png(before=chunk(b"acTL", struct.pack(">II", FAR, 0))),
        "animation_out_of_order": _animated(sequence=9),
        "animation_outside": _animated(width=4000),
        "animation_empty": _animated(width=0),
    }
    for length in (0, 1, 2, 3, 6, 7):
        for colour in (0, 2, 3, 4, 6):
            files[f"clear_{length}_{colour}"] = png(colour=colour, before=chunk(b"tRNS", b"\xff" * length))
            files[f"clear_{length}_{colour}_deep"] = png(
                bits=8 if colour == 3 else 16, colour=colour, before=chunk(b"tRNS", bytes(range(length)))
            )
    return {f"{name}.png": data for name, data in files.items()}


def _changed(data: bytes, at: int, value: int) -> bytes:
    """A PNG with another byte in its header, and the right CRC."""
    header = bytearray(data[16:29])
    header[at - 16] = value
    return PNG_MAGIC + chunk(b"IHDR", bytes(header)) + data[33:]


def _animated(sequence: int = 0, width: int = 40) -> bytes:
    control = struct.pack(">IIIIIHHBB", sequence, width, 32, 0, 0, 1, 10, 0, 0)
    return png(before=chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", control))


def metadata_bombs() -> Files:
    """A few kilobytes of metadata that unpack to much, and metadata without end."""
    bomb, chunks = zeros(100), {}
    small = zlib.compress(bytes(1_000_000))
    chunks["text"] = chunk(b"zTXt", b"k\0\0" + bomb)
    chunks["texts"] = chunk(b"zTXt", b"k\0\0" + small) * 300
    chunks["international"] = chunk(b"iTXt", b"k\0\1\0\0\0" + bomb)
    chunks["internationals"] = chunk(b"iTXt", b"k\0\1\0\0\0" + small) * 300
    chunks["profile"] = chunk(b"iCCP", b"k\0\0" + bomb)
    chunks["profile_small"] = chunk(b"iCCP", b"k\0\0" + small)
    chunks["profiles"] = chunk(b"iCCP", b"k\0\0" + small) * 300
    chunks["profile_cut"] = chunk(b"iCCP", b"k\0\0" + small[:50])
    chunks["profile_odd"] = chunk(b"iCCP", b"no end") + chunk(b"iCCP", b"k\0\7" + small)
    chunks["nested"] = chunk(b"zTXt", b"k\0\0" + zlib.compress(zlib.compress(bomb)))
    chunks["long_name"] = chunk(b"zTXt", b"k" * 100_000 + b"\0\0" + small)
    chunks["raw_exif"] = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n   99999999\n" + b"00" * 100_000)
    chunks["raw_exif_odd"] = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n   9\nxyz")
    chunks["exif"] = chunk(b"eXIf", exif([(0x10E, 2, 2**31, b"\0" * 4)]) + bytes(5_000_000))
    files = {f"{name}_before.png": png(before=data) for name, data in chunks.items()}
    files |= {f"{name}_after.png": png(after=data) for name, data in chunks.items()}
    files["strip.tif"] = tiff({259: (3, 1, 8), 279: (4, 1, len(bomb))}, pixels=bomb)
    many = jpeg_with(*(segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 9) for _ in range(20_000)))
    profile = [segment(0xE2, b"ICC_PROFILE\0" + bytes([i, 255]) + bytes(65_000)) for i in range(1, 256)]
    files |= {
        "segments.jpg": many,
        "comments.jpg": jpeg_with(segment(0xFE, b"x") * 50_000),
        "tables.jpg": jpeg_with(segment(0xDB, b"\0" + b"\1" * 64) * 20_000),
        "profile.jpg": jpeg_with(*profile),
        "profile_parts_missing.jpg": jpeg_with(profile[7], profile[3], profile[7]),
        "fill_bytes.jpg": jpeg_with(b"\xff" * 500_000),
        "profile.webp": encoded("WEBP", icc_profile=bytes(5_000_000)),
        "chunks.webp": riff(*[*webp_chunks(encoded("WEBP")), *[(b"JUNK", b"x")] * 20_000]),
        "scans.jpg": many_scans(1024),
        "comments.gif": gif()[:19] + b"\x21\xfe\1x\0" * 50_000 + gif()[19:],
        "comment_blocks.gif": gif()[:19] + b"\x21\xfe" + b"\1x" * 100_000 + b"\0" + gif()[19:],
        "ends_in_comment.gif": gif()[:-1] + b"\x21\xfe" + b"\1x" * 100_000,
    }
    return files


def many_scans(side: int) -> bytes:
    """A valid grey progressive JPEG that refines each coefficient of nothing, bit by bit: 883 scans in few bytes."""
    blocks = (side // 8) ** 2
    tables = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0))
    tables += segment(0xC4, b"\0" + b"\1" + bytes(15) + b"\0")  # one code of one bit: no difference
    tables += segment(0xC4, b"\x10" + b"\1" + bytes(15) + b"\xe0")  # one code of one bit: a run of empty blocks
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(blocks // 8)
    runs, left = "", blocks
    while left:
        run = min(left, 2**15 - 1)
        if run < 2**14:
            raise ValueError(f"{blocks} blocks are no sum of runs of 16,384 to 32,767")
        runs += "0" + format(run - 2**14, "014b")
        left -= run
    runs += "1" * (-len(runs) % 8)
    data = int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    scans = []
    for k in range(1, 64):
        for high, low in [(0, 13), *((bit + 1, bit) for bit in reversed(range(13)))]:
            scans.append(segment(0xDA, bytes([1, 1, 0, k, k, high << 4 | low])) + data)
    return b"\xff\xd8" + tables + first + b"".join(scans) + b"\xff\xd9"


def jpeg_faults() -> Files:
    """JPEGs that break one rule each, and files of several pictures that lead in circles."""
    data = encoded("JPEG")
    edges = {data[at + 1]: at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] not in (0, 0xFF)}
    dqt, sof, dht, sos, eoi = (edges[marker] for marker in (0xDB, 0xC0, 0xC4, 0xDA, 0xD9))
    phone = encoded("MPO", save_all=True, append_images=[picture(2)])
    files = {
        "no_tables": data[:dqt] + data[sof:],
        "no_frame": data[:sof] + data[sof + 19 :],
        "no_huffman": data[:sof] + data[sof : sof + 19] + data[sos:],
        "no_scan": data[:sos] + data[eoi:],
        "no_end": data[:-2],
        "end_twice": data + b"\xff\xd9",
        "start_twice": b"\xff\xd8" + data,
        "two": data + data,
        "empty": b"\xff\xd8\xff\xd9",
        "table_number_9": data[: dqt + 4] + b"\x09" + data[dqt + 5 :],
        "table_length": data[: dqt + 2] + b"\xff\xff" + data[dqt + 4 :],
        "table_length_zero": data[: dqt + 2] + b"\0\0" + data[dqt + 4 :],
        "huffman_full": data[: dht + 5] + b"\xff" * 16 + data[dht + 21 :],
        "huffman_zero": data[: dht + 5] + bytes(16) + data[dht + 21 :],
        "components_0": data[: sof + 9] + b"\0" + data[sof + 10 :],
        "components_9": data[: sof + 9] + b"\x09" + data[sof + 10 :],
        "sampling_0": data[: sof + 11] + b"\0" + data[sof + 12 :],
        "sampling_15": data[: sof + 11] + b"\xff" + data[sof + 12 :],
        "sampling_odd": data[: sof + 11] + b"\x31" + data[sof + 12 :],
        "precision_12": data[: sof + 4] + b"\x0c" + data[sof + 5 :],
        "lossless": data[: sof + 1] + b"\xc3" + data[sof + 2 :],
        "arithmetic": data[: sof + 1] + b"\xc9" + data[sof + 2 :],
        "hierarchical": data[: sof + 1] + b"\xc5" + data[sof + 2 :],
        "progressive_lies": data[: sof + 1] + b"\xc2" + data[sof + 2 :],
        "frame_twice": data[:sof] + data[sof : sof + 19] * 2 + data[sof + 19 :],
        "scan_of_another": data[: sos + 5] + b"\x09" + data[sos + 6 :],
        "scan_components_0": data[: sos + 4] + b"\0" + data[sos + 5 :],
        "restart_interval_lies": jpeg_with(segment(0xDD, b"\0\1")),
        "restart_interval_short": jpeg_with(segment(0xDD, b"\0")),
        "marker_in_scan": data[: sos + 60] + b"\xff\xc4\0\2" + data[sos + 60 :],
        "restart_in_scan": data[: sos + 60] + b"\xff\xd3" + data[sos + 60 :],
        "height_later": data[: sof + 5] + b"\0\0" + data[sof + 7 :],
        "adobe_transform": jpeg_with(segment(0xEE, b"Adobe\0\x64\0\0\0\0\7")),
        "adobe_short": jpeg_with(segment(0xEE, b"Adobe")),
        "jfif_short": jpeg_with(segment(0xE0, b"JFIF\0")),
        "photoshop_lies": jpeg_with(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\xff\xff\xff\xff")),
        "profile_number": jpeg_with(segment(0xE2, b"ICC_PROFILE\0")),
        "mp_empty": jpeg_with(segment(0xE2, b"MPF\0")),
        "mp_garbage": jpeg_with(segment(0xE2, b"MPF\0" + bytes(range(200)))),
        "mp_directory_loop": jpeg_with(segment(0xE2, b"MPF\0" + exif([(0xB001, 4, 1, b"\2\0\0\0")], following=8))),
        "mp_no_entries": jpeg_with(segment(0xE2, b"MPF\0" + exif([(0xB001, 4, 1, b"\2\0\0\0")]))),
        "mp_cut": phone[: len(phone) * 3 // 4],
        "mp_first_only": phone[: phone.index(b"\xff\xd8", 2)],
    }
    for count in (0, 1, 3, 65_535, FAR, 2**32 - 1):
        files[f"mp_of_{count}"] = _multi_picture(phone, count=count)
    for at in (0, 1, 2, 500, len(phone), FAR, 2**32 - 1):
        files[f"mp_second_at_{at}"] = _multi_picture(phone, second=at)
    inner = _multi_picture(phone, second=0)
    files["mp_in_itself"] = inner
    files["mp_in_mp"] = encoded_in(phone, inner)
    files["mp_in_mp_in_mp"] = encoded_in(phone, encoded_in(phone, inner))
    return {f"{name}.jpg": data for name, data in files.items()}


def _multi_picture(phone: bytes, count: int = 2, second: int | None = None) -> bytes:
    """An MPO that says it holds `count` pictures, and where the second is, from the MPF block's beginning."""
    start = phone.index(b"MPF\0") + 4
    order = "<" if phone[start : start + 2] == b"II" else ">"
    changed = bytearray(phone)
    at = start + struct.unpack_from(order + "I", phone, start + 4)[0]
    for i in range(struct.unpack_from(order + "H", phone, at)[0]):
        place = at + 2 + 12 * i
        tag = struct.unpack_from(order + "H", phone, place)[0]
        if tag == 0xB001:
            struct.pack_into(order + "I", changed, place + 8, count)
        if tag == 0xB002 and second is not None:
            entries = start + struct.unpack_from(order + "I", phone, place + 8)[0]
            struct.pack_into(order + "I", changed, entries + 16 + 8, second)
    return bytes(changed)


def encoded_in(phone: bytes, inner: bytes) -> bytes:
    """An MPO whose second picture is `inner`."""
    return phone[: phone.index(b"\xff\xd8\xff", 2)] + inner


def exif_faults() -> Files:
    """EXIF blocks with loops, garbage and orientations that are none, in each format that has EXIF."""
    wide = b"\xff\xff\xff\xff"
    blocks = {
        "empty": b"",
        "byte": b"I",
        "garbage": bytes(range(256)),
        "header_alone": b"II*\0\x08\0\0\0",
        "far": b"II*\0\xff\xff\xff\xff",
        "at_header": b"II*\0\0\0\0\0" + bytes(50),
        "entries_far": b"II*\0\x08\0\0\0\xff\xff" + bytes(50),
        "loop": exif([(0x112, 3, 1, b"\6\0\0\0")], following=8),
        "sub_loop": exif([(0x112, 3, 1, b"\6\0\0\0"), (0x8769, 4, 1, b"\x08\0\0\0"), (0x8825, 4, 1, b"\x08\0\0\0")]),
        "sub_far": exif([(0x112, 3, 1, b"\6\0\0\0"), (0x8769, 4, 1, wide)]),
        "sub_text": exif([(0x8769, 2, 4, b"abc\0"), (0x112, 3, 1, b"\6\0\0\0")]),
        "twice": exif([(0x112, 3, 1, b"\6\0\0\0"), (0x112, 3, 1, b"\3\0\0\0")]),
        "kind_0": exif([(0x112, 0, 1, b"\6\0\0\0")]),
        "kind_255": exif([(0x112, 255, 1, b"\6\0\0\0")]),
        "none": exif([(0x112, 3, 0, b"\6\0\0\0")]),
        "two": exif([(0x112, 3, 2, b"\6\0\3\0")]),
        "far_count": exif([(0x112, 3, FAR, b"\6\0\0\0")]),
        "wide": exif([(0x112, 4, 1, wide)]),
        "negative": exif([(0x112, 9, 1, wide)]),
        "byte_value": exif([(0x112, 1, 1, b"\6\0\0\0")]),
        "text_value": exif([(0x112, 2, 2, b"6\0\0\0")]),
        "undefined": exif([(0x112, 7, 4, b"\6\0\0\0")]),
        "infinite": exif([(0x112, 11, 1, b"\0\0\x80\x7f")]),
        "no_number": exif([(0x112, 11, 1, b"\0\0\xc0\x7f")]),
        "float": exif([(0x112, 11, 1, struct.pack("<f", 6.0))]),
        "float_between": exif([(0x112, 11, 1, struct.pack("<f", 6.5))]),
        "ratio": exif([(0x112, 5, 1, b"\x1a\0\0\0")], more=struct.pack("<II", 6, 1)),
        "ratio_of_zero": exif([(0x112, 5, 1, b"\x1a\0\0\0")], more=struct.pack("<II", 6, 0)),
        "ratio_0_0": exif([(0x112, 5, 1, b"\x1a\0\0\0")], more=bytes(8)),
        "big_end": exif([(0x112, 3, 1, b"\0\6\0\0")], order=">"),
        "order_lies": b"MM" + exif([(0x112, 3, 1, b"\6\0\0\0")])[2:],
        "many": exif([(0x9000 + i % 999, 3, 1, b"\1\0\0\0") for i in range(4000)]),
    } | {f"value_{value}": exif([(0x112, 3, 1, struct.pack("<HH", value, 0))]) for value in (0, 2, 8, 9, 255, 65_535)}
    files = {}
    for name, block in blocks.items():
        files[f"{name}.jpg"] = jpeg_with(segment(0xE1, b"Exif\0\0" + block))
        files[f"{name}.png"] = png(colour=2, before=chunk(b"eXIf", block))
        files[f"{name}_behind.png"] = png(colour=2, after=chunk(b"eXIf", block))
        files[f"{name}.webp"] = encoded("WEBP", exif=block)
    twice = segment(0xE1, b"Exif\0\0" + blocks["value_2"]) + segment(0xE1, b"Exif\0\0" + blocks["value_8"])
    files["two_blocks.jpg"] = jpeg_with(twice)
    for value in ("6", "99", "-1", "x", ""):
        packet = f'<x:xmpmeta><rdf:Description tiff:Orientation="{value}"/></x:xmpmeta>'.encode()
        files[f"xmp_{value}.jpg"] = jpeg_with(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet))
        files[f"xmp_{value}.png"] = png(before=chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
    for kind, count, value in ((3, 1, 6), (3, 1, 9), (4, 1, 2**32 - 1), (3, 2, 6), (2, 1, 54), (5, 1, 4), (3, FAR, 6)):
        files[f"orientation_{kind}_{count}_{value}.tif"] = tiff({274: (kind, count, value)})
    return files


def profiles() -> Files:
    """Colour profiles that are damaged, or those of another kind of picture."""
    right = srgb()
    tags = struct.unpack_from(">I", right, 128)[0]
    blocks = {
        "cut": right[:200],
        "header_alone": right[:128],
        "cut_late": right[:-50],
        "zeroed": right[:132] + bytes(len(right) - 132),
        "tags_far": right[:128] + struct.pack(">I", 2**32 - 1) + right[132:],
        "tags_none": right[:128] + bytes(4) + right[132:],
        "tags_less": right[:128] + struct.pack(">I", tags - 5) + right[132:],
        "length_lies": struct.pack(">I", FAR) + right[4:],
        "of_cmyk": right[:16] + b"CMYK" + right[20:],
        "of_grey": right[:16] + b"GRAY" + right[20:],
        "of_lab": right[:16] + b"Lab " + right[20:],
        "named": right[:12] + b"nmcl" + right[16:],
        "link": right[:12] + b"link" + right[16:],
        "version_9": right[:8] + b"\x09" + right[9:],
        "noise": right[:128] + random.Random("profile").randbytes(len(right) - 128),
        "lab": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        "xyz": ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes(),
    }
    for i in range(0, len(right) - 4, 37):
        blocks[f"at_{i}"] = right[:i] + b"\xff\xff\xff\xfe" + right[i + 4 :]
    files = {}
    for (name, block), (suffix, form, mode) in itertools.product(
        blocks.items(),
        [("jpg", "JPEG", "RGB"), ("png", "PNG", "RGBA"), ("webp", "WEBP", "RGB"), ("tif", "TIFF", "CMYK")],
    ):
        if suffix in ("jpg", "tif") or not name.startswith("at_"):
            files[f"{name}.{suffix}"] = encoded(form, picture(1, mode=mode), icc_profile=block)
    return files


def gif_faults() -> Files:
    """GIFs that break one rule each, and one that hardly ends."""
    one = gif()
    files = {
        "endless": gif(40_000, 1, 1),
        "endless_no_trailer": gif(10_000, 4, 4, trailer=b""),
        "no_trailer": gif(trailer=b""),
        "no_trailer_animated": gif(3, trailer=b""),
        "trailer_first": one[:19] + b";" + one[19:],
        "no_frame": gif(0),
        "no_palette": one[:10] + b"\0" + one[11:13] + one[19:],
        "palette_of_two": one,
        "junk_between": gif()[:-1] + bytes(500) + gif_frame(40, 32) + b";",
        "junk_first": one[:19] + bytes(500) + one[19:],
        "version": b"GIF00x" + one[6:],
        "frame_outside": gif(left=39, top=31),
        "frame_far": gif(left=65_000, top=65_000),
        "frame_empty": _resized_gif(0, 0, "frame"),
        "pixels_few": gif(pixels=600),
        "pixels_none": gif(pixels=0),
        "pixels_many": gif(pixels=5000),
        "interlaced": one[:28] + b"\x40" + one[29:],
        "local_palette_missing": one[:28] + b"\x87" + one[29:],
        "transparent_far": one[:19] + b"\x21\xf9\4\1\0\0\xff\0" + one[19:],
        "disposal_odd": one[:19] + b"\x21\xf9\4\x1f\0\0\1\0" + one[19:],
        "control_short": one[:19] + b"\x21\xf9\0" + one[19:],
        "control_long": one[:19] + b"\x21\xf9\xff" + bytes(256) + one[19:],
        "extension_unknown": one[:19] + b"\x21\x77\3abc\0" + one[19:],
        "loops_short": one[:19] + b"\x21\xff\x0bNETSCAPE2.0\1\1\0" + one[19:],
        "small_frame_first": gif(1, 2000, 1500)[:19] + gif_frame(4, 4, 9, 9) + b";",
    } | {f"code_size_{size}": gif(code_size=size) for size in (0, 1, 3, 8, 9, 11, 12, 13, 255)}
    return {f"{name}.gif": data for name, data in files.items()}


def bmp_faults() -> Files:
    """BMPs that break one rule each."""
    files = {f"header_{size}": bmp(header=size) for size in (0, 1, 12, 16, 40, 52, 56, 64, 108, 124, 200, FAR)}
    files |= {f"bits_{bits}": bmp(bits=bits) for bits in (0, 1, 2, 3, 4, 8, 16, 24, 32, 48, 64, 65_535)}
    for method, bits in itertools.product((1, 2, 3, 4, 5, 6, 11, 99), (1, 4, 8, 16, 24, 32)):
        files[f"method_{method}_{bits}"] = bmp(bits=bits, method=method)
    files |= {f"colours_{count}": bmp(bits=8, colours=count) for count in (1, 2, 255, 257, 65_536, FAR)}
    files |= {f"at_{at}": bmp(at=at) for at in (0, 13, 20, 54, 3000, FAR)}
    for name, runs in {
        "one_run": b"\xff\1",
        "no_end": b"\x28\1\0\0" * 32,
        "end_early": b"\x28\1\0\0\0\1",
        "past_the_row": b"\xff\1" * 9 + b"\0\1",
        "past_the_end": b"\x28\1\0\0" * 90 + b"\0\1",
        "jumps": b"\0\2\xff\xff" * 500 + b"\0\1",
        "jump_cut": b"\0\2\xff",
        "jump_back": b"\x28\1\0\2\0\0" * 40 + b"\0\1",
        "literal_cut": b"\0\xff" + bytes(9),
        "literal_long": b"\0\xff" + bytes(256) + b"\0\1",
        "rows_empty": b"\0\0" * 100_000 + b"\0\1",
        "runs_empty": b"\0\1",
        "runs_none": b"",
    }.items():
        files[f"runs_{name}"] = bmp(bits=8, method=1, pixels=runs)
        files[f"runs_4_{name}"] = bmp(bits=4, method=2, pixels=runs)
    files |= {
        "upside_down": bmp(height=-32),
        "width_negative": bmp(width=-40),
        "planes": bmp(planes=9),
        "palette_short": bmp(bits=8, palette=b"\1\2\3\4"),
        "palette_none": bmp(bits=8, palette=b""),
        "one_byte_short": bmp()[:-1],
        "bytes_behind": bmp() + bytes(999),
    }
    return {f"{name}.bmp": data for name, data in files.items()}


def tiff_faults() -> Files:
    """TIFFs that break one rule each."""
    files = {
        "loop": tiff(following=8),
        "next_far": tiff(following=FAR),
        "next_in_pixels": tiff(following=200),
        "next_odd": tiff(following=9),
        "directory_far": b"II*\0\xff\xff\xff\x7f" + tiff()[8:],
        "directory_itself": b"II*\0\0\0\0\0" + tiff()[8:],
        "directory_at_4": b"II*\0\4\0\0\0" + tiff()[8:],
        "entries_none": tiff(entries=0),
        "entries_many": tiff(entries=65_535),
        "order_lies": b"MM\0*\0\0\0\x08" + tiff()[8:],
        "version": b"II+\0" + tiff()[4:],
        "version_43": b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + struct.pack("<Q", 2**63) + bytes(99),
        "big_far": b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63),
        "big_loop": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 0) + struct.pack("<Q", 16),
        "pages_loop": _looping_pages(),
        "pixels_short": tiff(pixels=bytes(1000)),
        "pixels_none": tiff(pixels=b""),
        "strip_length_short": tiff({279: (4, 1, 100)}),
        "strip_length_none": tiff({279: (4, 1, 0)}),
        "strip_length_missing": tiff({279: None}),
        "strip_length_far": tiff({279: (4, 1, 2**32 - 1)}),
        "strip_missing": tiff({273: None}),
        "strip_far": tiff({273: (4, 1, FAR)}),
        "strip_at_0": tiff({273: (4, 1, 1)}),
        "strips_many": tiff({273: (4, FAR, 8), 279: (4, FAR, 8)}),
        "strips_of_one_row": tiff({278: (4, 1, 1)}),
        "rows_0": tiff({278: (4, 1, 0)}),
        "rows_far": tiff({278: (4, 1, 2**32 - 1)}),
        "width_missing": tiff({256: None}),
        "height_missing": tiff({257: None}),
        "width_as_text": tiff({256: (2, 1, 65)}),
        "width_as_ratio": tiff({256: (5, 1, 8)}),
        "width_twice": tiff({256: (3, 2, 40 | 40 << 16)}),
        "text_far": tiff({270: (2, 2**32 - 1, 8)}),
        "text_cut": tiff({270: (2, 10_000, 100)}),
        "doubles_far": tiff({33_550: (12, FAR, 8)}),
        "profile_far": tiff({34_675: (7, 2**32 - 1, 8)}),
        "profile_inline": tiff({34_675: (7, 4, 8)}),
        "xmp_number": tiff({700: (3, 1, 8)}),
        "sub_directory_loop": tiff({330: (4, 1, 8)}),
        "exif_loop": tiff({34_665: (4, 1, 8)}),
        "exif_far": tiff({34_665: (4, 1, FAR)}),
        "predictor_9": tiff({317: (3, 1, 9)}),
        "predictor_3": tiff({317: (3, 1, 3), 259: (3, 1, 5)}),
        "planes_apart": tiff({284: (3, 1, 2)}),
        "planes_9": tiff({284: (3, 1, 9)}),
        "fill_order_2": tiff({266: (3, 1, 2)}),
        "tiles_0": tiff({322: (4, 1, 0), 323: (4, 1, 0), 324: (4, 1, 8), 325: (4, 1, 8)}),
        "tiles_far": tiff({322: (4, 1, FAR), 323: (4, 1, FAR), 324: (4, 1, 8), 325: (4, 1, 8)}),
        "tiles_odd": tiff({322: (4, 1, 40), 323: (4, 1, 32), 324: (4, 1, 134), 273: None, 279: None}),
        "tiles_wide": tiff({322: (4, 1, 4096), 323: (4, 1, 4096), 324: (4, 1, 134), 273: None, 279: None}),
        "palette_missing": tiff({262: (3, 1, 3)}),
        "palette_short": tiff({262: (3, 1, 3), 320: (3, 9, 8)}),
        "resolution_by_zero": tiff({282: (5, 1, 4), 283: (5, 1, 0)}),
        "white_is_0": tiff({262: (3, 1, 0)}),
        "float_8": tiff({339: (3, 1, 3)}),
        "signed": tiff({339: (3, 1, 2)}),
        "extra_samples": tiff({338: (3, 1, 2), 277: (3, 1, 2), 258: (3, 2, 8 | 8 << 16)}),
    }
    files |= {f"kind_{kind}": tiff({256: (kind, 1, 40)}) for kind in (0, 1, 6, 7, 9, 13, 16, 255)}
    files |= {f"compression_{number}": tiff({259: (3, 1, number)}) for number in COMPRESSIONS}
    files |= {f"bits_{bits}": tiff({258: (3, 1, bits)}) for bits in (0, 1, 2, 3, 4, 6, 12, 16, 24, 32, 64, 65_535)}
    files |= {f"photometric_{number}": tiff({262: (3, 1, number)}) for number in (2, 3, 4, 5, 6, 8, 9, 32_803, 65_535)}
    files |= {f"samples_{count}": tiff({277: (3, 1, count)}) for count in (0, 2, 3, 4, 5, 65_535)}
    for compression, cut in itertools.product(("tiff_lzw", "tiff_adobe_deflate", "packbits"), (1, 9, 200)):
        data = good_tiff(compression)
        length = len(data) - cut
        files[f"{compression}_strip_less_{cut}"] = _retagged(data, {279: _strip_length(data) - cut})
        files[f"{compression}_strip_more_{cut}"] = _retagged(data, {279: length})
    return {f"{name}.tif": data for name, data in files.items()}


COMPRESSIONS = (0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 32_766, 32_771, 32_773, 32_809, 32_946, 34_661, 34_676, 34_677, 34_712)
COMPRESSIONS += (34_887, 34_925, 50_000, 50_001, 65_535)


def _strip_length(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return image.tag_v2[279][0]


def _looping_pages() -> bytes:
    """Two directories, the second followed by the first."""
    first = tiff()
    second = bytearray(tiff(following=8)[8 : 8 + 2 + 12 * 9 + 4])
    return tiff(following=len(first)) + bytes(second)


def webp_faults() -> Files:
    """WebPs that break one rule each."""
    (lossy,), (lossless,) = webp_chunks(encoded("WEBP")), webp_chunks(encoded("WEBP", lossless=True))
    extended = webp_chunks(encoded("WEBP", exif=exif([]), icc_profile=srgb()))
    animated = webp_chunks(encoded("WEBP", save_all=True, append_images=[picture(2), picture(3)]))
    files = {f"size_{size}": riff(lossy, size=size) for size in (0, 4, 11, 12, 100, FAR, 2**32 - 1)}
    files |= {
        "no_chunk": riff(),
        "chunk_empty": riff((b"VP8 ", b"")),
        "chunk_lossless_empty": riff((b"VP8L", b"")),
        "two_pictures": riff(lossy, lossless),
        "header_twice": riff(extended[0], *extended),
        "header_short": riff((b"VP8X", b"\0"), *extended[1:]),
        "header_only": riff(extended[0]),
        "picture_missing": riff(*(c for c in extended if c[0] not in (b"VP8 ", b"VP8L"))),
        "order": riff(*reversed(extended)),
        "unknown_first": riff((b"ABCD", b"x" * 9), lossy),
        "unknown_behind": riff(lossy, (b"ABCD", b"x" * 9)),
        "bytes_behind": riff(lossy) + bytes(999),
        "flags": riff((b"VP8X", b"\xff" + extended[0][1][1:]), *extended[1:]),
        "alpha_missing": riff((b"VP8X", b"\x10" + extended[0][1][1:]), lossy),
        "alpha_garbage": riff((b"VP8X", b"\x10" + extended[0][1][1:]), (b"ALPH", b"\x01garbage"), lossy),
        "lossless_as_lossy": riff((b"VP8 ", lossless[1])),
        "lossy_as_lossless": riff((b"VP8L", lossy[1])),
        "lossless_version": riff((b"VP8L", lossless[1][:4] + b"\xff" + lossless[1][5:])),
        "frames_none": riff(*animated[:2]),
        "frames_cut": riff(*animated[:-1]),
        "frames_many": riff(*animated[:2], *animated[2:3] * 3000),
        "frame_outside": riff(*animated[:2], (b"ANMF", b"\xff\xff\xff" * 2 + animated[2][1][6:]), *animated[3:]),
        "frame_short": riff(*animated[:2], (b"ANMF", animated[2][1][:10]), *animated[3:]),
        "frame_last_damaged": riff(*animated[:-1], (b"ANMF", animated[-1][1][:40] + bytes(99))),
        "animation_header_missing": riff(animated[0], *animated[2:]),
    }
    return {f"{name}.webp": data for name, data in files.items()}


def every_mode() -> Files:
    """A good file of every mode that Pillow saves, in every format and way."""
    files = {}
    for mode in MODES + DEEP_MODES:
        image = _in_mode(mode)
        for suffix, (form, ways) in SAVED.items():
            for way in ways:
                if way.get("compression") in ("group3", "group4", "tiff_ccitt") and mode != "1":
                    continue  # libtiff refuses it, aloud
                if way.get("big_tiff") and mode == "I;16B":
                    continue  # Pillow writes it, but reads no BigTIFF whose bytes are in this order
                name = "_".join([mode.replace(";", ""), *(f"{key}-{value}" for key, value in way.items())])
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError, SystemError, RuntimeError):
                    files[f"{name}.{suffix}"] = encoded(form, image, **way)
    for bits, colour in itertools.product((1, 2, 4, 8, 16), CHANNELS):
        if bits in {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(colour, (8, 16)):
            files[f"{bits}_{colour}.png"] = png(bits=bits, colour=colour)
            files[f"{bits}_{colour}_interlaced.png"] = png(37, 33, bits=bits, colour=colour, interlaced=True)
    return files


def _in_mode(mode: str) -> Image.Image:
    image = picture(1)
    match mode:
        case "LAB":
            lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
            return ImageCms.applyTransform(image, lab)
        case "PA":
            return image.convert("P").convert("PA")
        case "RGBa" | "La":
            return image.convert({"RGBa": "RGBA", "La": "LA"}[mode]).convert(mode)
        case "I;16" | "I;16B" | "I;16L":
            return image.convert("L").convert("I").point(lambda value: value * 257 + 0).convert("I;16").convert(mode)
        case _:
            return image.convert(mode)
