"""The same record, whichever dialect carried it; and a reason for every line that carries none."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.schemas.dialects.recognise import LineDecoder
from tailrace.schemas.errors import Reason, RecordError
from tailrace.schemas.records import RECORD_TYPES, Object, Record, Tag, Tags, Text

TS = "2026-11-21 02:59:01.021863+00:00"
JCR = {"timestamp": TS, "trace_id": "t", "project_id": "p", "ref": None}
FLAT = {"timestamp": TS, "trace_id": "t", "project_id": "p", "ref": None}
V1 = {"v": 1, "ts": TS, "trace_id": "t", "project_id": "p"}
TAG = {"type": "metric", "name": "latency", "value": "120", "group": "g"}
PAYLOAD = {"type": "raymon.types.Native", "params": {"data": {"a": [1, 2.5, None]}}}

TEXT = Text(ts=TS, trace_id="t", project_id="p", message="hällo\nworld")
TAGS = Tags(ts=TS, trace_id="t", project_id="p", tags=[Tag("latency", "120", "metric", "g")])

SAME = {
    "text": (
        TEXT,
        [
            V1 | {"kind": "text", "message": "hällo\nworld"},
            {"type": "info", "jcr": JCR | {"data": "hällo\nworld"}},
            FLAT | {"dtype": "info", "data": "hällo\nworld"},
        ],
    ),
    "tags": (
        TAGS,
        [
            V1 | {"kind": "tags", "tags": [TAG]},
            {"type": "tags", "jcr": JCR | {"data": [TAG]}},
            FLAT | {"dtype": "tags", "data": [TAG]},
        ],
    ),
}


def decode(line: bytes) -> Record:
    return LineDecoder().decode(line).record


def reason(line: bytes) -> Reason:
    with pytest.raises(RecordError) as caught:
        LineDecoder().decode(line)
    return caught.value.reason


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize(
    "spelling", ["python", "compact", "reordered", "bom", "crlf", "fluent-bit", "filebeat"]
)
def test_every_dialect_and_spelling_gives_the_same_record(kind: str, spelling: str) -> None:
    """A record does not depend on dialect, key order, white space, byte order mark, line ending or envelope."""
    expected, documents = SAME[kind]
    for document in documents:
        text = json.dumps(document)
        line = {
            "python": text,
            "compact": json.dumps(document, separators=(",", ":"), ensure_ascii=False),
            "reordered": json.dumps(dict(reversed(document.items()))),
            "bom": "\ufeff" + text,
            "crlf": text + "\r",
            "fluent-bit": json.dumps({"@timestamp": 1763712000.1, "log": text + "\n", "file": "x"}),
            "filebeat": json.dumps({"@timestamp": "2026", "message": text, "agent": {}}),
        }[spelling]
        decoded = LineDecoder().decode(line.encode())
        assert decoded.record == expected
        if spelling in ("fluent-bit", "filebeat", "bom", "crlf"):
            assert decoded.line == text.encode(), (
                "the line that is hashed and kept is the one that was written"
            )


_KINDS = ("text", "tags", "object")
_FIELDS = ({"message": 'a}\n{"v":1,"kind":'}, {"tags": [TAG, TAG]}, {"ref": "r", "data": {"v": [1, 2.5]}})
_WRITTEN = {
    "tailrace": [
        json.dumps({"v": 1, "kind": kind} | V1 | fields, separators=(",", ":"))
        for kind, fields in zip(_KINDS, _FIELDS, strict=True)
    ],
    "raymon-file": [
        json.dumps({"type": kind, "jcr": JCR | {"data": data, "ref": "r"}})
        for kind, data in (("info", 'a}\n{"type": '), ("tags", [TAG, TAG]), ("data", PAYLOAD))
    ],
}
_ODD = [
    "",
    " ",
    "{}",
    '{"type": ',
    "}",
    TS,
    '{"type": "info"}{"type": "info"}',
    '{"v":1,"kind":"text"}',
    "é",
    "\ufeff{}",
    "{}\r",
]


@given(st.sampled_from(sorted(_WRITTEN)), st.data(), st.booleans())
def test_many_lines_at_once_are_the_records_of_each(dialect: str, data: st.DataObject, ends: bool) -> None:
    """Decoding a block at once gives what decoding line by line gives, or nothing; and something where all lines are as
    one client writes them."""
    good = _WRITTEN[dialect]
    odd = st.sampled_from(_ODD) | st.sampled_from([text for texts in _WRITTEN.values() for text in texts])
    texts = data.draw(st.lists(st.sampled_from(good) | odd, min_size=1, max_size=12))
    block = ("\n".join(texts) + "\n" * ends).encode()
    found = LineDecoder().decode_all(block)
    if found is None:
        assert not set(texts) <= set(good)
        return
    records, lines = found
    assert lines == block.removesuffix(b"\n").split(b"\n")
    assert list(map(msgspec.json.encode, records)) == [msgspec.json.encode(decode(line)) for line in lines]


@pytest.mark.parametrize(
    "document",
    [
        {"type": "data", "jcr": JCR | {"ref": "r", "data": PAYLOAD}},
        FLAT | {"dtype": "object", "ref": "r", "data": PAYLOAD},
        V1 | {"kind": "object", "ref": "r", "type": PAYLOAD["type"], "data": PAYLOAD["params"]},
    ],
)
@pytest.mark.parametrize("number", [1.5, math.nan, math.inf, -math.inf, 10**30, 1e-300])
def test_an_object_keeps_its_payload_with_every_number(document: dict[str, Any], number: float) -> None:
    """The payload of an object is kept as JSON that reads back equal, NaN and infinities included."""
    text = json.dumps(document).replace("2.5", json.dumps(number))
    record = decode(text.encode())
    assert isinstance(record, Object)
    assert (record.ref, record.type) == ("r", "raymon.types.Native")
    value = json.loads(bytes(record.data))["data"]["a"][1]
    assert value == number or (math.isnan(value) and math.isnan(number))


def test_plain_json_as_raymon_data_is_kept_whole() -> None:
    """Data that is no wrapper is stored as it is, without a type."""
    record = decode(json.dumps({"type": "data", "jcr": JCR | {"ref": "r", "data": {"type": "x"}}}).encode())
    assert isinstance(record, Object)
    assert (record.type, json.loads(bytes(record.data))) == ("", {"type": "x"})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"hello", Reason.NOT_JSON),
        (b'{"v":1,"kind":"text"', Reason.NOT_JSON),
        (b"\x00\x00\x00", Reason.NOT_JSON),
        (b'{"v":1,"kind":"text","message":"\xff"}', Reason.NOT_UTF8),
        (
            json.dumps(V1 | {"kind": "object", "ref": "r", "data": "?"}).encode().replace(b"?", b"\xff"),
            Reason.NOT_UTF8,
        ),
        (b"[1,2]", Reason.WRONG_SHAPE),
        (b'"text"', Reason.WRONG_SHAPE),
        (b"{}", Reason.UNKNOWN_DIALECT),
        (b'{"log":"{}"}', Reason.UNKNOWN_DIALECT),
        (json.dumps({"log": json.dumps({"log": "{}"})}).encode(), Reason.UNKNOWN_DIALECT),
        (json.dumps(V1 | {"kind": "nope"}).encode(), Reason.UNKNOWN_KIND),
        (json.dumps(V1 | {"kind": 5}).encode(), Reason.UNKNOWN_KIND),
        (json.dumps({"type": "nope", "jcr": JCR}).encode(), Reason.UNKNOWN_KIND),
        (json.dumps(FLAT | {"dtype": "nope"}).encode(), Reason.UNKNOWN_KIND),
        (json.dumps(V1 | {"v": 2, "kind": "text", "message": "m"}).encode(), Reason.UNKNOWN_VERSION),
        (b'{"v":1,"kind":"text","ts":1,"project_id":"p","message":"m"}', Reason.MISSING_FIELD),
        (json.dumps({"type": "info", "jcr": {"timestamp": TS, "data": ""}}).encode(), Reason.MISSING_FIELD),
        (json.dumps({"type": "info", "jcr": []}).encode(), Reason.WRONG_SHAPE),
        (json.dumps(V1 | {"kind": "text", "message": "m", "trace_id": ""}).encode(), Reason.WRONG_SHAPE),
        (json.dumps(V1 | {"kind": "text", "message": "m", "trace_id": 7}).encode(), Reason.WRONG_SHAPE),
        (b'{"v":1,"kind":"tags","tags":' + b"[" * 200_000, Reason.TOO_DEEP),
        (b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}", Reason.TOO_DEEP),
        (b'{"a":' + b"9" * 5000 + b"}", Reason.WRONG_SHAPE),
    ],
)
def test_a_line_that_is_no_record_has_a_reason(line: bytes, expected: Reason) -> None:
    """Each class of fault is named, so that people can group their dead letters."""
    assert reason(line) is expected


def test_the_column_of_a_fault_is_a_byte_position() -> None:
    """Where JSON or UTF-8 breaks is given in bytes of the line, also after characters of several bytes."""
    line = '{"äöü": tru}'.encode()
    with pytest.raises(RecordError) as caught:
        LineDecoder().decode(line)
    assert caught.value.column == line.index(b"tru")
    with pytest.raises(RecordError) as caught:
        LineDecoder().decode(b'{"kind":"\xfe"}')
    assert caught.value.column == 9


@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_no_bytes_raise_anything_else(line: bytes) -> None:
    """Whatever the bytes, decoding gives a record or a RecordError."""
    try:
        LineDecoder().decode(line)
    except RecordError as error:
        assert error.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.sampled_from(sorted(RECORD_TYPES)),
    st.dictionaries(
        st.sampled_from(
            [
                "v",
                "kind",
                "ts",
                "project_id",
                "trace_id",
                "tags",
                "data",
                "ref",
                "jcr",
                "type",
                "dtype",
                "log",
                "event_id",
            ]
        ),
        json_values,
    ),
    st.booleans(),
)
def test_no_shape_raises_anything_else(kind: str, document: dict[str, Any], keep_kind: bool) -> None:
    """Whatever stands in the fields that are looked at, decoding gives a record or a RecordError."""
    line = json.dumps(document if keep_kind else document | {"kind": kind}).encode()
    try:
        LineDecoder().decode(line)
    except RecordError as error:
        assert error.detail


@given(value=json_values)
def test_raw_fields_and_tag_values_come_back_equal(value: Any) -> None:
    """Payloads and tag values survive, with lone surrogates, NaN and integers of any size."""
    document = V1 | {"kind": "object", "ref": "r", "data": value}
    record = decode(json.dumps(document).encode())
    assert isinstance(record, Object)
    assert json.dumps(json.loads(bytes(record.data)), sort_keys=True) == json.dumps(value, sort_keys=True)
    tags = decode(json.dumps(V1 | {"kind": "tags", "tags": [TAG | {"value": value}]}).encode())
    assert isinstance(tags, Tags)
    assert json.dumps(tags.tags[0].value, sort_keys=True) == json.dumps(value, sort_keys=True)


def test_the_committed_json_schema_is_current() -> None:
    """schemas/json/ is what the types say: `python -m tailrace.schemas.generate` writes it."""
    from tailrace.schemas.generate import PATH, render

    assert PATH.read_text() == render()


def test_every_kind_is_in_the_schema() -> None:
    """The generated schema names every kind of the format."""
    from tailrace.schemas.records import json_schema

    kinds = {
        definition["properties"]["kind"]["enum"][0]
        for definition in json_schema()["$defs"].values()
        if "kind" in definition["properties"]
    }
    assert kinds == set(RECORD_TYPES)
    assert msgspec.json.encode(json_schema())
