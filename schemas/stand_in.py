"""What a line holds of an object that was too large for it. The object's `type` stays what it is.

    {"$oversized":"spilled","size":104857660,"preview":"{\\"dtype\\":…","sha256":"9f86…",
     "path":"app.log.objects/9f/9f86….json","directory":"/var/log/shop","host":"web-1"}
    {"$oversized":"truncated","size":104857660,"preview":"{\\"dtype\\":…"}

`size` is that of the object's JSON in bytes, `preview` its beginning. Both come first, so that whoever sees only the
first bytes of a stored object knows how large it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import orjson

from tailrace.schemas.errors import DataError

MARK = "$oversized"
"""The key by which a stand-in is told from what a service logged."""
PREVIEW_BYTES = 512
"""How much of the object's JSON is kept in the line."""
FOLDER_SUFFIX = ".objects"
"""Spilled objects lie in a folder beside the log that is named like it, with this at the end."""

_HEAD = re.compile(
    rb'\{"\$oversized":"(spilled|truncated)","size":(\d{1,19}),"preview":"'
    rb'((?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*)'  # whole escapes only: the end may be cut
)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

Kept = Literal["spilled", "truncated"]


class Head(NamedTuple):
    """What the first bytes of a stand-in say."""

    kept: Kept
    size: int
    preview: str


@dataclass(frozen=True, slots=True)
class StandIn:
    """What stands in a line for an object.

    Args:
        kept: `spilled` if the whole object is in a file, `truncated` if nothing but the preview is left.
        size: Bytes of the object's JSON.
        preview: Its beginning.
        sha256: Of the JSON, in hexadecimal; of a spilled object, like all that follows.
        path: Where the file lies, from the directory of the log.
        directory: The directory of the log, as the service saw it.
        host: The machine of the service.
    """

    kept: Kept
    size: int
    preview: str
    sha256: str = ""
    path: str = ""
    directory: str = ""
    host: str = ""

    def to_json(self) -> bytes:
        """The form in a line."""
        fields = {
            MARK: self.kept,
            **{key: value for key, value in asdict(self).items() if key != "kept" and value != ""},
        }
        try:
            return orjson.dumps(fields)
        except TypeError:  # a directory whose name is not UTF-8: as escapes, which Python reads back
            return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def from_params(cls, params: Any) -> StandIn | None:
        """The stand-in that an object's params are; `None` when they are the object itself.

        Raises:
            DataError: They claim to be one and are not: nothing but a hash and its place beside a log is accepted.
        """
        if not isinstance(params, Mapping) or MARK not in params:
            return None
        kept, size, preview = params[MARK], params.get("size"), params.get("preview", "")
        texts = {key: params.get(key, "") for key in ("sha256", "path", "directory", "host")}
        if (
            kept not in ("spilled", "truncated")
            or type(size) is not int
            or not 0 <= size < 2**63
            or not all(isinstance(text, str) for text in (preview, *texts.values()))
        ):
            raise DataError(f"malformed stand-in for an oversized object: {params!r:.200}")
        stand_in = cls(kept, size, preview, **texts)
        if kept == "spilled" and not stand_in._names_its_content():
            raise DataError(
                f"a spilled object lies under the hash of its content, not at {stand_in.path!r:.200}"
            )
        return stand_in

    def _names_its_content(self) -> bool:
        folder, _, rest = self.path.partition("/")
        return (
            _SHA256.fullmatch(self.sha256) is not None
            and folder.endswith(FOLDER_SUFFIX)
            and "\0" not in folder + self.directory
            and rest == place(self.sha256)
        )

    @property
    def where(self) -> str:
        """Where the file lies, for a person: `web-1:/var/log/shop/app.log.objects/9f/9f86….json`."""
        return f"{self.host or '?'}:{self.directory.rstrip('/')}/{self.path}"


def place(sha256: str) -> str:
    """Where in the folder of objects the content of a hash lies."""
    return f"{sha256[:2]}/{sha256}.json"


def preview_of(encoded: bytes) -> str:
    """The beginning of an object's JSON as text; a character that is cut apart is left out."""
    return encoded[:PREVIEW_BYTES].decode("utf-8", "ignore")


def read_head(data: bytes) -> Head | None:
    """What the first bytes of a stored object say; `None` when it is no stand-in.

    Args:
        data: The beginning of an object's JSON, cut anywhere behind the size.
    """
    match = _HEAD.match(data)
    if match is None:
        return None
    kept: Kept = "spilled" if match[1] == b"spilled" else "truncated"
    text: str = json.loads(f'"{match[3].decode("utf-8", "ignore")}"', strict=False)
    preview = text.encode("utf-8", "backslashreplace").decode()
    return Head(kept, int(match[2]), preview)
