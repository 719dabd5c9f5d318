"""A trace over several services: what goes into the headers comes out of them."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace import Trace
from tailrace.ids import new_trace_id
from tailrace.testing import MemoryLogger
from tailrace.traceparent import read_headers, trace_id_of, w3c_trace_id

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

trace_ids = st.one_of(
    st.uuids().map(str),
    st.uuids().map(lambda u: u.hex),
    st.uuids().map(lambda u: str(u).upper()),
    st.uuids().map(lambda u: f"{{{u}}}"),
    st.builds(new_trace_id),
    st.builds(lambda: new_trace_id().replace("-", "")),
    st.text(min_size=1),
    st.text(st.characters(codec=None, categories=["Cs", "Lu"]), min_size=1, max_size=5),
    st.sampled_from(["0" * 32, str(uuid.UUID(int=0)), "a,b=c", " x ", "%20", "ü" * 1024, "x" * 1024]),
)


def as_asgi(headers: dict[str, str]) -> Any:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def as_title_case(headers: dict[str, str]) -> Any:
    return {name.title(): value for name, value in headers.items()}


def as_wsgi_lists(headers: dict[str, str]) -> Any:
    return {name.upper(): [value] for name, value in headers.items()}


shapes = st.sampled_from([dict, as_asgi, as_title_case, as_wsgi_lists, lambda headers: headers.items()])


@given(trace_ids, st.booleans(), shapes)
def test_a_trace_goes_through_headers(trace_id: str, sampled: bool, shape: Any) -> None:
    """Property: any id, in headers of any shape, arrives as the string that it is, with the decision to sample; the
    headers are valid W3C trace context and can stand in HTTP."""
    sent = Trace(MemoryLogger(), trace_id, sampled=sampled)
    headers = sent.headers()
    assert TRACEPARENT.fullmatch(headers["traceparent"])
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert len(headers.get("tracestate", "")) <= 512
    joined = Trace.from_headers(shape(headers), MemoryLogger(sample_rate=0.5))
    assert (joined.trace_id, joined.sampled) == (sent.trace_id, sampled)
    again = Trace.from_headers(joined.headers(), MemoryLogger())
    assert again.trace_id == sent.trace_id
    assert again.headers()["traceparent"][:35] == headers["traceparent"][:35]


def test_new_ids_need_nothing_but_the_standard_header() -> None:
    """Property: our own new ids and W3C ids travel in `traceparent` alone, so any library hands them on."""
    for trace_id in (new_trace_id(), "0af7651916cd43dd8448eb211c80319c"):
        assert set(Trace(MemoryLogger(), trace_id).headers()) == {"traceparent"}
        assert trace_id_of(w3c_trace_id(trace_id)) == trace_id
    assert set(Trace(MemoryLogger(), "order 17").headers()) == {"traceparent", "tracestate"}
    assert set(Trace(MemoryLogger(), "ü" * 1000).headers()) == {"traceparent", "tailrace-trace-id"}


def test_a_service_of_another_vendor_between() -> None:
    """Property: what hands on `tracestate` and renames the parent, as the standard says, does not tear a trace; what loses
    `tracestate` gives all that follow the same id."""
    headers = Trace(MemoryLogger(), "order 17").headers()
    digits = headers["traceparent"][3:35]
    between = {
        "traceparent": f"00-{digits}-{'ab' * 8}-01",
        "tracestate": f"vendor=1,{headers['tracestate']},other=x y",
    }
    trace = Trace.from_headers(between, MemoryLogger())
    assert trace.trace_id == "order 17"
    assert trace.headers()["tracestate"] == f"{headers['tracestate']},vendor=1,other=x y"
    lost = Trace.from_headers({"traceparent": headers["traceparent"]}, MemoryLogger())
    assert lost.trace_id == digits
    # An id that belongs to another trace is not believed.
    foreign = {"traceparent": PARENT, "tracestate": headers["tracestate"]}
    assert Trace.from_headers(foreign, MemoryLogger()).trace_id == PARENT[3:35]


def test_events_of_two_services_are_one_tree() -> None:
    """Property: inside a block its event is the parent in the headers, and above what begins at the top over there."""
    here, there = MemoryLogger(), MemoryLogger()
    trace = Trace(here)
    with trace.message("hi") as message:
        headers = trace.headers()
        tool = message.tool("call")
        assert tool.headers()["traceparent"][36:52] == tool.event_id
    assert headers["traceparent"][36:52] == message.event_id
    joined = Trace.from_headers(headers, there)
    joined.agent("x").end()
    assert there.of_kind("event_start")[0]["parent_id"] == message.event_id
    assert trace.headers()["traceparent"][36:52] not in (
        message.event_id,
        trace.headers()["traceparent"][36:52],
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        None,
        7,
        "traceparent",
        [("traceparent",)],
        {"traceparent": None},
        {"traceparent": ""},
        {"traceparent": PARENT.upper()},
        {"traceparent": PARENT[:-1]},
        {"traceparent": PARENT + "-extra"},
        {"traceparent": "ff" + PARENT[2:]},
        {"traceparent": PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)},
        {"traceparent": PARENT.replace("b7ad6b7169203331", "0" * 16)},
        {"traceparent": PARENT.replace("-01", "-0x")},
        {"traceparent": PARENT.replace("0af", "٠af")},
        {"traceparent": b"\xff\xfe"},
        [("traceparent", PARENT), ("Traceparent", PARENT)],
        {"tracestate": "tailrace=x", "tailrace-trace-id": "x"},
    ],
)
def test_headers_that_say_nothing_begin_a_new_trace(headers: Any) -> None:
    """Property: malformed or missing headers never raise, and give a new trace."""
    assert read_headers(headers) is None
    assert len(Trace.from_headers(headers, MemoryLogger()).trace_id) == 36


@given(st.dictionaries(st.sampled_from(["traceparent", "tracestate", "tailrace-trace-id"]), st.text()))
def test_no_header_raises(headers: dict[str, str]) -> None:
    """Property: any text in any of the headers gives a trace that works and whose headers can be sent."""
    headers.setdefault("traceparent", PARENT)
    logger = MemoryLogger()
    trace = Trace.from_headers(headers, logger)
    trace.info("x")
    json.loads(logger.raw[0])
    assert all(value.isprintable() and value.isascii() for value in trace.headers().values())


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (PARENT, True),
        (PARENT[:-2] + "00", False),
        (PARENT[:-2] + "02", False),
        (PARENT[:-2] + "ff", True),
        ("cc" + PARENT[2:] + "-what-the-future-brings", True),
        (f" {PARENT}\t", True),
    ],
)
def test_flags_and_versions(value: str, sampled: bool) -> None:
    """Property: only the lowest bit of the flags counts, and later versions are read as far as they are known."""
    trace = Trace.from_headers({"traceparent": value}, MemoryLogger(sample_rate=0.0 if sampled else 1.0))
    assert (trace.trace_id, trace.sampled) == (PARENT[3:35], sampled)
