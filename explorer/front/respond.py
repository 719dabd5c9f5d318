"""Answers: ClickHouse's headers, and large results sent piece by piece from their file."""

from __future__ import annotations

import asyncio
from typing import IO

import msgspec
from aiohttp import web

from tailrace.explorer.front.execute import Result
from tailrace.explorer.front.refusal import Refusal

_STEP_BYTES = 1 << 20
_TYPES = {
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "csvwithnamesandtypes": "text/csv; charset=UTF-8; header=present",
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "xml": "application/xml; charset=UTF-8",
    "html": "text/html; charset=UTF-8",
    "markdown": "text/markdown; charset=UTF-8",
    "npy": "application/octet-stream",
}
_BINARY = (
    "native",
    "rowbinary",
    "parquet",
    "arrow",
    "orc",
    "avro",
    "msgpack",
    "bson",
    "protobuf",
    "capnproto",
)


def content_type(form: str) -> str:
    """The media type of a result in a format."""
    name = form.lower()
    if name in _TYPES:
        return _TYPES[name]
    if name.startswith("json"):
        lines = "eachrow" in name or name == "jsonlines"
        return "application/x-ndjson; charset=UTF-8" if lines else "application/json; charset=UTF-8"
    if name.startswith(_BINARY):
        return "application/octet-stream"
    if name.startswith(("tabseparated", "tsv")):
        return "text/tab-separated-values; charset=UTF-8"
    return "text/plain; charset=UTF-8"


def common_headers(query_id: str, timezone: str) -> dict[str, str]:
    """What stands in every answer to a statement."""
    return {
        "X-ClickHouse-Server-Display-Name": "tailrace",
        "X-ClickHouse-Query-Id": query_id,
        "X-ClickHouse-Timezone": timezone,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }


def refusal(refused: Refusal, version: str, headers: dict[str, str], head_only: bool = False) -> web.Response:
    """The answer that says no, as ClickHouse says it."""
    headers = headers | {
        "X-ClickHouse-Exception-Code": str(refused.code),
        "Content-Type": "text/plain; charset=UTF-8",
    }
    if refused.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
    if refused.status == 503:
        headers["Retry-After"] = "1"
    body = b"" if head_only else refused.body(version).encode("utf-8", "replace")
    return web.Response(status=refused.status, body=body, headers=headers)


async def send(request: web.BaseRequest, result: Result, headers: dict[str, str]) -> web.StreamResponse:
    """Send a result and close its file, whatever happens to the connection."""
    headers = headers | {"X-ClickHouse-Summary": msgspec.json.encode(result.summary).decode()}
    if result.format:
        headers["X-ClickHouse-Format"] = result.format
    headers["Content-Type"] = content_type(result.format)
    if result.coding:
        headers["Content-Encoding"] = result.coding
    if result.file is None:
        return web.Response(body=result.data, headers=headers)
    with result.file as file:
        response = web.StreamResponse(headers=headers)
        response.content_length = result.size
        await response.prepare(request)
        if request.method != "HEAD":
            await _pour(file, response)
        await response.write_eof()
    return response


async def _pour(file: IO[bytes], response: web.StreamResponse) -> None:
    while piece := await asyncio.to_thread(file.read, _STEP_BYTES):
        await response.write(piece)
