"""What the URL, a form and the headers of a request say, beside the statement itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

import msgspec

from tailrace.explorer.front.refusal import Refusal

_SETTING = re.compile(r"^[A-Za-z_][A-Za-z0-9_.]*$")
_MAX_FIELDS = 10_000

_NOT_SETTINGS = frozenset(
    {
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "quota_key",
        "role",
        "stacktrace",
        "session_id",
        "session_timeout",
        "session_check",
        "query_id",
        "buffer_size",
        "wait_end_of_query",
        "compress",
        "decompress",
        "client_protocol_version",
        "enable_http_compression",
        "http_zlib_compression_level",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
        "add_http_cors_header",
        "close_session",
    }
)
"""Parameters that speak to the HTTP interface. Results are always complete before the first byte is sent (as with
`wait_end_of_query=1`), blocks are always in the plain Native layout (as with `client_protocol_version=0`), and a read
whose client went away is always cancelled, so several of them have nothing left to decide."""


class Parameters(msgspec.Struct, frozen=True):
    """A request, without its body.

    Args:
        query: The `query` parameter, as bytes.
        database: Where names without a database belong; empty for the front's own default.
        format: For a statement that names none; empty where the request says nothing.
        values: Server-side parameters `{name:Type}`, in ClickHouse's escaped form.
        settings: Settings of the engine, in the order in which they came.
        accepted: Content codings for the answer, best first; empty for none.
    """

    query: bytes
    database: str
    format: str
    query_id: str
    session_id: str
    session_timeout: float | None
    session_check: bool
    close_session: bool
    values: dict[str, str]
    settings: dict[str, str]
    accepted: tuple[str, ...]


def split_query_string(raw: str) -> dict[str, str]:
    """The parameters of a URL; bytes that are not UTF-8 survive as surrogates. The last of several wins.

    Raises:
        Refusal: There are too many.
    """
    try:
        return dict(
            parse_qsl(raw, keep_blank_values=True, errors="surrogateescape", max_num_fields=_MAX_FIELDS)
        )
    except ValueError as exc:
        raise Refusal(36, f"the URL cannot be read: {exc}") from None


def read(fields: Mapping[str, str], headers: Mapping[str, str]) -> Parameters:
    """What `fields` (URL and form) and `headers` say.

    Raises:
        Refusal: Something in it is malformed, or asks for what this front does not offer.
    """
    for name in ("compress", "decompress"):
        if fields.get(name, "0") not in ("0", "", "false"):
            raise Refusal(
                48,
                f"{name}=1 (ClickHouse's own block compression) is not offered: use Content-Encoding and Accept-Encoding",
            )
    values: dict[str, str] = {}
    settings: dict[str, str] = {}
    for name, value in fields.items():
        if name.startswith("param_"):
            values[name.removeprefix("param_")] = value
        elif name not in _NOT_SETTINGS:
            if not _SETTING.match(name):
                raise Refusal(115, f"Unknown setting '{name}'")
            settings[name] = value
    compression = fields.get("enable_http_compression", "0").lower() in ("1", "true")
    return Parameters(
        query=fields.get("query", "").encode("utf-8", "surrogateescape"),
        database=fields.get("database") or headers.get("X-ClickHouse-Database", ""),
        format=headers.get("X-ClickHouse-Format") or fields.get("default_format", ""),
        query_id=fields.get("query_id", ""),
        session_id=fields.get("session_id", ""),
        session_timeout=_seconds(fields.get("session_timeout")),
        session_check=fields.get("session_check", "0") == "1",
        close_session=fields.get("close_session", "0") == "1",
        values=values,
        settings=settings,
        accepted=_accepted(headers.get("Accept-Encoding", "")) if compression else (),
    )


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return min(3600.0, max(0.0, float(text)))
    except ValueError:
        raise Refusal(36, f"Invalid session timeout: '{text}'") from None


def _accepted(header: str) -> tuple[str, ...]:
    """The codings of an Accept-Encoding header that are not ruled out with `q=0`."""
    found = []
    for part in header.split(","):
        coding, _, weight = part.strip().partition(";")
        if coding and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            found.append(coding.strip().lower())
    return tuple(found)
