"""Tags: a name and a value that say something about a trace, to slice by or to measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import orjson

from tailrace.jsonable import encode, non_finite_text
from tailrace.policy import Redact, redacted
from tailrace.schemas.limits import MAX_NAME


class Tag:
    """One tag of a trace.

    Making one never fails; what is wrong with it is found when it is logged, is counted by the logger, and
    keeps only this tag from being written.

    >>> Tag(name="prediction_time_ms", value=120.5, type="metric", group="house_prices@2.1")
    Tag(name='prediction_time_ms', value=120.5, type='metric', group='house_prices@2.1')

    Args:
        name: A non-empty string, for example `client`.
        value: A string, number, boolean or None. NaN and infinities are written as the strings `NaN`,
            `Infinity`, `-Infinity`; anything else as its JSON.
        type: Any string; `label`, `metric` and `error` have a meaning for readers.
        group: A string, or None: tags that belong together.
    """

    __slots__ = ("_wire",)

    def __init__(self, name: str, value: Any, type: str = "label", group: str | None = None) -> None:
        # Kept in the form in which it is written: most tags are read by nobody but the encoder.
        self._wire: dict[str, Any] = {"name": name, "value": value, "type": type}
        if group is not None:
            self._wire["group"] = group

    @property
    def name(self) -> str:
        """What the value is the value of."""
        return self._wire["name"]  # type: ignore[no-any-return]

    @property
    def value(self) -> Any:
        """The value, as it was given."""
        return self._wire["value"]

    @property
    def type(self) -> str:
        """`label`, `metric`, `error`, or any other string."""
        return self._wire["type"]  # type: ignore[no-any-return]

    @property
    def group(self) -> str | None:
        """What the tag belongs to, if anything."""
        return self._wire.get("group")

    def to_dict(self) -> dict[str, Any]:
        """The dict form, which `Trace.tag` takes as well."""
        return dict(self._wire)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tag) and self._wire == other._wire

    def __hash__(self) -> int:
        return hash((self.name, self.type, self.group))

    def __repr__(self) -> str:
        return f"Tag(name={self.name!r}, value={self.value!r}, type={self.type!r}, group={self.group!r})"


_GROUP = frozenset((str, type(None)))


EncodedTags = tuple[bytes | None, str, Sequence[str]]
"""The JSON list of the valid tags (None if there is none), what had to be altered ("" for nothing), and one sentence for
each tag that is left out."""


def listed(tags: Any) -> list[Any]:
    """Tags as a list: that of any iterable, and a single one as a list of one. Raises what iterating over them raises."""
    if tags.__class__ is list:
        return tags  # its class was looked at, which is quicker than isinstance
    return [tags] if isinstance(tags, Tag | Mapping) else list(tags)


def encode_tags(tags: list[Any], redact: Redact | None = None) -> EncodedTags:
    """Encode the valid ones of several `Tag` and dict. Raises nothing.

    Args:
        tags: The tags.
        redact: Is asked about the value of each.
    """
    if redact is not None:
        return _encode_carefully(tags, redact)
    wire = []
    try:
        for tag in tags:
            fields: Any = tag if tag.__class__ is dict else tag._wire if tag.__class__ is Tag else None
            name, value = fields["name"], fields["value"]
            kind = value.__class__
            # The common shapes need nothing but a look at their types.
            if (
                name.__class__ is str
                and 0 < len(name) <= MAX_NAME
                and fields["type"].__class__ is str
                and (kind is str or (kind is float and value - value == 0) or kind is int or kind is bool)
                and (len(fields) == 3 or (len(fields) == 4 and fields.get("group", 0).__class__ in _GROUP))
            ):
                wire.append(fields)
            else:
                return _encode_carefully(tags)
        return (orjson.dumps(wire) if wire else None), "", ()
    except Exception:  # not a dict, a key that is missing, an integer over 64 bit, a lone surrogate
        return _encode_carefully(tags)


def _encode_carefully(tags: list[Any], redact: Redact | None = None) -> EncodedTags:
    problems: list[str] = []
    parts: list[bytes] = []
    altered = ""
    for tag in tags:
        # `type`, not `isinstance`: a class may raise when it is asked what it is.
        wire, problem = _normalise(tag._wire if issubclass(type(tag), Tag) else tag, problems, redact)
        if wire is not None:
            part, changed = _encode_fields(wire)
            parts.append(part)
            altered = altered or problem or ("the value of a tag" if changed else "")
    return (b"[%b]" % b",".join(parts) if parts else None), altered, problems


def _normalise(tag: Any, problems: list[str], redact: Redact | None) -> tuple[dict[str, Any] | None, str]:
    """The wire form of an uncommon tag and what the redact hook got wrong, or None with a problem noted."""
    wrong = ""
    try:
        if not isinstance(tag, Mapping):
            problems.append(f"a tag must be a Tag or a dict, not {type(tag).__name__}")
            return None, ""
        name, kind, group = tag.get("name"), tag.get("type"), tag.get("group")
        if not isinstance(name, str) or not name:
            problems.append(f"the name of a tag must be a non-empty string, not {name!r:.100}")
            return None, ""
        if len(name) > MAX_NAME:
            problems.append(f"the name of tag {name[:40]!r}… has {len(name)} characters, over {MAX_NAME}")
            return None, ""
        if kind is not None and not isinstance(kind, str):
            problems.append(f"the type of tag {name!r:.100} must be a string, not {kind!r:.100}")
            return None, ""
        if "value" not in tag:
            problems.append(f"tag {name!r:.100} has no value")
            return None, ""
        wire = {"name": str.__str__(name), "value": tag["value"], "type": kind or "label"}
        if redact is not None:
            wire["value"], wrong = redacted(redact, f"tag:{name}", wire["value"])
        if issubclass(type(wire["value"]), float) and not isfinite(wire["value"]):
            # A number that JSON does not have travels as text; a metric says that it is a number all the same.
            wire["value"] = non_finite_text(wire["value"])
            wire["type"] = "metric" if wire["type"] == "label" else wire["type"]
        if group is not None:
            wire["group"] = str.__str__(group) if isinstance(group, str) else str(group)
        return wire, wrong
    except Exception as exc:
        problems.append(f"a tag could not be read: {type(exc).__name__}")
        return None, ""


def _encode_fields(tag: dict[str, Any]) -> tuple[bytes, bool]:
    parts, altered = [], False
    for key, value in tag.items():
        encoded, changed = encode(value, tokens=False)
        parts.append(b'"%b":%b' % (key.encode(), encoded))
        altered |= changed
    return b"{%b}" % b",".join(parts), altered
