"""Deployments of models: what was given to them, what they answered, and how right they were.

Two sources say so and are added up: raw records (`predictions`, `ground_truths`, `exceptions`), and the statistics of
windows that sessions without raw data write. Each line counts once, however often it is stored.
"""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tailrace.explorer.deployments import (
    Bucket,
    Deployment,
    DeploymentReport,
    ExceptionCount,
)
from tailrace.explorer.features import ColumnFigures
from tailrace.explorer.performance import SegmentFigures
from tailrace.explorer.period import Period, to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.series import EVERY, step_width
from tailrace.explorer.texts import to_json_value, to_text
from tailrace.schemas.errors import ConfigError, NotFound
from tailrace.schemas.truth import truth_kind

MAX_BUCKETS = 10_000
_PAGE = 20_000

Row = tuple[Any, ...]
_RAW = {"predictions": "predictions", "ground_truths": "ground_truths", "exceptions": "exceptions"}
_STATISTICS = (
    "subject, name, type, count, missing, not_finite, numbers, mean, m2, mean_abs, bins, bin_counts, distinct, "
    "matches, confusion, uncounted"
)


def list_deployments(reader: Reader, project: str | None, period: Period) -> tuple[Deployment, ...]:
    """Ask for all deployments; see `Explorer.deployments`."""
    parameters = Parameters()
    scope = _scope(parameters, project, None, period)
    parts = [
        f"SELECT project_id, deployment, '{column}' AS what, uniqExact(ts, trace_id, line_hash) AS n, "
        f"max(toUnixTimestamp64Micro(ts)) AS last FROM {table} WHERE {scope} AND deployment != '' "
        "GROUP BY project_id, deployment"
        for table, column in _RAW.items()
    ]
    parts.append(
        "SELECT project_id, deployment, multiIf(subject = 'prediction', 'predictions', subject = 'ground_truth', "
        "'ground_truths', 'exceptions') AS what, sum(count) AS n, max(until) AS last FROM ("
        "SELECT project_id, deployment, subject, name, count, "
        "toUnixTimestamp64Micro(ts) + toInt64(least(seconds, 86400) * 1e6) AS until "
        f"FROM statistics WHERE {scope} AND (subject = 'exceptions' OR name = '') "
        "AND subject != 'feature' LIMIT 1 BY project_id, deployment, subject, name, ts, instance, sequence, line_hash"
        ") GROUP BY project_id, deployment, what"
    )
    parts.append(
        "SELECT project_id, deployment, 'metadata' AS what, 0 AS n, max(toUnixTimestamp64Micro(ts)) AS last "
        f"FROM metadata WHERE {scope} AND deployment != '' GROUP BY project_id, deployment"
    )
    sql = (
        "SELECT project_id, deployment, what, toUInt64(sum(n)), max(last) FROM ("
        + " UNION ALL ".join(parts)
        + ") GROUP BY project_id, deployment, what ORDER BY project_id, deployment, what"
    )
    counts: dict[tuple[str, str], dict[str, int]] = {}
    last: dict[tuple[str, str], int] = {}
    for found, deployment, what, number, seen in reader.rows(sql, parameters):
        key = to_text(found), to_text(deployment)
        counts.setdefault(key, {})[to_text(what)] = number
        last[key] = max(last.get(key, seen), seen)
    return tuple(
        Deployment(
            project_id=key[0],
            deployment=key[1],
            predictions=numbers.get("predictions", 0),
            ground_truths=numbers.get("ground_truths", 0),
            exceptions=numbers.get("exceptions", 0),
            last_seen=to_datetime(last[key]),
        )
        for key, numbers in counts.items()
    )


class _Figures:
    """Everything that is known of one deployment in one stretch of time."""

    def __init__(self) -> None:
        self.predictions = 0
        self.uncounted = 0
        self.features: dict[str, ColumnFigures] = {}
        self.outputs: dict[str, ColumnFigures] = {}
        self.segments: dict[tuple[str, str], SegmentFigures] = {}
        self.exceptions: dict[str, int] = {}

    def add_prediction(self, features: Any, prediction: Any) -> None:
        """One raw prediction."""
        self.predictions += 1
        for name, value in _parts(features, top=False):
            self.features.setdefault(name, ColumnFigures()).add_value(value)
        for name, value in _parts(prediction, top=True):
            self.outputs.setdefault(name, ColumnFigures()).add_value(value)

    def add_truth(self, label: Any, prediction: Any, segments: list[str]) -> None:
        """One raw ground truth."""
        kind = truth_kind(label, prediction)
        for segment in dict.fromkeys(["", *segments]):
            self.segments.setdefault((segment, kind), SegmentFigures()).add_pair(kind, label, prediction)

    def add_record(self, row: Row) -> None:
        """One row of `statistics`."""
        subject, name, type_ = (to_text(value) for value in row[:3])
        figures = row[3:]
        count, uncounted = figures[0], figures[-1]
        if subject != "ground_truth":
            self.uncounted += uncounted
        if subject == "feature":
            self.features.setdefault(name, ColumnFigures()).add_record(type_, *figures[:10])
        elif subject == "prediction":
            if name == "":
                self.predictions += count
            self.outputs.setdefault(name, ColumnFigures()).add_record(type_, *figures[:10])
        elif subject == "ground_truth":
            found = self.segments.setdefault((name, type_), SegmentFigures())
            # All but `distinct`, which ground truths do not have.
            told = (*figures[:9], figures[10], to_json_value(figures[11]))
            found.add_record(*told)
        else:
            self.exceptions[name] = self.exceptions.get(name, 0) + count

    def bucket(self, start: int | None) -> Bucket:
        """As an answer."""
        return Bucket(
            start=None if start is None else to_datetime(start),
            predictions=self.predictions,
            uncounted=self.uncounted,
            features=tuple(
                column.answer(name, self.predictions) for name, column in sorted(self.features.items())
            ),
            outputs=tuple(
                column.answer(name, self.predictions if name == "" else column.count)
                for name, column in sorted(self.outputs.items())
            ),
            performance=tuple(
                figures.answer(segment, kind) for (segment, kind), figures in sorted(self.segments.items())
            ),
            exceptions=tuple(
                ExceptionCount(name, count)
                for name, count in sorted(self.exceptions.items(), key=lambda item: (-item[1], item[0]))
            ),
        )


def read_deployment(
    reader: Reader, deployment: str, project: str | None, period: Period, over: str | None
) -> DeploymentReport:
    """Ask for one deployment; see `Explorer.deployment`."""
    if over is not None and over not in EVERY:
        raise ConfigError(f"--over {over!r:.40} is not one of {', '.join(EVERY)}")
    where = f" in project {project}" if project is not None else ""
    unknown = NotFound(f"there is no deployment {deployment!r:.200}{where}")
    try:
        f"{deployment}{project}".encode()
    except UnicodeEncodeError:
        raise unknown from None
    width = None if over is None else step_width(over)
    whole = _Figures()
    buckets: dict[int, _Figures] = {}

    def at(ts: int) -> list[_Figures]:
        if width is None:
            return [whole]
        start = ts // width * width
        if start not in buckets and len(buckets) >= MAX_BUCKETS:
            raise ConfigError(
                f"--over {over} gives more than {MAX_BUCKETS:,} rows: choose a longer one, or a period with --since"
            )
        return [whole, buckets.setdefault(start, _Figures())]

    projects = set()
    for read in (_add_predictions, _add_truths, _add_exceptions, _add_statistics):
        projects |= read(reader, deployment, project, period, at)
    metadata, found = _metadata(reader, deployment, project)
    projects |= found
    if not projects:
        raise unknown
    if len(projects) > 1:
        names = ", ".join(sorted(projects)[:10])
        raise ConfigError(
            f"deployment {deployment:.200} exists in {len(projects)} projects ({names}): say which with --project"
        )
    return DeploymentReport(
        project_id=projects.pop(),
        deployment=deployment,
        since=None if period.since is None else to_datetime(period.since),
        until=None if period.until is None else to_datetime(period.until),
        metadata=metadata,
        whole=whole.bucket(None),
        over=None if width is None else tuple(buckets[start].bucket(start) for start in sorted(buckets)),
    )


At = Callable[[int], list[_Figures]]


def _add_predictions(
    reader: Reader, deployment: str, project: str | None, period: Period, at: At
) -> set[str]:
    projects = set()
    columns = "features, prediction"
    for found, ts, features, prediction in _pages(
        reader, "predictions", columns, deployment, project, period
    ):
        projects.add(to_text(found))
        answer = to_json_value(prediction)
        given = to_json_value(features)
        for figures in at(ts):
            figures.add_prediction(given, answer)
    return projects


def _add_truths(reader: Reader, deployment: str, project: str | None, period: Period, at: At) -> set[str]:
    projects = set()
    columns = "prediction_id, label, prediction, segments"
    waiting: list[tuple[int, str, Any, list[str]]] = []
    for found, ts, prediction_id, label, prediction, segments in _pages(
        reader, "ground_truths", columns, deployment, project, period
    ):
        projects.add(to_text(found))
        names = [to_text(segment) for segment in segments]
        if prediction or not prediction_id:
            for figures in at(ts):
                figures.add_truth(to_json_value(label), to_json_value(prediction), names)
        else:
            waiting.append((ts, to_text(prediction_id), to_json_value(label), names))
            if len(waiting) >= _PAGE:
                _settle(reader, deployment, project, waiting, at)
                waiting = []
    _settle(reader, deployment, project, waiting, at)
    return projects


def _settle(
    reader: Reader,
    deployment: str,
    project: str | None,
    waiting: list[tuple[int, str, Any, list[str]]],
    at: At,
) -> None:
    """Ground truths that name a prediction: look up what it was, whenever it was made."""
    if not waiting:
        return
    parameters = Parameters()
    where = _scope(parameters, project, deployment, Period())
    ids = parameters.add(sorted({prediction_id for _, prediction_id, _, _ in waiting}), "Array(String)")
    rows = reader.rows(
        f"SELECT prediction_id, argMin(prediction, (ts, line_hash)) FROM predictions WHERE {where} "
        f"AND prediction_id IN {ids} GROUP BY prediction_id",
        parameters,
    )
    answers = {to_text(prediction_id): to_json_value(prediction) for prediction_id, prediction in rows}
    for ts, prediction_id, label, names in waiting:
        for figures in at(ts):
            figures.add_truth(label, answers.get(prediction_id), names)


def _add_exceptions(reader: Reader, deployment: str, project: str | None, period: Period, at: At) -> set[str]:
    projects = set()
    for found, ts, stack in _pages(reader, "exceptions", "stack_trace", deployment, project, period):
        projects.add(to_text(found))
        name = _exception_class(to_text(stack))
        for figures in at(ts):
            figures.exceptions[name] = figures.exceptions.get(name, 0) + 1
    return projects


def _exception_class(stack: str) -> str:
    """The class that a stack trace ends in; `(message)` for what was logged without an exception."""
    # What follows the frames of the last trace; the text of the exception may go on for more lines.
    frames = stack.rpartition("Traceback (most recent call last):\n")[2].splitlines()
    head = next((line for line in frames if line[:1].strip()), "").partition(":")[0]
    return head.rpartition(".")[2][:200] if head and " " not in head else "(message)"


def _add_statistics(reader: Reader, deployment: str, project: str | None, period: Period, at: At) -> set[str]:
    projects = set()
    for row in _pages(reader, "statistics", _STATISTICS, deployment, project, period):
        projects.add(to_text(row[0]))
        for figures in at(row[1]):
            figures.add_record(row[2:])
    return projects


def _pages(
    reader: Reader, table: str, columns: str, deployment: str, project: str | None, period: Period
) -> Iterator[Row]:
    """Project, time and columns of each line, once, in bounded memory: pages that go on behind the last line."""
    last: tuple[str, int, int] | None = None
    while True:
        parameters = Parameters()
        where = _scope(parameters, project, deployment, period)
        if last is not None:
            found, ts, line_hash = last
            where += (
                f" AND (ts, line_hash, project_id) > (fromUnixTimestamp64Micro({parameters.add(ts, 'Int64')}, 'UTC'), "
                f"{parameters.add(line_hash, 'UInt64')}, {parameters.add(found, 'String')})"
            )
        rows = reader.rows(
            f"SELECT project_id, toUnixTimestamp64Micro(ts), line_hash, {columns} FROM {table} WHERE {where} "
            f"ORDER BY {table}.ts, line_hash, project_id LIMIT 1 BY {table}.ts, line_hash, project_id LIMIT {_PAGE}",
            parameters,
        )
        for found, ts, _, *values in rows:
            yield (found, ts, *values)
        if len(rows) < _PAGE:
            return
        last = (to_text(rows[-1][0]), rows[-1][1], rows[-1][2])


def _metadata(reader: Reader, deployment: str, project: str | None) -> tuple[dict[str, Any], set[str]]:
    """What was said last of each key."""
    parameters = Parameters()
    where = _scope(parameters, project, deployment, Period())
    rows = reader.rows(
        f"SELECT DISTINCT project_id, toUnixTimestamp64Micro(ts) AS moment, line_hash, entries FROM metadata WHERE {where} "
        "ORDER BY moment, line_hash",
        parameters,
    )
    metadata: dict[str, Any] = {}
    for _, _, _, entries in rows:
        value = to_json_value(entries)
        if isinstance(value, dict):
            metadata.update(value)
    return metadata, {to_text(row[0]) for row in rows}


def _scope(parameters: Parameters, project: str | None, deployment: str | None, period: Period) -> str:
    where = ["1"]
    if project is not None:
        where.append(f"project_id = {parameters.add(project, 'String')}")
    if deployment is not None:
        where.append(f"deployment = {parameters.add(deployment, 'String')}")
    for bound, operator in ((period.since, ">="), (period.until, "<")):
        if bound is not None:
            where.append(f"ts {operator} fromUnixTimestamp64Micro({parameters.add(bound, 'Int64')}, 'UTC')")
    return " AND ".join(where)


def _parts(value: Any, *, top: bool) -> Iterator[tuple[str, Any]]:
    """Names and values of features, or, with `top`, of a prediction, whose whole is named ''."""
    if top:
        yield "", value
    if isinstance(value, dict):
        yield from ((name, item) for name, item in value.items())
    elif isinstance(value, list):
        yield from ((str(index), item) for index, item in enumerate(value))
    elif not top and value is not None:
        yield "0", value
