from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.explorer import Explorer, parse_slice
from tailrace.explorer.conditions import Comparison, Operator, Slice, TagGroup, TagName, TagType, TraceIs
from tailrace.explorer.language import MAX_CHARACTERS, MAX_CONDITIONS
from tailrace.explorer.literals import Number, Text, Version
from tailrace.schemas.errors import SliceError


def quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", ()),
        (" \n\t ", ()),
        ("client==acme", (Comparison("client", Operator.EQUAL, Text("acme")),)),
        (
            "a.b-c_d/e:f@g+h!=-1.5e3",
            (Comparison("a.b-c_d/e:f@g+h", Operator.NOT_EQUAL, Number("-1.5e3", -1500.0)),),
        ),
        ('lat>="120"', (Comparison("lat", Operator.GREATER_OR_EQUAL, Text("120")),)),
        (
            "n==9007199254740993",
            (Comparison("n", Operator.EQUAL, Number("9007199254740993", 2.0**53, False)),),
        ),
        ("n==9007199254740992", (Comparison("n", Operator.EQUAL, Number("9007199254740992", 2.0**53)),)),
        (f"n=={'0' * 9000}1", (Comparison("n", Operator.EQUAL, Number("0" * 9000 + "1", 1.0)),)),
        ("v<1.10.0", (Comparison("v", Operator.LESS, Version("1.10.0", (1, 10, 0, 0, 0, 0, 0, 0), "")),)),
        (
            "v>v2-rc1",
            (Comparison("v", Operator.GREATER, Version("v2-rc1", (2, 0, 0, 0, 0, 0, 0, 0), "rc1")),),
        ),
        ("day<=2026-11-20", (Comparison("day", Operator.LESS_OR_EQUAL, Text("2026-11-20")),)),
        ('"tag name"=="é\\u00e9\\n\\"\\\\"', (Comparison("tag name", Operator.EQUAL, Text('éé\n"\\')),)),
        ("trace(x-1)&&tagname(a)&& tagtype( b )", (TraceIs("x-1"), TagName("a"), TagType("b"))),
        ('taggroup("")', (TagGroup(""),)),
        ("trace==x", (Comparison("trace", Operator.EQUAL, Text("x")),)),
    ],
)
def test_what_a_slice_string_means(text: str, conditions: tuple[object, ...]) -> None:
    """Each form of the grammar reads as the conditions that its documentation says."""
    assert parse_slice(text) == Slice(conditions)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "column", "hint"),
    [
        ("a=b", 1, "=="),
        ("a==", 3, "expected a word"),
        ("==b", 0, "expected a word"),
        ("a b", 2, "expected an operator"),
        ("a==b and c==d", 5, "&&"),
        ("a==b &&", 7, "ends here"),
        ("a==b & c==d", 5, "&&"),
        ("trac(x)", 0, "trace(…)"),
        ("nothing(x)", 0, "tagname"),
        ("trace(x", 7, "expected )"),
        ("a=='x'", 3, "double quotes"),
        ('a=="x', 3, "never closed"),
        ("a＝＝b", 1, "FULLWIDTH EQUALS SIGN"),
        ("a>1<2", 3, "one operator"),
        ("x>1e999", 2, "beyond"),
        ('a=="x\\q"', 5, "no character"),
        ('a=="\\ud800"', 4, "no character"),
        ("\x00==a", 0, "U+0000"),
        ("a==b;DROP TABLE tags", 4, "double quotes"),
        ("a==b -- x", 5, "expected &&"),
        ("a==\ud800", 3, "UTF-8"),
    ],
)
def test_what_is_wrong_is_pointed_at(text: str, column: int, hint: str) -> None:
    """An error holds the column where reading stopped, and its text says what to write instead."""
    with pytest.raises(SliceError) as caught:
        parse_slice(text)
    assert caught.value.column == column
    assert hint in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_column(text: str) -> None:
    """Nothing but SliceError comes out, and its column lies in the text or at its end."""
    try:
        parse_slice(text)
    except SliceError as error:
        assert 0 <= error.column <= len(text)
        assert str(error)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_quoting_carries_any_text(name: str, value: str) -> None:
    """Whatever is put in quotes, with quotes and backslashes escaped, arrives as it was."""
    assert parse_slice(f"{quote(name)} == {quote(value)}") == Slice(
        (Comparison(name, Operator.EQUAL, Text(value)),)
    )


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        '"' * 1_000_000,
        "a==b" + "&&a==b" * 10_000,
        "(" * 1_000_000,
        '"' + "\\" * 16_000,
        "a==" * 5_000,
        " && ".join(["a==b"] * (MAX_CONDITIONS + 1)),
        "x" * (MAX_CHARACTERS + 1),
    ],
    ids=lambda text: f"{text[:5]}…{len(text)}",
)
def test_a_monstrous_slice_is_refused_at_once(text: str) -> None:
    """Size and number of conditions are bounded: the error comes within a second and quotes no more than the limit."""
    began = time.monotonic()
    with pytest.raises(SliceError) as caught:
        parse_slice(text)
    assert time.monotonic() - began < 1
    assert len(caught.value.text) <= MAX_CHARACTERS
    assert len(str(caught.value)) < 500


HOSTILE = [
    "' OR 1=1 --",
    "'; DROP TABLE tags; --",
    "\\'",
    "\\",
    "/* x */",
    "{p0:String}",
    "%s %(a)s %%",
    "\x00\x01\x1b[2J",
    "a\nb\tc\r\n",
    "NULL",
    "\\N",
    "``` \" ' `",
    "😀𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "раура1",
    "x" * 10_000,
]


def test_hostile_words_are_only_values(engine, database) -> None:
    """Whatever a name, a value or an id looks like to SQL, it selects exactly the traces that have it."""
    from support.stored import Line, store, stored_tag

    client = database()
    lines = [
        Line(
            "tag_lines",
            f"id {word}",
            1_000_000,
            number,
            tags=(stored_tag(word, word, word, word), stored_tag("all", 1)),
        )
        for number, word in enumerate(HOSTILE)
    ]
    store(client, lines)
    explorer = Explorer(client)
    for word in HOSTILE:
        quoted = quote(word)
        for text in (
            f"{quoted}=={quoted}",
            f"all==1 && tagname({quoted})",
            f"tagtype({quoted}) && taggroup({quoted})",
            f"trace({quote('id ' + word)})",
            f"{quoted}>={quoted}&&{quoted}<={quoted} && all>=1",
        ):
            if len(text) <= MAX_CHARACTERS:
                assert explorer.slice(text).traces == 1, (word[:50], text[:80])
        assert explorer.slice(f"{quoted}!={quoted}" if len(word) < 5000 else "no==1").traces == 0
        report = explorer.slice("all==1", by=word, metrics=[word, "all"])
        assert report.by is not None
        assert [row.traces for row in report.by.rows] == [len(HOSTILE) - 1, 1]
        assert report.metrics["all"].count == len(HOSTILE)
        assert explorer.slice("", project=word).traces == 0
    assert explorer.slice(" && ".join(f'"all"!="{n}"' for n in range(2, MAX_CONDITIONS + 2))).traces == len(
        HOSTILE
    )
    assert explorer.slice(" && ".join(f'"all"!="{n}"' for n in range(1, MAX_CONDITIONS + 1))).traces == 0


def test_versions_compare_number_by_number(database) -> None:
    """1.10.0 is above 1.9.0, 1.10 is 1.10.0, a pre-release is below its release, build metadata means nothing, and a
    string that is no version is in no such slice."""
    from support.stored import Line, store, stored_tag

    client = database()
    ascending = ["1", "1.9.0", "1.9.9", "1.10.0-rc1", "1.10.0rc2", "v1.10", "2.0.0+cu118", "10.0"]
    for number, version in enumerate([*ascending, "latest", "", "x.1"]):
        store(
            client,
            [Line("tag_lines", version or "empty", 1_000_000, number, tags=(stored_tag("v", version),))],
        )
    explorer = Explorer(client)

    def chosen(text: str) -> set[str]:
        return {row.trace_id for row in explorer.traces(text)}

    assert chosen("v>1.9.0") == set(ascending[2:])
    assert chosen("v>=1.10.0") == set(ascending[5:])
    assert chosen("v<1.10.0") == set(ascending[:5])
    assert chosen("v<=v1.10.0-rc1") == set(ascending[:4])
    assert chosen("v>=2.0.0") == {"2.0.0+cu118", "10.0"}
    assert chosen("v==1.10.0") == set()
    assert chosen('v>="2"') == {"2.0.0+cu118", "latest", "v1.10", "x.1"}
