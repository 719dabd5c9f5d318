"""Pillow images as JSON and back: pixels, mode, size and palette (not EXIF, colour profiles or frames).

    {"format":"PNG","mode":"RGB","size":[w,h],"data":base64}         lossless, where PNG has the mode
    {"format":"raw","mode":"F","size":[w,h],"data":base64 of zlib}   lossless, any other mode
    {"format":"JPEG",…}                                              quality 95, when asked for by lossy=True

A palette is kept beside the pixels (`palette`: [mode, base64]), transparency of a PNG as `transparency`.
"""

from __future__ import annotations

import sys
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

from tailrace.scalar_codec import from_base64, to_base64
from tailrace.schemas.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_PNG_MODES = ("1", "L", "LA", "RGB", "RGBA")
_JPEG_MODES = ("L", "RGB")
_WIDE_MODES = ("I", "F", "I;16N")
"""Modes whose samples are stored in the byte order of the machine."""


def encode_image(image: Any, lossy: bool) -> dict[str, Any]:
    """The JSON form of an image.

    Args:
        image: A Pillow image.
        lossy: JPEG, where JPEG has the mode (L, RGB): about a fifth of the size.

    Raises:
        DataError: It is not an image.
    """
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise DataError(f"Image takes a Pillow image, not {type(image).__name__}")
    image.load()
    encoded: dict[str, Any] = {"mode": image.mode, "size": list(image.size)}
    file = BytesIO()
    if lossy and image.mode in _JPEG_MODES and all(image.size):
        image.save(file, format="JPEG", quality=95)
        return {"format": "JPEG", **encoded, "data": to_base64(file.getvalue())}
    transparency = image.info.get("transparency")
    if transparency is not None and isinstance(transparency, int | bytes | tuple):
        # What is transparent is said beside the pixels; Pillow's writers would take it from `info`.
        encoded["transparency"] = (
            {"bytes": to_base64(transparency)} if isinstance(transparency, bytes) else transparency
        )
    if image.mode in _PNG_MODES and all(image.size):
        plain = image.copy()
        plain.info = {}
        # Level 1 is several times faster than the default and a few percent larger.
        plain.save(file, format="PNG", compress_level=1)
        return {"format": "PNG", **encoded, "data": to_base64(file.getvalue())}
    if image.mode in ("P", "PA") and image.palette is not None:
        mode = image.palette.mode
        encoded["palette"] = [mode, to_base64(bytes(image.getpalette(mode) or ()))]
    if image.mode in _WIDE_MODES:
        encoded["byteorder"] = sys.byteorder
    return {"format": "raw", **encoded, "data": to_base64(zlib.compress(image.tobytes(), 1))}


def decode_image(encoded: Any) -> Image:
    """The image of a JSON form.

    Raises:
        DataError: It is not one, or the pixels are not of the size that it names.
    """
    from PIL import Image

    if not isinstance(encoded, dict):
        raise DataError(f"an image must be an object, not {type(encoded).__name__}")
    form, mode, size = encoded.get("format"), encoded.get("mode"), encoded.get("size")
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(length) is int and 0 <= length < 2**31 for length in size)
    ):
        raise DataError(f"the size of an image is [width, height], not {size!r:.100}")
    if form not in ("PNG", "JPEG", "raw") or not isinstance(mode, str):
        raise DataError(f"unknown form of image: format {form!r:.100}, mode {mode!r:.100}")
    data = from_base64(encoded.get("data"))
    try:
        if form == "raw":
            image = _raw_image(mode, (size[0], size[1]), data, encoded)
        else:
            image = open_image(data, [form])
            if image.mode != mode or list(image.size) != size:
                raise DataError(
                    f"expected a {mode} image of {size}, found {image.mode} of {list(image.size)}"
                )
        _dress(image, encoded)
    except DataError:
        raise
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, MemoryError, zlib.error) as exc:
        raise DataError(f"the image cannot be read: {exc}") from exc
    except Image.DecompressionBombError as exc:
        raise DataError(f"the image is too large to be read safely: {exc}") from exc
    return image


def open_image(data: bytes, formats: list[str]) -> Image:
    """Decode an image file, fully; only of the formats given."""
    from PIL import Image

    image = Image.open(BytesIO(data), formats=formats)
    image.load()
    # A plain Image: what the file format adds (its name, its chunks) is not part of what was logged.
    plain = image.copy()
    plain.info = {}
    return plain


def _raw_image(mode: str, size: tuple[int, int], data: bytes, encoded: dict[str, Any]) -> Image:
    from PIL import Image

    if mode in _WIDE_MODES and encoded.get("byteorder") != sys.byteorder:
        raise DataError(f"an image of mode {mode} was written on a machine of another byte order")
    bits = {
        "1": 1,
        "L": 8,
        "P": 8,
        "LA": 16,
        "PA": 16,
        "La": 16,
        "I;16": 16,
        "I;16L": 16,
        "I;16B": 16,
        "I;16N": 16,
    }
    row = (size[0] * bits.get(mode, 24 if mode in ("RGB", "YCbCr", "LAB", "HSV") else 32) + 7) // 8
    needed = row * size[1]
    inflate = zlib.decompressobj()
    pixels = inflate.decompress(data, needed + 1)
    if len(pixels) != needed or not inflate.eof:
        raise DataError(f"a {mode} image of {list(size)} needs {needed} bytes of pixels")
    return Image.frombytes(mode, size, pixels) if needed else Image.new(mode, size)


def _dress(image: Image, encoded: dict[str, Any]) -> None:
    """Put back the palette and what is transparent."""
    if "palette" in encoded:
        mode, colours = encoded["palette"]
        if mode not in ("RGB", "RGBA"):
            raise DataError(f"unknown palette {mode!r:.100}")
        image.putpalette(from_base64(colours), mode)
    if "transparency" in encoded:
        value = encoded["transparency"]
        if isinstance(value, dict):
            value = from_base64(value.get("bytes"))
        image.info["transparency"] = tuple(value) if isinstance(value, list) else value
