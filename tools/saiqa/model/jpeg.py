"""Whether a JPEG holds its whole picture. Imports no torch.

A file that was truncated and closed with an end marker decodes without an error: the missing part becomes one flat colour
(sequential files) or lacks detail (progressive ones).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from PIL import Image

_END_OF_IMAGE, _SCAN = 0xD9, 0xDA
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # start of frame, of any process
_BEHIND_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # the next marker that is not a restart marker
_COEFFICIENTS = 64
_UNSEEN = 255
MOST_SCANS = 200  # pictures have ten or so; each scan takes as long as decoding the whole picture

_TWO_BLOCKS = 16  # pixels
_LOOKED_AHEAD = 16  # bytes


class CutError(ValueError):
    """A JPEG whose picture is incomplete, or that would take unreasonably long to decode."""


def check_before_decoding(content: bytes) -> None:
    """Raise ``CutError`` if a JPEG's scans do not complete every coefficient, or if there are more than ``MOST_SCANS``."""
    bits: dict[int, list[int]] = {}  # component -> for each coefficient, how many low bits are still missing
    scans = 0
    for marker, body in _segments(content):
        if marker in _FRAMES and len(body) > 5:
            bits = {component: [_UNSEEN] * _COEFFICIENTS for component in body[6 : 6 + 3 * body[5] : 3]}
        elif marker == _SCAN and body:
            scans += 1
            if scans > MOST_SCANS:
                raise CutError(f"it has more than {MOST_SCANS} scans")
            _count(bits, body)
    if not scans or any(missing for component in bits.values() for missing in component):
        raise CutError("it was cut: parts of the picture are missing")


def _count(bits: dict[int, list[int]], scan: bytes) -> None:
    """Record which bits a scan brings, from its header."""
    components = scan[1 : 1 + 2 * scan[0] : 2]
    limits = scan[1 + 2 * scan[0] :]
    if len(limits) < 3:
        raise CutError("the header of a scan is broken")
    first, last, low = limits[0], min(limits[1], _COEFFICIENTS - 1), limits[2] & 15
    for component in components:
        if component in bits:
            bits[component][first : last + 1] = [low] * (last + 1 - first)


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of each segment up to the end marker; the coded data after a scan's header is skipped."""
    at = content.find(b"\xff", 2)
    while 0 <= at < len(content) - 3:
        marker = content[at + 1]
        if marker == _END_OF_IMAGE:
            return
        if marker == 0xFF:
            at += 1
            continue
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        yield marker, content[at + 4 : at + 2 + length]
        behind = at + 2 + max(length, 2)
        following = _BEHIND_SCAN.search(content, behind) if marker == _SCAN else None
        at = following.start() if following else content.find(b"\xff", behind) if marker != _SCAN else -1


def check_decoded(image: Image.Image, content: bytes) -> None:
    """Raise ``CutError`` if the last lines of a single-scan JPEG are not in the file.

    A picture that ends in a flat colour is decoded again without its end marker: a decoder that then runs out of data does
    not fill in what is missing.
    """
    headers = [(marker, body) for marker, body in _segments(content) if marker in _FRAMES or marker == _SCAN]
    if len(headers) != 2 or not _ends_flat(image):
        return
    again = Image.open(io.BytesIO(content), formats=["JPEG"])
    again.load_prepare()
    untouched = tuple(range(1, 1 + len(again.getbands())))
    colour = untouched if len(untouched) > 1 else untouched[0]
    again.im.paste(colour, (0, 0, *again.size))
    decoder_name, extents, _, arguments = again.tile[0]
    decoder = Image._getdecoder(again.mode, decoder_name, arguments, again.decoderconfig)
    decoder.setimage(again.im, extents)
    # The decoder stops some bytes before the end of its data: pad it by that much.
    decoder.decode(content[: content.rfind(b"\xff\xd9")] + bytes(_LOOKED_AHEAD))
    again.tile = []  # nothing more is to be decoded
    if _last_line(again).getcolors(1) == [(again.width, colour)]:
        raise CutError("it was cut: the last lines of the picture are missing")


def _last_line(image: Image.Image, width: int | None = None) -> Image.Image:
    """The last line of pixels; with ``width`` only its right end."""
    left = 0 if width is None else max(0, image.width - width)
    return image.crop((left, image.height - 1, image.width, image.height))


def _ends_flat(image: Image.Image) -> bool:
    """Whether the last blocks of a decoded picture have one colour, as missing blocks do."""
    return _last_line(image, _TWO_BLOCKS).getcolors(1) is not None
