"""The configuration file: what can stand in it, what counts, what is told when it is wrong, and its pages."""

from __future__ import annotations

import json
import os
import re
import tomllib
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from tailrace.cli import config_file
from tailrace.cli.app import app, run
from tailrace.cli.config_keys import Key, keys, tables, used_by
from tailrace.cli.config_reference import json_schema, page
from tailrace.cli.environment import Configuration
from tailrace.schemas.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
KEYS = keys(app)
SECRET = "Tr0ub4dor&3"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours, no file of the user's, and a working directory of its own."""
    for name in os.environ:
        if name.startswith("TAILRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, tuple[Any, str, str | None]]:
    """What `config show` says of each setting: value, source, place."""
    assert run([*arguments, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    return {row["key"]: (row["value"], row["source"], row["where"]) for row in document["settings"]}


def example(key: Key) -> Any:
    """A value that the setting may have, and that is not its default."""
    kind = get_args(key.type)[0] if hasattr(key.type, "__metadata__") else key.type
    if key.choices:
        return key.choices[-1]
    if kind is bool:
        return not key.default
    if kind in (int, float):
        return kind(key.default or 0) + 1
    if get_origin(kind) is list:
        return ["/somewhere/a", "/somewhere/b"]
    return "/somewhere/x" if key.is_path else "something"


def toml(values: dict[str, Any]) -> str:
    """A file with these settings."""
    lines = []
    for table in dict.fromkeys(place.partition(".")[0] for place in values):
        lines.append(f"[{table}]")
        lines += [
            f"{place.partition('.')[2]} = {json.dumps(value)}"
            for place, value in values.items()
            if place.startswith(f"{table}.")
        ]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- what counts


def test_every_setting_reaches_every_command(tmp_path: Path) -> None:
    """What the file says of a setting is the default of each option that it is for, converted as the option's own text is;
    what is no option is there for those who read variables."""
    values = {
        place: example(key) for place, key in KEYS.items() if not place.endswith("_file") or not key.uses
    }
    values = {place: value for place, value in values.items() if f"{place}_file" not in KEYS}
    file = config_file.read(written(tmp_path / "all.toml", toml(values)), KEYS)
    configuration = Configuration(file, KEYS)
    whole: Any = typer.main.get_command(app)
    seen = 0
    for place, value in values.items():
        for use in KEYS[place].uses:
            command = whole
            defaults: Any = configuration.defaults()
            for word in use.command:
                command = command.commands[word]
                defaults = defaults[word]
            context = command.make_context("x", [], resilient_parsing=True, default_map=defaults)
            found = context.params[use.parameter]
            found = [str(each) for each in found] if isinstance(value, list) else found
            found = found.value if isinstance(found, Enum) else found
            assert (str(found) if isinstance(value, str) else found) == value, (place, use)
            assert context.get_parameter_source(use.parameter).name == "DEFAULT_MAP"
            seen += 1
    assert seen > 80
    variables = configuration.variables({})
    assert variables["TAILRACE_KAFKA_USERNAME"] == "something"
    assert variables["TAILRACE_CREATE_TOPICS"] == "false"
    assert set(variables) == {KEYS[place].variable for place in values}


def test_flags_before_variables_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And `config show` says which of them it was, with the line. An empty variable is none."""
    file = written(
        tmp_path / "t.toml",
        '[kafka]\ntopic = "a"\n\n[ship]\nshipper_id = "a"\npartitions = 2\npaths = ["x"]\n',
    )
    monkeypatch.setenv("TAILRACE_TOPIC", "b")
    monkeypatch.setenv("TAILRACE_SHIPPER_ID", "")
    monkeypatch.setenv("TAILRACE_PARTITIONS", "3")
    found = shown(capsys, "--config", str(file), "config", "show", "ship", "--partitions", "4")
    assert found["ship.partitions"] == (4, "flag", "--partitions")
    assert found["kafka.topic"] == ("b", "environment", "TAILRACE_TOPIC")
    assert found["ship.shipper_id"] == ("a", "file", f"{file}:5")
    assert found["ship.paths"] == ([str(tmp_path / "x")], "file", f"{file}:7")
    assert found["ship.delivery"] == ("exactly-once", "default", None)
    assert "ingest.workers" not in found
    whole = shown(capsys, "--config", str(file), "config", "show")
    assert whole["ship.partitions"] == ("3", "environment", "TAILRACE_PARTITIONS")
    assert set(whole) == set(KEYS)
    assert run(["config", "show"]) == 0
    printed = capsys.readouterr().out
    assert "no configuration file" in printed and "(the host's name)" in printed


def test_the_first_file_that_is_there_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flag's, the variable's, the working directory's, the user's; and none is put together with another."""

    def topic(*arguments: str) -> str:
        return str(shown(capsys, *arguments, "config", "show")["kafka.topic"][0])

    places = {
        "user": tmp_path / "home" / ".config" / "tailrace" / "tailrace.toml",
        "here": tmp_path / "tailrace.toml",
        "variable": tmp_path / "variable.toml",
        "flag": tmp_path / "flag.toml",
    }
    for name, path in places.items():
        written(path, f'[kafka]\ntopic = "{name}"\n')
    monkeypatch.setenv("TAILRACE_CONFIG", str(places["variable"]))
    assert topic("--config", str(places["flag"])) == "flag"
    assert topic() == "variable"
    monkeypatch.delenv("TAILRACE_CONFIG")
    assert topic() == "here"
    places["here"].unlink()
    assert topic() == "user"
    monkeypatch.setenv("TAILRACE_CONFIG", "/dev/null")
    assert topic() == "tailrace"
    assert run(["migrate", "--print", "--config", "absent.toml"]) == 2
    capsys.readouterr()
    assert run(["--config", "absent.toml", "migrate", "--print"]) == 2
    assert "cannot read the configuration absent.toml: No such file" in capsys.readouterr().err


def test_a_strangers_file_is_not_used_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What lies in the working directory and could be written by anybody is refused, and taken when it is named."""
    written(tmp_path / "tailrace.toml", '[kafka]\ntopic = "t"\n', 0o666)
    assert run(["migrate", "--print"]) == 2
    assert "is not used unasked" in capsys.readouterr().err
    assert run(["--config", "tailrace.toml", "config", "check"]) == 0


# ---------------------------------------------------------------- what is wrong

FAULTS = [
    ("partitions = 3", "1: partitions stands in no table: write it below [ship]"),
    (f"password = '{SECRET}'", "1: password stands in no table: write it below [clickhouse] or [kafka]"),
    (f"[kafka]\npasword = '{SECRET}'", "2: [kafka] has no setting pasword; did you mean password?"),
    ("ship = 3", "1: ship is a table: write [ship]"),
    ("[kafak]\nbrokers = 'a:1'", "1: there is no table [kafak]; did you mean kafka?"),
    ("[ship]\n\npartition = 6", "3: [ship] has no setting partition; did you mean partitions?"),
    ("[ship]\ntopic = 't'", "2: [ship] has no setting topic; it belongs below [kafka]"),
    ("[log]\nzzz = 1", "2: [log] has no setting zzz; it has verbose, format"),
    (
        "[ship]\npartitions = 'six'",
        '2: [ship] partitions is "six": it must be a whole number, 1 or more; for example partitions = 6',
    ),
    ("[ship]\npartitions = 0", "2: [ship] partitions is 0: it must be a whole number, 1 or more"),
    ("[ship]\npartitions = true", "2: [ship] partitions is true: it must be a whole number"),
    (
        "[ship]\nmessage_bytes = 1048577",
        "2: [ship] message_bytes is 1048577: it must be a whole number from 0 to 1,048,576",
    ),
    ("[ship]\npoll_only = 'yes'", '2: [ship] poll_only is "yes": it must be true or false'),
    (
        "[ship]\ndelivery = 'exactly-onc'",
        "it must be one of exactly-once, at-least-once; did you mean exactly-once?",
    ),
    ("[ship]\npaths = 'x'", '2: [ship] paths is "x": it must be a list of paths, one at least'),
    ("[up]\npaths = []", "2: [up] paths is []: it must be a list of paths, one at least"),
    ("[kafka]\ntopic = 2026-11-20", '2: [kafka] topic is "2026-11-20": it must be a text in quotes'),
    ("[kafka]\nsasl_mechanism = 'SCRAM-SHA-526'", "did you mean SCRAM-SHA-512?"),
    (
        f"[kafka]\npassword = '{SECRET}'\npassword_file = 'x'",
        "2: [kafka] password and password_file: give one of them",
    ),
    (
        f"[kafka]\npassword = ['{SECRET}']",
        "2: [kafka] password is no text (and not shown here): it must be a text, or { env",
    ),
    (f"[kafka]\npassword = {{ env = 3, x = '{SECRET}' }}", "2: [kafka] password is no text"),
    ("[log]\nformat = json", "2: Invalid value at column 10: texts stand in quotes"),
    ("[log]\nverbose = 1\n[log]\n", "3: Cannot declare ('log',) twice at column 5"),
    ("[kafka", "1: "),
]


@pytest.mark.parametrize(("text", "says"), FAULTS, ids=range(len(FAULTS)))
def test_faults_are_told_with_line_key_value_and_remedy(tmp_path: Path, text: str, says: str) -> None:
    """In a sentence each, that shows no secret."""
    file = written(tmp_path / "bad.toml", text + "\n")
    with pytest.raises(ConfigError) as told:
        config_file.read(file, KEYS)
    assert str(told.value).startswith(f"{file}:") and says in str(told.value)
    assert SECRET not in str(told.value)


def test_all_faults_are_told_at_once_and_help_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the lines, by `check` (exit code 1) and by every command (2); `--help` and `config schema` do not need the file to be right."""
    file = written(tmp_path / "tailrace.toml", "[ship]\nb = 1\npartitions = ''\n[x]\n")
    assert run(["config", "check"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"tailrace.toml:{number}:" for number in (2, 3, 4)]
    assert run(["migrate", "--print"]) == 2
    assert capsys.readouterr().err.splitlines() == [f"tailrace: {lines[0]}", *lines[1:]]
    assert run(["--config", str(file), "ship", "--help"]) == 0
    assert run(["config", "schema"]) == 0


def test_check_looks_at_what_belongs_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Secrets that cannot be had, and settings that do not fit, are told at their lines; then it finds nothing wrong."""
    file = written(
        tmp_path / "t.toml",
        '[kafka]\nbrokers = "h:9092"\nsecurity_protocol = "SASL_PLAINTEXT"\nusername = "u"\npassword = { env = "KPW" }\n'
        '[clickhouse]\npassword_file = "pw"\n[ship]\ncompression = "zst"\n[metrics]\naddress = "9464"\n',
    )
    assert run(["config", "check", str(file)]) == 1
    told = capsys.readouterr().err
    assert f"{file}:5: [kafka] password: KPW is not set" in told
    assert f"{file}:1: [kafka] SASL_PLAINTEXT needs TAILRACE_KAFKA_USERNAME" in told
    assert f"{file}:6: [clickhouse] TAILRACE_CLICKHOUSE_PASSWORD_FILE: cannot read {tmp_path / 'pw'}" in told
    assert f"{file}:9: [ship] compression is 'zst', and may be none, gzip, snappy, lz4, zstd" in told
    assert f"{file}:10: [metrics] metrics address '9464': write HOST:PORT" in told
    monkeypatch.setenv("KPW", SECRET)
    written(tmp_path / "pw", SECRET)
    file.write_text(file.read_text().replace("zst", "zstd").replace('"9464"', '"127.0.0.1:9464"'))
    assert run(["config", "check", str(file)]) == 0
    assert SECRET not in "".join(capsys.readouterr())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "value = 1",
                    'value = """\n[x]\nvalue = 2\n"""',
                    "value = [\n  1, # ]\n\n  2,\n]",
                    'value = "#["',
                ]
            ),
            st.sampled_from(["", "\n", "# [table]\n", "# value = 3\n\n"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_lines_are_where_settings_begin(parts: list[tuple[str, str, bool]]) -> None:
    """Whatever stands between them, and over however many lines a value goes."""
    text, expected = "[table0]\n", {"table0": 1}
    table = 0
    for number, (statement, between, opens) in enumerate(parts):
        text += between
        if opens:
            table = number + 1
            expected[f"table{table}"] = text.count("\n") + 1
            text += f"[table{table}]  # a table\n"
        expected[f"table{table}.value{number}"] = text.count("\n") + 1
        text += statement.replace("value", f"value{number}", 1) + "\n"
    tomllib.loads(text)
    assert config_file._lines(text) == expected


# ---------------------------------------------------------------- secrets


def test_a_secret_is_shown_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by `show`, `check` and failing commands, nor when it stands inside of a DSN."""
    secrets = {place: SECRET for place, key in KEYS.items() if key.secret}
    assert {"kafka.password", "kafka.token", "clickhouse.password", "http.token"} <= set(secrets)
    dsn = f"clickhouse://u:{SECRET.replace('&', '%26')}@127.0.0.1:1/t"
    file = written(
        tmp_path / "t.toml", toml({**secrets, "clickhouse.dsn": dsn, "kafka.brokers": "127.0.0.1:1"})
    )
    plain = SECRET.partition("&")[0]
    for arguments in (
        ["config", "show"],
        ["config", "show", "ship", "--format", "json"],
        ["config", "check"],
        ["slice"],
        ["ship", "x", "--once"],
    ):
        run(["--config", str(file), *arguments])
        printed = "".join(capsys.readouterr())
        assert printed and plain not in printed, arguments
    for key in KEYS.values():
        if key.secret:
            monkeypatch.setenv(key.variable, SECRET)
    found = shown(capsys, "config", "show")
    assert {found[place][0] for place in secrets} == {"***"}
    monkeypatch.setenv("TAILRACE_CLICKHOUSE", f"clickhouse://u:{SECRET}@and/more@h/t")
    assert shown(capsys, "config", "show")["clickhouse.dsn"][0] == "clickhouse://u:***@h/t"
    file.chmod(0o644)
    assert run(["--config", str(file), "slice"]) == 2
    told = capsys.readouterr().err
    assert plain not in told
    for place in [*secrets, "clickhouse.dsn"]:
        table, name = place.split(".")
        assert f"[{table}] {name} holds a secret, and anybody on this machine can read the file" in told


def test_a_secret_of_the_environment_hides_both_of_the_file(tmp_path: Path) -> None:
    """Whichever form either has: the password in a variable wins over the file that the configuration names."""
    text = '[kafka]\npassword_file = "pw"\n[clickhouse]\npassword = { env = "CPW" }\n'
    configuration = Configuration(config_file.read(written(tmp_path / "t.toml", text), KEYS), KEYS)
    both = {"TAILRACE_KAFKA_PASSWORD_FILE": str(tmp_path / "pw"), "TAILRACE_CLICKHOUSE_PASSWORD": "x"}
    assert configuration.variables({"CPW": "x"}) == both
    assert configuration.variables({"TAILRACE_KAFKA_PASSWORD": "y"}) == {}
    assert (
        configuration.variables(
            {"CPW": "x", "TAILRACE_CLICKHOUSE_PASSWORD_FILE": "z", "TAILRACE_KAFKA_PASSWORD": "y"}
        )
        == {}
    )


# ---------------------------------------------------------------- one source


def test_every_variable_of_the_program_is_a_setting() -> None:
    """What the commands' rooms read from the environment can stand in the file: no variable was forgotten. Which code does the
    work is no setting of a command."""
    text = "\n".join(path.read_text() for room in ("cli", "schemas") for path in (ROOT / room).rglob("*.py"))
    read = set(re.findall(r'"(TAILRACE_[A-Z_]+)"', text)) - {"TAILRACE_CONFIG", "TAILRACE_PURE_PYTHON"}
    crash = set(
        re.findall(r'^VARIABLE = "(TAILRACE_\w+)"', (ROOT / "schemas" / "crash.py").read_text(), re.MULTILINE)
    )
    assert read - crash <= {key.variable for key in KEYS.values()}
    assert all(key.meaning and key.variable.startswith("TAILRACE_") for key in KEYS.values())


def test_the_schema_describes_the_same(tmp_path: Path) -> None:
    """Table by table and key by key, nothing else allowed; what the file takes has the type that the schema names."""
    schema = json_schema(KEYS)
    top = schema["$defs"]["tailrace"]
    assert top["additionalProperties"] is False
    described = {
        f"{table}.{name}": text
        for table in top["properties"]
        for name, text in schema["$defs"][table]["properties"].items()
    }
    assert set(described) == set(KEYS)
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
    for place, text in described.items():
        assert KEYS[place].variable in text["description"]
        if "type" in text:
            assert text["type"] == kinds[type(example(KEYS[place]))]
    assert json.loads(msgspec.json.encode(schema)) == schema


def test_the_page_is_current() -> None:
    """deploy/CONFIGURATION.md is what `tailrace config schema --format markdown` prints, with a row for each setting."""
    assert (ROOT / "deploy" / "CONFIGURATION.md").read_text() == page(KEYS), (
        "run `tailrace config schema --format markdown > deploy/CONFIGURATION.md`"
    )
    for key in KEYS.values():
        assert page(KEYS).count(f"| `{key.name}` | {key.wanted} |") >= 1
        assert used_by(key)


def test_the_example_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """deploy/tailrace.toml has nothing wrong in it once the passwords lie beside it, and differs from the defaults."""
    file = written(tmp_path / "etc" / "tailrace.toml", (ROOT / "deploy" / "tailrace.toml").read_text(), 0o644)
    assert run(["config", "check", str(file)]) == 1
    told = capsys.readouterr().err
    for name in ("kafka.password", "clickhouse.password"):
        assert f"cannot read {tmp_path / 'etc' / name}" in told
        written(tmp_path / "etc" / name, SECRET)
    assert run(["config", "check", str(file)]) == 0
    values = config_file.read(file, KEYS).values
    assert {place.partition(".")[0] for place in values} <= set(tables(KEYS))
    assert all(value != KEYS[place].default for place, value in values.items())


def test_what_is_no_text_file_is_told(tmp_path: Path) -> None:
    """A directory, and bytes that are no UTF-8: one sentence each."""
    with pytest.raises(ConfigError, match="Is a directory"):
        config_file.read(tmp_path, KEYS)
    (tmp_path / "x").write_bytes(b'a = "\xff"')
    with pytest.raises(ConfigError, match="byte 5 is not UTF-8"):
        config_file.read(tmp_path / "x", KEYS)
