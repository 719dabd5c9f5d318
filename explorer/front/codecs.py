"""Content codings: unpacking request bodies step by step, and choosing one for an answer.

Answers are packed by the engine itself, while it writes them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Protocol

from tailrace.explorer.front.refusal import Refusal

_OFFERED = ("lz4", "zstd", "gzip", "deflate", "br")
"""For answers, in the order of our liking: on loopback, time is worth more than size."""


class Decoder(Protocol):
    """Unpacks a body, piece by piece."""

    def decode(self, data: bytes, limit: int) -> bytes:
        """What `data` unpacks to.

        Raises:
            Refusal: It cannot be unpacked, or is larger than `limit` bytes.
        """
        ...

    def finish(self, limit: int) -> bytes:
        """What remains at the end of the body.

        Raises:
            Refusal: The body ends in the middle.
        """
        ...


def choose(accepted: Sequence[str]) -> str:
    """The coding for an answer, empty for none."""
    return next((coding for coding in _OFFERED if coding in accepted), "")


def decoder(coding: str) -> Decoder:
    """A decoder for a Content-Encoding.

    Raises:
        Refusal: It is not one that we know.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return _Identity()
    if coding in ("gzip", "x-gzip"):
        return _Framed(coding, lambda: zlib.decompressobj(wbits=31), zlib_like=True)
    if coding == "deflate":
        return _Framed(coding, zlib.decompressobj, zlib_like=True)
    if coding == "zstd":
        return _Framed(coding, _zstd)
    if coding == "lz4":
        return _Framed(coding, _lz4)
    if coding == "br":
        return _Brotli()
    raise Refusal(36, f"Unknown compression method '{coding}': gzip, deflate, zstd, lz4 and br are known")


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from backports import zstd  # type: ignore[no-redef,import-not-found,import-untyped,unused-ignore]
    return zstd.ZstdDecompressor()


def _lz4() -> Any:
    try:
        import lz4.frame  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise Refusal(48, "lz4 bodies need the Python package lz4") from None
    return lz4.frame.LZ4FrameDecompressor()


class _Identity:
    def decode(self, data: bytes, limit: int) -> bytes:
        if len(data) > limit:
            raise too_large()
        return data

    def finish(self, limit: int) -> bytes:
        return b""


class _Framed:
    """gzip, deflate, zstd and lz4: decoders of the same shape, for a body of one or several frames."""

    def __init__(self, coding: str, make: Any, *, zlib_like: bool = False) -> None:
        self._coding = coding
        self._make = make
        self._zlib_like = zlib_like
        self._frame: Any = None

    def decode(self, data: bytes, limit: int) -> bytes:
        out = bytearray()
        try:
            while data:
                if self._frame is None:
                    self._frame = self._make()
                # One byte more than allowed tells "just fits" from "too large", and a bomb is never unpacked whole.
                data = self._step(data, out, limit + 1 - len(out))
                if len(out) > limit:
                    raise too_large()
        except Refusal:
            raise
        except Exception as exc:  # zlib.error, lz4's RuntimeError and ZstdError have no common base
            raise Refusal(354, f"the body cannot be unpacked as {self._coding}: {exc}", 400) from None
        return bytes(out)

    def _step(self, data: bytes, out: bytearray, room: int) -> bytes:
        frame = self._frame
        out += frame.decompress(data, room)
        if frame.eof:
            self._frame = None
            return bytes(frame.unused_data or b"")
        if self._zlib_like:
            return bytes(frame.unconsumed_tail)
        while not frame.needs_input and len(out) < room:
            out += frame.decompress(b"", room - len(out))
            if frame.eof:
                self._frame = None
                return bytes(frame.unused_data or b"")
        if not frame.needs_input:
            raise too_large()
        return b""

    def finish(self, limit: int) -> bytes:
        if self._frame is not None:
            raise Refusal(354, f"the body ends in the middle of its {self._coding} data", 400)
        return b""


class _Brotli:
    """Unpacked as a whole, into a buffer that is made first: there is no step-by-step decoder among our dependencies, and a
    few bytes of brotli may stand for gigabytes."""

    _MAX_PACKED = 16 << 20
    _MAX_PLAIN = 64 << 20

    def __init__(self) -> None:
        self._packed = bytearray()

    def decode(self, data: bytes, limit: int) -> bytes:
        self._packed += data
        if len(self._packed) > self._MAX_PACKED:
            raise too_large()
        return b""

    def finish(self, limit: int) -> bytes:
        import cramjam

        room = min(limit, self._MAX_PLAIN)
        plain = bytearray(room + 1)  # one byte more than allowed tells "just fits" from "too large"
        try:
            size = cramjam.brotli.decompress_into(bytes(self._packed), plain)
        except cramjam.DecompressionError as exc:
            if "whole buffer" in str(exc):
                raise too_large() from None
            raise Refusal(354, f"the body cannot be unpacked as br: {exc}", 400) from None
        if size > room:
            raise too_large()
        return bytes(memoryview(plain)[:size])


def too_large() -> Refusal:
    """The answer to a body that is larger than allowed."""
    return Refusal(307, "the request body is larger than this server takes")
