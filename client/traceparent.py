"""A trace over several services: W3C trace context (`traceparent`, `tracestate`) out of a trace, and a trace out of it.

`traceparent` has room for ids of 32 hexadecimal digits, ours may be any string. So:

    our id                              trace-id of traceparent     what else travels
    32 hex digits, lower case           the same                    -
    UUIDv7 with dashes (a new trace)    its digits                  -
    any other form of a UUID            its digits                  tracestate: tailrace=<the id>
    any other string                    a hash of it (BLAKE2b)      tracestate: tailrace=<the id>

`tracestate` is what other vendors' libraries hand on unchanged. An id that does not fit in there (256 characters,
percent-encoded) travels in a header of its own, `tailrace-trace-id`. What arrives so is believed when it belongs to
the trace-id. A trace-id that could be a UUIDv7 of the years 2020 to 2100 is read as one unless told otherwise: of
other vendors' random ids, one in 7,000 is; all services agree on what it becomes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from os import urandom
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.context import top
from tailrace.schemas.limits import MAX_NAME

if TYPE_CHECKING:
    from tailrace.trace import Trace

ID_HEADER = "tailrace-trace-id"
_MEMBER = "tailrace="
_MAX_MEMBER = 256
_MAX_MEMBERS = 32
_MAX_TRACESTATE = 512  # what others must be able to carry
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{32}", re.ASCII)
_UUID = re.compile(
    r"(?:urn:uuid:)?\{?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?"
)
_FROM_MS, _TO_MS = 1_577_836_800_000, 4_102_444_800_000  # 2020, 2100
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16

Headers = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[Any, Any]]
"""Headers of a request as frameworks have them: a mapping, or pairs, of str or bytes; names in any case."""


class Incoming(NamedTuple):
    """What a request says about the trace that it belongs to.

    Args:
        trace_id: In the form in which the service that began it writes it.
        parent_id: The event, or another vendor's span, that the request was made in.
        sampled: Whether the trace is written.
        tracestate: What other vendors said, to be handed on.
    """

    trace_id: str
    parent_id: str
    sampled: bool
    tracestate: str


def w3c_trace_id(trace_id: str) -> str:
    """The 32 hexadecimal digits that stand for an id in `traceparent`.

    >>> w3c_trace_id("018f2a3b-4c5d-7e6f-8a9b-0c1d2e3f4a5b")
    '018f2a3b4c5d7e6f8a9b0c1d2e3f4a5b'
    >>> w3c_trace_id("order 17")
    '27d1fd430107eb9408118f0cae8ff9ef'
    """
    found = _UUID.fullmatch(trace_id.lower())
    digits = "".join(found.groups()) if found else ""
    if digits and digits != _NO_TRACE:
        return digits
    from hashlib import blake2b

    return blake2b(trace_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def trace_id_of(digits: str) -> str:
    """The id that 32 hexadecimal digits stand for when nothing else is known.

    >>> trace_id_of("018f2a3b4c5d7e6f8a9b0c1d2e3f4a5b")
    '018f2a3b-4c5d-7e6f-8a9b-0c1d2e3f4a5b'
    >>> trace_id_of("0af7651916cd43dd8448eb211c80319c")
    '0af7651916cd43dd8448eb211c80319c'
    """
    if digits[12] == "7" and digits[16] in "89ab" and _FROM_MS <= int(digits[:12], 16) < _TO_MS:
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return digits


def headers_of(trace: Trace, parent_id: str = "") -> dict[str, str]:
    """The headers that let another service join a trace; see `Trace.headers`. Never raises.

    Args:
        trace: The trace.
        parent_id: The event that the request is made in; if none is given, the current one if it is of this trace,
            or else a random number that stands for the request itself.
    """
    if not parent_id:
        entry = top()
        if entry is not None and entry.trace is trace and entry.event is not None:
            parent_id = entry.event.event_id
        else:
            parent_id = urandom(8).hex()
    digits = w3c_trace_id(trace.trace_id)
    headers = {"traceparent": f"00-{digits}-{parent_id}-{'01' if trace.sampled else '00'}"}
    members = [trace.tracestate] if trace.tracestate else []
    if trace_id_of(digits) != trace.trace_id:
        from urllib.parse import quote

        encoded = quote(trace.trace_id, safe="", errors="surrogatepass")
        if len(encoded) <= _MAX_MEMBER:
            members.insert(0, _MEMBER + encoded)
        else:
            headers[ID_HEADER] = encoded
    if members:
        headers["tracestate"] = _bounded(",".join(members))
    return headers


def read_headers(headers: Headers) -> Incoming | None:
    """What a request says; None for nothing, or nothing that can be read. Never raises."""
    try:
        found = _wanted(headers)
        parents = found.get("traceparent", [])
        if len(parents) != 1:
            return None
        match = _TRACEPARENT.fullmatch(parents[0].strip(" \t"))
        if match is None:
            return None
        version, digits, parent_id, flags, rest = match.groups()
        if version == "ff" or (version == "00" and rest) or digits == _NO_TRACE or parent_id == _NO_SPAN:
            return None
        ours, others = _split(found.get("tracestate", []))
        trace_id = trace_id_of(digits)
        for encoded in (*found.get(ID_HEADER, [])[:1], *ours[:1]):
            named = _decoded(encoded)
            if named and w3c_trace_id(named) == digits:
                trace_id = named
        return Incoming(trace_id, parent_id, bool(int(flags, 16) & 1), _bounded(others))
    except Exception:
        return None


def _wanted(headers: Any) -> dict[str, list[str]]:
    """The values of the headers that matter, by name."""
    pairs = headers.items() if hasattr(headers, "items") else headers
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        key = _as_text(name).lower()
        if key in ("traceparent", "tracestate", ID_HEADER):
            values = value if isinstance(value, list | tuple) else [value]
            found.setdefault(key, []).extend(map(_as_text, values))
    return found


def _as_text(part: Any) -> str:
    return part.decode("latin-1") if isinstance(part, bytes) else str(part)


def _split(values: list[str]) -> tuple[list[str], str]:
    """Our own members of `tracestate`, and those of others."""
    members = [member.strip(" \t") for value in values for member in value.split(",")]
    ours = [member.removeprefix(_MEMBER) for member in members if member.startswith(_MEMBER)]
    others = [member for member in members if "=" in member and not member.startswith(_MEMBER)]
    return ours, ",".join(others[: _MAX_MEMBERS - 1])


def _bounded(tracestate: str) -> str:
    """As many whole members as fit, which is all of them unless somebody exaggerates; nothing that ends a header."""
    clean = [member for member in tracestate.split(",") if member.isascii() and member.isprintable()]
    while clean and len(clean) > 1 and sum(map(len, clean)) + len(clean) - 1 > _MAX_TRACESTATE:
        clean.pop()
    return ",".join(clean)


def _decoded(encoded: str) -> str:
    if len(encoded) > 12 * MAX_NAME:
        return ""
    from urllib.parse import unquote

    named = unquote(encoded, errors="surrogatepass")
    return named if len(named) <= MAX_NAME else ""
