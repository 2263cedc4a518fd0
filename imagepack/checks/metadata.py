"""Metadata that says where a picture was taken, who made it or is in it, and with which camera.

Found in the bytes of a file, without decoding: EXIF, XMP and IPTC in JPEG, PNG, WebP and TIFF, EXIF and XMP in AVIF and
HEIC, and the text of PNG.
What counts is in the tables below, and in docs/output.md with the reasons. Files come from other people: every length
is checked, every loop is bounded, and what makes no sense says nothing.

Sources: EXIF 3.0 (CIPA DC-008), TIFF 6.0, XMP parts 1 to 3 (ISO 16684), IPTC IIM 4.2, PNG (third edition), and the WebP
container specification.
"""

import re
import struct
import zlib

from imagepack.images import boxes, containers
from imagepack.images.containers import Entry, Tiff

POSITION, PLACE, OWNER, PERSON, SERIAL = KINDS = (
    "GPS position",
    "place",
    "author or owner",
    "person shown",
    "serial number",
)
"""What is reported about a file: the kind of thing that it says, never what it says."""
EXIF_KINDS = {
    0x013B: OWNER,  # Artist
    0x9C9D: OWNER,  # XPAuthor
    0xA430: OWNER,  # CameraOwnerName
    0xA437: OWNER,  # Photographer
    0xA438: OWNER,  # ImageEditor
    0xA431: SERIAL,  # BodySerialNumber
    0xA435: SERIAL,  # LensSerialNumber
    0xC62F: SERIAL,  # CameraSerialNumber
}
GPS_NUMBERS, GPS_AREA = (2, 4, 20, 22), 28
"""Latitude and longitude, of the camera and of what it shows; a name of the area. Height, time and version alone say
nothing: phones write them where they may not know the position."""
SUB_DIRECTORIES, GPS_DIRECTORY = (0x014A, 0x8769), 0x8825
IPTC_KINDS = {80: OWNER, 85: OWNER, 90: PLACE, 92: PLACE, 95: PLACE, 118: OWNER, 122: OWNER}
"""By-line and its title, city, sub-location, province, contact, writer."""
XMP_KINDS = {
    POSITION: rb"(?i:GPS(?:Dest)?(?:Latitude|Longt?itude))",
    PLACE: rb"City|State|Sublocation|Location|LocationName",
    OWNER: rb"creator|Artist|Owner|OwnerName|CameraOwnerName|Photographer|ImageEditor|CaptionWriter"
    rb"|Ci(?:Email|Tel|Adr|Url)\w{0,20}",  # of CreatorContactInfo
    PERSON: rb"PersonInImage|PersonName|PersonDisplayName|(?<=mwg-rs:)Name",
    SERIAL: rb"SerialNumber|BodySerialNumber|LensSerialNumber|CameraSerialNumber",
}
XMP_FIELD = re.compile(
    rb":(?:"  # begins with one certain byte, which is what makes it fast
    + b"|".join(b"(%b)" % names for names in XMP_KINDS.values())
    + rb")(?:\s{0,9}=\s{0,9}[\"']\s{0,99}[^\"'\s]"  # an attribute
    + rb"|(?:\s[^<>]{0,200})?>(?:\s{0,99}<rdf:\w{2,11}[^<>/]{0,99}>){0,3}\s{0,99}[^<\s])"  # an element, with a list
)
"""A field that has a value; its group is the kind. The prefixes are free, the names are those of the standards."""
PNG_KEYWORDS = (
    (POSITION, re.compile(rb"(exif:)?gps\W?(dest)?(latitude|longitude|position)", re.IGNORECASE)),
    (OWNER, re.compile(rb"(exif:)?(author|artist|photographer|(camera)?owner(name)?|xpauthor)", re.IGNORECASE)),
    (SERIAL, re.compile(rb"(exif:)?(body|lens|camera)?serialnumber", re.IGNORECASE)),
)
JPEG_EXIF, JPEG_PHOTOSHOP = b"Exif\0\0", b"Photoshop 3.0\0"
JPEG_XMP, JPEG_MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
MORE_XMP_HEADER = len(JPEG_MORE_XMP) + 32 + 4 + 4
PNG_XMP, PNG_PROFILE = b"XML:com.adobe.xmp", b"Raw profile type "
MOST_BYTES = 4 * 2**20
"""The most of XMP that is looked at, and that is inflated of all texts of a PNG together."""
MOST_DIRECTORIES, MOST_OF_A_TEXT = 4096, 256
"""The most directories of a TIFF or EXIF; and bytes of a text that tell whether it says anything."""
BLANK = b"\0 \t\r\n.-?0"
UNKNOWN = (b"unknown", b"none", b"n/a")
"""What cameras write where the value was never set."""


def private(data: bytes) -> list[str]:
    """Return which of KINDS a file says, in their order; nothing for GIF and BMP.

    Looks at what stands in front of the pixels of a JPEG, and at all parts of the others. MakerNote, comments, titles
    and other free text are not looked into.
    """
    found: set[str] = set()
    try:
        if data.startswith(containers.JPEG_BEGINS):
            _in_jpeg(data, found)
        elif data.startswith(containers.PNG_BEGINS):
            _in_png(data, found)
        elif containers.is_webp(data):
            _in_webp(data, found)
        elif data.startswith(containers.TIFF_BEGINS):
            _in_tiff(data, found, is_file=True)
        elif data[4:8] == b"ftyp":
            _in_boxes(data, found)
    except (ValueError, IndexError, struct.error, zlib.error, OverflowError):  # what cannot be read says nothing
        pass
    return [kind for kind in KINDS if kind in found]


def _in_jpeg(data: bytes, found: set[str]) -> None:
    more_xmp, photoshop = [], []
    for kind, start, end in containers.jpeg_segments(data):
        if kind == containers.JPEG_SCAN:
            break
        if kind == 0xE1:
            content = data[start:end]
            if content.startswith(JPEG_EXIF):
                _in_exif(content, found)
            elif content.startswith(JPEG_XMP):
                _in_xmp(content[len(JPEG_XMP) :], found)
            elif content.startswith(JPEG_MORE_XMP):
                more_xmp.append(content[MORE_XMP_HEADER:])
        elif kind == 0xED and data.startswith(JPEG_PHOTOSHOP, start):
            photoshop.append(data[start + len(JPEG_PHOTOSHOP) : end])
    if more_xmp:
        _in_xmp(b"".join(more_xmp), found)
    if photoshop:
        _in_photoshop(b"".join(photoshop), found)


def _in_boxes(data: bytes, found: set[str]) -> None:
    """Look at the items of an AVIF, HEIC or JPEG XL that are EXIF or XMP."""
    for kind, start, end in boxes.items(data, {b"Exif", b"mime"}):
        item = data[start:end]
        if kind == b"Exif":
            _in_exif(item[4 + int.from_bytes(item[:4], "big") :] or item[4:], found)
        else:
            _in_xmp(item, found)


def _in_png(data: bytes, found: set[str]) -> None:
    left = MOST_BYTES
    for kind, start, end in containers.png_chunks(data):
        if kind == b"eXIf":
            _in_exif(data[start:end], found)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, _, text = data[start:end].partition(b"\0")
            left -= _in_png_text(kind, keyword, text, left, found)


def _in_png_text(kind: bytes, keyword: bytes, text: bytes, most: int, found: set[str]) -> int:
    """Look at a text; return how many bytes were inflated, at most `most`."""
    found.update(which for which, names in PNG_KEYWORDS if names.fullmatch(keyword) and text.strip(BLANK))
    if keyword != PNG_XMP and not keyword.startswith(PNG_PROFILE):
        return 0
    packed = kind == b"zTXt"
    text = text[1:] if packed else text
    if kind == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
    if packed and most > 0:
        with_limit = zlib.decompressobj()
        try:
            text = with_limit.decompress(text, most)
        except zlib.error:
            return 0
    if keyword == PNG_XMP:
        _in_xmp(text, found)
    else:
        _in_profile(keyword.removeprefix(PNG_PROFILE).lower(), text, found)
    return len(text) if packed else 0


def _in_profile(name: bytes, text: bytes, found: set[str]) -> None:
    """Look at what ImageMagick writes into a PNG: a line of a name, one of a length, then hexadecimal digits."""
    *_, digits = text.lstrip().split(b"\n", 2)
    try:
        content = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return
    if content.startswith(JPEG_XMP) or name == b"xmp":
        _in_xmp(content.removeprefix(JPEG_XMP), found)
    elif name in (b"exif", b"app1"):
        _in_exif(content, found)
    elif name in (b"iptc", b"8bim"):
        _in_photoshop(content, found)


def _in_webp(data: bytes, found: set[str]) -> None:
    if data[12:16] != b"VP8X":
        return
    for kind, start, end in containers.webp_chunks(data):
        if kind == b"EXIF":
            _in_exif(data[start:end], found)
        elif kind == b"XMP ":
            _in_xmp(data[start:end], found)


def _in_exif(block: bytes, found: set[str]) -> None:
    try:
        _in_tiff(block.removeprefix(JPEG_EXIF), found)
    except (ValueError, struct.error):
        return  # damaged; other parts of the file may be whole


def _in_tiff(data: bytes, found: set[str], is_file: bool = False) -> None:
    """Look at all directories of EXIF, or of a TIFF file, which may have XMP and IPTC in it."""
    tiff = Tiff(data)
    waiting, seen, left, left_bytes = [(tiff.first, False)], set(), containers.MOST_ENTRIES, MOST_BYTES
    while waiting and left > 0 and len(seen) < MOST_DIRECTORIES:
        at, of_gps = waiting.pop()
        if (at, of_gps) in seen:
            continue
        seen.add((at, of_gps))
        entries, following = tiff.directory(at)
        left -= len(entries)
        if of_gps:
            found.update(POSITION for entry in entries if _is_position(tiff, entry))
            continue
        waiting.append((following, False))
        for entry in entries:
            tag = entry.tag
            if tag in EXIF_KINDS:
                if _is_said(tiff.value(entry, MOST_OF_A_TEXT)):
                    found.add(EXIF_KINDS[tag])
            elif tag in SUB_DIRECTORIES or tag == GPS_DIRECTORY:
                if len(waiting) < MOST_DIRECTORIES:
                    waiting += [(offset, tag == GPS_DIRECTORY) for offset in tiff.numbers(entry, 9)]
            elif is_file and tag in TIFF_PARTS and left_bytes > 0:
                TIFF_PARTS[tag](tiff.value(entry, left_bytes), found)
                left_bytes -= entry.size


def _is_said(value: bytes) -> bool:
    """Return whether a text has content."""
    return bool(value.strip(BLANK)) and value.strip(b"\0 ").lower() not in UNKNOWN


def _is_position(tiff: Tiff, entry: Entry) -> bool:
    """Return whether an entry of the GPS directory says where; cameras without a fix write zeros."""
    value = tiff.value(entry, MOST_OF_A_TEXT)
    if entry.tag == GPS_AREA:
        return bool(value[8:].strip(BLANK))  # behind the name of its encoding
    if entry.tag not in GPS_NUMBERS:
        return False
    parts = [value[at : at + 4] for at in range(0, len(value), 8)] if entry.kind in (5, 10) else [value]  # numerators
    return any(part.strip(b"\0 ") for part in parts)


def _in_xmp(packet: bytes, found: set[str]) -> None:
    packet = packet[:MOST_BYTES].replace(b"\0", b"")  # it may be UTF-16
    found.update(KINDS[field.lastindex - 1] for field in XMP_FIELD.finditer(packet))


def _in_photoshop(resources: bytes, found: set[str]) -> None:
    """Look at the image resources of Photoshop, of which one is IPTC's."""
    at = resources.find(b"8BIM\4\4")
    if at < 0 or at + 7 > len(resources):
        return
    at += 6 + (resources[at + 6] + 2) // 2 * 2  # its name, padded
    _in_iptc(resources[at + 4 : at + 4 + int.from_bytes(resources[at : at + 4], "big")], found)


def _in_iptc(records: bytes, found: set[str]) -> None:
    at = 0
    while at + 5 <= len(records) and records[at] == 0x1C:
        size = int.from_bytes(records[at + 3 : at + 5], "big")
        if size >= 0x8000:  # of more than 32 KiB; none of these is
            return
        kind = IPTC_KINDS.get(records[at + 2]) if records[at + 1] == 2 else None
        if kind and records[at + 5 : at + 5 + size].strip(BLANK):
            found.add(kind)
        at += 5 + size


TIFF_PARTS = {700: _in_xmp, 33723: _in_iptc, 34377: _in_photoshop}
"""Other blocks of metadata in a TIFF file, by tag."""
