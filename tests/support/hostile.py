"""Lines that production writes on a bad day, and what must become of each."""

from __future__ import annotations

import json
from typing import NamedTuple

TS = "2026-11-20 08:00:00.000001+00:00"


class Case(NamedTuple):
    """Some bytes of a log file.

    Args:
        name: What is wrong, or odd.
        data: The bytes, with their line ends.
        rows: How many records they hold, besides those of `neighbours`.
        reasons: Of the dead letters that they become.
        blank: Lines with nothing in them.
    """

    name: str
    data: bytes
    rows: int = 0
    reasons: tuple[str, ...] = ()
    blank: int = 0

    @property
    def lines(self) -> int:
        """All lines."""
        return self.rows + len(self.reasons) + self.blank


def v1(kind: str = "text", **fields: object) -> dict[str, object]:
    """A tailrace v1 line as a document; fields of `None` are left out."""
    base = {"v": 1, "kind": kind, "ts": TS, "project_id": "hostile", "trace_id": "t"}
    return {key: value for key, value in {**base, **fields}.items() if value is not None}


def line(document: object) -> bytes:
    """A document as a line."""
    return json.dumps(document).encode() + b"\n"


def neighbour(number: int) -> bytes:
    """A valid line that stands beside the bad ones."""
    return line(v1(message=f"neighbour {number}", trace_id=f"neighbour-{number}"))


def _object(data: object) -> bytes:
    return line(v1("object", ref="r", type="t", data=data))


def _times() -> bytes:
    times = [
        "2026-11-20 08:00:00",
        "2026-11-20T08:00:00",
        1763712000,
        1763712000.5,
        1763712000123,
        "1763712000",
    ]
    times += [
        "1970-01-01T00:00:00Z",
        0,
        "2200-12-31T23:59:59.999999Z",
        7258118400,
        "2026-11-20T08:00:00+05:30",
    ]
    return b"".join(line(v1(message=f"time {value}", ts=value)) for value in times)


CASES = [
    Case("not JSON", b"Traceback (most recent call last):\n", reasons=("not_json",)),
    Case("cut JSON", line(v1(message="cut"))[:-20] + b"\n", reasons=("not_json",)),
    Case("array", b"[1, 2, 3]\n", reasons=("wrong_shape",)),
    Case("number", b"17\n", reasons=("wrong_shape",)),
    Case("wrong types", line(v1(message=17)), reasons=("wrong_shape",)),
    Case("unknown kind", line(v1("telemetry", message="m")), reasons=("unknown_kind",)),
    Case("unknown dialect", line({"hello": "world"}), reasons=("unknown_dialect",)),
    Case("newer version", line(v1(message="m", v=2)), reasons=("unknown_version",)),
    Case("no trace id", line(v1(message="m", trace_id=None)), reasons=("missing_field",)),
    Case(
        "no raymon trace id",
        line({"type": "info", "jcr": {"timestamp": TS, "project_id": "p", "ref": None, "data": "x"}}),
        reasons=("missing_field",),
    ),
    Case("20 MB line", line(v1(message="x" * 20_000_000)), reasons=("too_long",)),
    Case("20 MB without an end of JSON", b"y" * 20_000_000 + b"\n", reasons=("too_long",)),
    Case("invalid UTF-8", line(v1(message="caf?")).replace(b"?", b"\xe9"), reasons=("not_utf8",)),
    Case("invalid UTF-8 in a payload", _object("caf?").replace(b"?", b"\xe9"), reasons=("not_utf8",)),
    Case("NUL bytes", b"\x00" * 512 + b"\n", reasons=("not_json",)),
    Case("NUL in text", line(v1(message="a\x00b")), rows=1),
    Case("deep array", _object("?").replace(b'"?"', b"[" * 2000 + b"]" * 2000), reasons=("too_deep",)),
    Case("NaN and Infinity", _object([float("nan"), float("inf"), -float("inf")]), rows=1),
    Case("NaN tag", line(v1("tags", tags=[{"name": "n", "value": float("nan"), "type": "metric"}])), rows=1),
    Case("empty lines", b"\n   \n\r\n\n", blank=4),
    Case("CRLF", line(v1(message="crlf")).replace(b"\n", b"\r\n"), rows=1),
    Case("byte order mark", b"\xef\xbb\xbf" + line(v1(message="bom")), rows=1),
    Case(
        "duplicate keys",
        line(v1(message="first")).replace(b'"message"', b'"message": "zeroth", "message"'),
        rows=1,
    ),
    Case("timestamps", _times(), rows=11),
    Case("no timestamp", line(v1(message="m", ts=None)), reasons=("missing_field",)),
    Case("bad timestamp", line(v1(message="m", ts="yesterday")), reasons=("bad_timestamp",)),
    Case("timestamp out of range", line(v1(message="m", ts="2500-01-01")), reasons=("bad_timestamp",)),
    Case(
        "1,000 tags",
        line(
            v1(
                "tags",
                tags=[{"name": f"tag{number}", "value": number, "type": "metric"} for number in range(1000)],
            )
        ),
        rows=1,
    ),
    Case("5 MB object", _object("z" * 5_000_000), rows=1),
    Case("lone surrogate", line(v1(message="\ud800")), rows=1),
    Case("lone surrogate in a user", line(v1("trace", user="\ud800")), rows=1),
    Case("lone surrogate in a name", line({**v1(message="m"), "\ud800": 1}), reasons=("wrong_shape",)),
    Case(
        "lone surrogate in a nested name",
        line(v1("tags", tags=[{"name": "n", "value": {"\ud800": 1}, "type": "label"}])),
        rows=1,
    ),
    Case(
        "huge integer", line(v1("tags", tags=[{"name": "big", "value": 10**400, "type": "metric"}])), rows=1
    ),
    Case("every control character", line(v1(message="".join(map(chr, range(32))))), rows=1),
    Case("Fluent Bit", line({"@timestamp": 1.5, "log": json.dumps(v1(message="enveloped"))}), rows=1),
]
"""In this order they make one file; see `file`."""

HALF = line(v1(message="half"))[:-10]
"""What a writer that was killed leaves at the end."""


def file(cases: list[Case] = CASES) -> bytes:
    """All cases between valid neighbours, and half a line at the end."""
    parts = []
    for number, case in enumerate(cases):
        parts += [neighbour(number), case.data]
    return b"".join([*parts, neighbour(len(cases)), HALF])


def expected(cases: list[Case] = CASES) -> dict[str, object]:
    """What must come of `file`: totals as in the closing report, and dead letters by reason."""
    reasons: dict[str, int] = {"not_json": 1}  # the half line at the end
    for case in cases:
        for reason in case.reasons:
            reasons[reason] = reasons.get(reason, 0) + 1
    rows = sum(case.rows for case in cases) + len(cases) + 1
    blank = sum(case.blank for case in cases)
    dead = sum(reasons.values())
    return {
        "lines": rows + dead + blank,
        "rows": rows,
        "dead_letters": dead,
        "blank": blank,
        "reasons": reasons,
    }
