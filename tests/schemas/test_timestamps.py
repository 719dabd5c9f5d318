"""Times that services write, and what they mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.schemas.errors import Reason, RecordError
from tailrace.schemas.timestamps import TimestampParser, to_text, trace_start

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20T08:00:00.000001Z", datetime(2026, 11, 20, 8, 0, 0, 1, UTC)),
        ("2026-11-21 02:59:01.021863+00:00", datetime(2026, 11, 21, 2, 59, 1, 21863, UTC)),
        ("2026-11-21 02:59:01.021863", datetime(2026, 11, 21, 2, 59, 1, 21863, UTC)),
        ("2026-11-21T02:59:01+02:00", datetime(2026, 11, 21, 0, 59, 1, 0, UTC)),
        ("2026-11-21T02:59:01.5-0530", datetime(2026, 11, 21, 8, 29, 1, 500000, UTC)),
        ("2026-11-21T02:59:01,123456789Z", datetime(2026, 11, 21, 2, 59, 1, 123456, UTC)),
        ("2026-11-21T02:59", datetime(2026, 11, 21, 2, 59, tzinfo=UTC)),
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", EPOCH),
        ("2200-01-01T00:00:00.000000Z", datetime(2200, 1, 1, tzinfo=UTC)),
        (0, EPOCH),
        (1763712000, datetime(2025, 11, 21, 8, tzinfo=UTC)),
        (1763712000.25, datetime(2025, 11, 21, 8, 0, 0, 250000, UTC)),
        ("1763712000.25", datetime(2025, 11, 21, 8, 0, 0, 250000, UTC)),
        (1763712000250, datetime(2025, 11, 21, 8, 0, 0, 250000, UTC)),
        (1763712000250001, datetime(2025, 11, 21, 8, 0, 0, 250001, UTC)),
        (1763712000250001999, datetime(2025, 11, 21, 8, 0, 0, 250001, UTC)),
        (7258118400, datetime(2200, 1, 1, tzinfo=UTC)),
    ],
)
def test_spellings(text: str | float, expected: datetime) -> None:
    """Each spelling gives the instant, twice over: the second time from what the parser remembers."""
    parser = TimestampParser()
    assert parser.parse(text) == micros(expected)
    assert parser.parse(text) == micros(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-13-01",
        "2026-11-31T00:00:00Z",
        "2026-11-21T25:00:00Z",
        "1899-12-31T23:59:59Z",
        "2300-01-01",
        "2300-01-01T00:00:00.000000Z",
        "2026-11-21T02:59:01.12345x",
        "2026-11-21T02:59:01+24:00",
        float("nan"),
        float("inf"),
        1e300,
    ],
)
def test_what_is_no_time_is_refused(text: str | float) -> None:
    """Anything else is a bad timestamp, also right after a good one of the same second, and the second time that it comes."""
    parser = TimestampParser()
    parser.parse("2026-11-21T02:59:01.000000Z")
    for _ in range(2):
        with pytest.raises(RecordError) as caught:
            parser.parse(text)
        assert caught.value.reason is Reason.BAD_TIMESTAMP


zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(
    st.lists(
        st.tuples(st.datetimes(datetime(1901, 1, 1), datetime(2299, 1, 1)), zones, st.sampled_from("T "))
    )
)
def test_isoformat_of_any_zone(moments: list[tuple[datetime, timezone, str]]) -> None:
    """What Python's isoformat writes is read back to the microsecond, in any order and mixture."""
    parser = TimestampParser()
    for moment, zone, separator in moments:
        aware = moment.replace(tzinfo=zone)
        assert parser.parse(aware.isoformat(sep=separator)) == micros(aware)
        assert parser.parse(to_text(micros(aware))) == micros(aware)


def test_a_uuid7_says_when_its_trace_began() -> None:
    """The first 48 bits are milliseconds; other ids, and times that cannot be, say nothing."""
    now = 1_763_712_000_000_000
    uuid7 = f"{now // 1000:012x}"
    uuid7 = f"{uuid7[:8]}-{uuid7[8:]}-7abc-9def-0123456789ab"
    assert trace_start(uuid7, now + 5_000_000) == now
    assert trace_start(uuid7.replace("-", ""), now) == now
    assert trace_start("472b649d-cce8-4d50-9682-6b81a80755c0", now) is None
    assert trace_start(uuid7, now + 500 * 24 * 3600 * 1_000_000) is None
    assert trace_start("request-7", now) is None
    assert trace_start("zzzzzzzz-zzzz-7zzz-9zzz-zzzzzzzzzzzz", now) is None
