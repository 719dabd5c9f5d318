from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.stored import Line, store, stored_tag
from tailrace.explorer import Explorer, parse_slice
from tailrace.explorer.conditions import Comparison, Operator, Slice, TagGroup, TagName, TagType, TraceIs
from tailrace.explorer.language import FUNCTIONS, MAX_CHARACTERS, MAX_CONDITIONS
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


MISTAKES = [
    ("a=b", 1, "= means nothing here; compare with =="),
    ("a === b", 4, "compare with =="),
    ("a <> b", 3, "compare with !="),
    ("a => 1", 2, "compare with >="),
    ("a =< 1", 2, "compare with <="),
    ('a =~ "x"', 2, "write name ~"),
    ('a !~ "x"', 2, "write !(name ~"),
    ("a≥1", 1, "compare with >="),
    ("a≠1", 1, "compare with !="),
    ("a==", 3, "expected a word"),
    ("==b", 0, "expected a word"),
    ("a b", 2, "expected an operator"),
    ('"a"', 3, "expected an operator"),
    ("a==b and c==d", 5, "&& and ||, not with and"),
    ("a==b OR c==d", 5, "&& and ||, not with OR"),
    ("not a==b", 4, "not is written !"),
    ("c==d && not (a==b)", 14, "not is written !"),
    ("a not in (b)", 2, "not is written !"),
    ("a like b", 2, "searched with name ~"),
    ("a between 1", 2, "two bounds"),
    ("a==b &&", 7, "ends here"),
    ("a==b ||", 7, "ends here"),
    ("a==b & c==d", 5, "join conditions with &&"),
    ("a==b | c==d", 5, "join alternatives with ||"),
    ("a==b ∧ c==d", 5, "join conditions with &&"),
    ("a==b c==d", 5, "expected && or ||"),
    ("a==b, c==d", 4, "expected && or ||"),
    ("!", 1, "ends here"),
    ("!a", 2, "expected an operator"),
    ("(a==b", 5, "expected )"),
    ("!(a==b", 6, "ends here"),
    ("a==b)", 4, "never opened"),
    ("()", 1, "nothing between"),
    ("trac(x)", 0, "did you mean trace(…)?"),
    ("usr(x)", 0, "did you mean user(…)?"),
    ("TagName(x)", 0, "did you mean tagname(…)?"),
    ("nothing(x)", 0, "there are trace, tagname"),
    ("duration(2)", 0, "duration>2s"),
    ("error(x)", 0, "stands alone"),
    ("trace", 5, "write trace(…)"),
    ("tagtype error", 8, "write tagtype(error)"),
    ("trace(x", 7, "expected )"),
    ("trace()", 6, "nothing between"),
    ("trace(a, b)", 7, "expected )"),
    ("client:acme", 11, "did you mean client==acme?"),
    ("text:timeout && a==b", 12, "did you mean text(timeout)?"),
    ("a in b", 5, "values in parentheses"),
    ("a in ()", 6, "nothing between"),
    ("a in (b c)", 8, "expected , or )"),
    ("a in (b", 7, "expected , or )"),
    ("a in (b,", 8, "expected a word"),
    ("a ~ (x)", 4, "expected a word"),
    (f'a ~ "{"x" * 1001}"', 4, "at most 1000 characters"),
    ("a in (" + ",".join(["b"] * 1001) + ")", 2006, "at most 1000 values"),
    ("event(TOLL)", 6, "did you mean TOOL?"),
    ("event(x)", 6, "there are MESSAGE, TOOL"),
    ('text("")', 5, "every message"),
    ("errors", 6, "did you mean error?"),
    ("error==maybe", 7, '"error"==maybe'),
    ("error>1", 5, "true or false"),
    ("error in (a)", 0, "cannot be compared with in"),
    ("duration>2w", 9, "150ms"),
    ('duration>"2"', 9, "150ms"),
    ('duration ~ "2"', 0, 'in quotes: "duration"'),
    ("duration>2 s", 11, "expected && or ||"),
    ("a=='x'", 3, "double quotes"),
    ("a==“x”", 3, "double quotes"),
    ('a=="x', 3, "never closed"),
    ('a==b"c"', 4, "expected && or ||"),
    ("a＝＝b", 1, "FULLWIDTH EQUALS SIGN"),
    ("a＆＆b", 1, "FULLWIDTH AMPERSAND, not &"),
    ("a==b\u200b", 4, "ZERO WIDTH SPACE"),
    ("a==\u202eb", 3, "RIGHT-TO-LEFT OVERRIDE"),
    ("a‑b==1", 1, "NON-BREAKING HYPHEN"),
    ("a>1<2", 3, "one operator"),
    ("1<a<2", 3, "one operator"),
    ("x>1e999", 2, "beyond"),
    ('a=="x\\q"', 5, "no character"),
    ('a=="\\ud800"', 4, "no character"),
    ('a=="\\U00110000"', 4, "no character"),
    ("\x00==a", 0, "U+0000"),
    ("a==b;DROP TABLE tags", 4, "double quotes"),
    ("a==b -- x", 5, "expected &&"),
    ("a==b /* x */", 5, "expected &&"),
    ("a==b # x", 5, "# cannot stand"),
    ("a==\ud800", 3, "UTF-8"),
    ("(" * 33 + "a==b" + ")" * 33, 32, "at most 32 deep"),
    ("!" * 40 + "a==b", 0, "at most 32 deep"),
    (" && ".join(["a==b"] * 65), 512, "at most 64 conditions"),
]


@pytest.mark.parametrize(("text", "column", "hint"), MISTAKES, ids=[text[:20] for text, _, _ in MISTAKES])
def test_what_is_wrong_is_pointed_at(text: str, column: int, hint: str) -> None:
    """An error holds the column where reading stopped, and its text says what to write instead."""
    with pytest.raises(SliceError) as caught:
        parse_slice(text)
    assert hint in str(caught.value)
    assert caught.value.column == column


EVERYTHING = (
    '!(client in (acme, "b c", v2)) && (latency>=1.5e2 || "tag \\"x\\" \\u00e9" != \'\' || duration<=150ms)'.replace(
        "''", '""'
    )
    + ' && version<1.10.0-rc1 && name ~ "^(a|b)\\\\d+$" && tagname(n) && tagtype("t t") && taggroup(g@1.0) && !error'
    ' && error==true && text("time out") && event(TOOL) && conversation(c:1) && session(s) && user(u@x.y) && feedback(f)'
    " && !!(trace(01a1ee56-5e00-7abc-8def-0123456789ab))"
)


def test_every_prefix_of_a_slice_is_read_or_refused_at_its_end() -> None:
    """Whoever types a slice is told at each letter that it is not finished: at its last word, or at the open quote."""
    assert len(parse_slice(EVERYTHING).conditions) == 16
    finished = 0
    for length in range(len(EVERYTHING)):
        text = EVERYTHING[:length]
        try:
            parse_slice(text)
            finished += 1
        except SliceError as error:
            last_word = re.search(r"[\w.\-/:@+]*\)*\s*$|[&|=!]\s*$", text)
            assert last_word
            assert error.column >= last_word.start() or "never closed" in str(error), (text, str(error))
    assert finished > 30


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


@pytest.fixture(scope="module")
def hostile(engine: Any) -> Explorer:
    """A trace for each hostile word, which is everything that can be asked for; one with a long text, and one without any."""
    client = engine()
    lines = []
    for number, word in enumerate(HOSTILE):
        tag = stored_tag(word, word, word, word)
        columns = {
            "tag_lines": {},
            "logs": {"message": f"before {word} after"},
            "traces": {"conversation_id": word, "session_id": word, "user_id": word},
            "feedback": {"feedback_tag": word},
        }
        lines += [
            Line(
                table,
                f"id {word}",
                1_000_000,
                100 * number,
                tags=(tag, stored_tag("all", number)) if table == "tag_lines" else (),
                columns=more,
            )
            for table, more in columns.items()
        ]
    lines.append(Line("tag_lines", "long", 1_000_000, 1, tags=(stored_tag("long", "a" * 100_000 + "!"),)))
    lines.append(Line("logs", "bare", 1_000_000, 2, columns={"message": ""}))
    store(client, lines)
    return Explorer(client)


@pytest.mark.parametrize("word", HOSTILE, ids=[ascii(word)[:20] for word in HOSTILE])
def test_hostile_words_are_only_values(hostile: Explorer, word: str) -> None:
    """Whatever a name, a value, an argument or an id looks like to SQL, it selects exactly the traces that have it."""
    q = quote(word)
    conditions = [
        f"{q}=={q}",
        f"trace({quote('id ' + word)})",
        f"{q}>={q}",
        f"{q} in (other, {q})",
        f"!({q}!={q})",
        *(f"{function}({q})" for function in FUNCTIONS if function not in ("trace", "event")),
    ]
    if len(word) < 100:
        conditions.append(f"{q} ~ {quote('^' + re.escape(word) + '$')}")
    if len(" && ".join(conditions)) > MAX_CHARACTERS:
        conditions = [f"text({q})"]
    assert hostile.slice(" && ".join(conditions)).traces == 1
    report = hostile.slice("tagname(all)", by=word, metrics=[word, "all"])
    assert report.by is not None
    assert [(row.value, row.traces) for row in report.by.rows] == [(None, len(HOSTILE) - 1), (word, 1)]
    assert report.metrics["all"].count == len(HOSTILE)
    assert hostile.slice("", project=word).traces == 0


PATTERNS = {
    "(a+)+$": 0,
    "(a|aa)+$": 0,
    "(x+x+)+y": 0,
    "^(a*)*!$": 1,
    "(?i)" + "a?" * 300 + "A" * 300: 1,
    ".{0,900}" * 100: "too large",
    "(" * 400 + "a" + ")" * 400: 1,
    "((a{1,100}){1,100}){1,100}": "repetition",
    "a{1001}": "repetition",
    "(": "missing )",
    "[z-a]": "character class",
    "a**": "repetition",
    "(?=a)": "perl operator",
    "(a)\\1": "escape",
    "\\p{Nothing}": "character class",
    "\\": "trailing",
}


@pytest.mark.parametrize("pattern", PATTERNS, ids=[pattern[:20] for pattern in PATTERNS])
def test_no_regular_expression_takes_long(hostile: Explorer, pattern: str) -> None:
    """What hangs a backtracking engine on a text of 100 kB is answered, or refused where it stands, with RE2's reason."""
    text = f"tagname(long) && long ~ {quote(pattern)}"
    expected = PATTERNS[pattern]
    began = time.monotonic()
    if isinstance(expected, int):
        assert hostile.slice(text).traces == expected
    else:
        with pytest.raises(SliceError) as caught:
            hostile.slice(text)
        assert expected in str(caught.value)
        assert len(str(caught.value)) < 300
        assert caught.value.column == text.index("~") + 2
        with pytest.raises(SliceError) as caught:
            hostile.compare("tagname(all)", text)
        assert caught.value.text == text
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("form", "join"),
    [
        *((form, join) for form in ("all>={n}", "duration>={n}us") for join in ("||", "&&", "!")),
        ("!(all=={n})", "||"),
        ("!(all=={n})", "&&"),
        ("all in ({n}, x{n})", "||"),
        ("v>=1.{n}.0", "&&"),
        ("text(x{n})", "||"),
        ("trace(t{n})", "||"),
        ("!duration>{n}", "&&"),
    ],
)
def test_the_largest_slice_is_answered(hostile: Explorer, join: str, form: str) -> None:
    """As many conditions as there may be are one question of bounded size, which takes seconds and not minutes."""
    parts = [form.format(n=n) for n in range(MAX_CONDITIONS)]
    text = f"!({' || '.join(parts)})" if join == "!" else f" {join} ".join(parts)
    began = time.monotonic()
    traces = hostile.slice(text).traces
    assert time.monotonic() - began < 60
    everything = len(HOSTILE) + 2
    positive = {
        "all>={n}": (len(HOSTILE), 0),
        "!(all=={n})": (everything, 2),
        "all in ({n}, x{n})": (len(HOSTILE), 0),
        "duration>={n}us": (everything, 0),
        "!duration>{n}": (everything, everything),
    }
    any_of, all_of = positive.get(form, (0, 0))
    assert traces == {"||": any_of, "&&": all_of, "!": everything - any_of}[join]


def test_the_largest_slice_fits_every_question(hostile: Explorer) -> None:
    """All the figures, comparisons and data sets of a slice of the greatest size stay below ClickHouse's limits."""
    text = " || ".join(f"duration>={n}us" for n in range(MAX_CONDITIONS // 2))
    text += "".join(f" || all>={n} && !error" for n in range(MAX_CONDITIONS // 4))
    report = hostile.slice(text, by="all", metrics=["all", "long"], over="day")
    assert report.traces == len(HOSTILE) + 2
    assert hostile.compare(text, f"!({text})").traces_b == 0
    assert len(hostile.traces(text, limit=100)) == len(HOSTILE) + 2
    _, blocks = hostile.dataset(text)
    assert sum(map(len, blocks)) == len(HOSTILE) + 2


def test_versions_compare_number_by_number(database) -> None:
    """1.10.0 is above 1.9.0, 1.10 is 1.10.0, a pre-release is below its release, build metadata means nothing, and a
    string that is no version is in no such slice."""
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


def test_what_identifies_a_trace_does_not_describe_it(database) -> None:
    """A name with a text of its own in every line is left out of a comparison, however it is stored; one with few texts is
    what distinguishes the slices."""
    client = database()
    lines = [
        Line(
            "tag_lines",
            f"t{n}",
            1_000_000 + n,
            n,
            tags=(stored_tag("request_id", f"r{n}"), stored_tag("client", "big" if n % 3 else "small")),
        )
        for n in range(1_500)
    ]
    for _ in range(2):
        store(client, lines)
    report = Explorer(client).compare("client==big", "client==small")
    assert (report.traces_a, report.traces_b) == (1_000, 500)
    assert report.identifiers == ("request_id",)
    assert [tag.name for tag in report.tags] == ["client"]


def test_what_comes_late_says_nothing_of_a_duration(database) -> None:
    """Feedback two days later leaves a trace as short as its other lines tell, also where neither its id nor the feedback says
    when the trace began: in conditions, in lists, in exports and in the whole trace alike."""
    client = database()
    store(
        client,
        [
            Line("logs", "t", 1_000_000, 1, columns={"level": "info", "message": "m"}),
            Line("logs", "t", 3_000_000, 2, columns={"level": "info", "message": "n"}),
            Line("feedback", "t", 1_000_000 + 2 * 86_400_000_000, 3, columns={"feedback_tag": "thumbs"}),
            Line("feedback", "only", 5_000_000, 4, columns={"feedback_tag": "thumbs"}),
        ],
    )
    explorer = Explorer(client)
    assert explorer.slice("duration>2s").traces == 0
    assert explorer.slice("duration>=2s").traces == 1
    assert explorer.slice("duration==0").traces == 1
    assert {row.trace_id: row.duration for row in explorer.traces("")} == {"t": 2.0, "only": 0.0}
    _, blocks = explorer.dataset("")
    assert {row["trace_id"]: row["duration"] for block in blocks for row in block} == {"t": 2.0, "only": 0.0}
    assert explorer.trace("t").duration == 2.0
