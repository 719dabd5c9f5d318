"""A model monitoring session: what one deployed model was given, what it answered, and what was true."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from os import urandom
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson

from tailrace.batches import Batch, BatchError
from tailrace.context import current_trace
from tailrace.jsonable import encode, encode_text
from tailrace.logger import Event, Logger, LoggerStats
from tailrace.oversized import fitted, fitted_text
from tailrace.policy import SMALL, Redact, redacted
from tailrace.schemas.limits import MAX_NAME
from tailrace.wire import encode_id, timestamp, whole_second

if TYPE_CHECKING:
    from logging import Logger as DebugLog

    from tailrace.windows import Collector, Windows

ExcInfo = (
    bool
    | BaseException
    | tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
    | None
)

_SCALARS = frozenset({str, int, float, bool, type(None)})
_SECOND = 1_000_000_000
_PREDICTION = (
    b'{"v":1,"kind":"prediction","ts":"%b.%06dZ",%b"prediction_id":%b,"features":%b,"prediction":%b}\n'
)
_JOINED_BYTES = 256 * 1024


@dataclass(eq=False)
class Target:
    """Where sessions log to: what `configure` made.

    Args:
        logger: Takes the lines.
        windows: In statistics-only mode, what counts instead of writing rows.
        debug: Where each call is told in debug mode.
    """

    logger: Logger
    windows: Windows | None = None
    debug: DebugLog | None = None
    redact: Redact | None = None
    instance: str = field(default_factory=lambda: new_instance())
    numbers: count[int] = field(default_factory=count)

    def restart(self) -> None:
        """Tell a forked child apart from its parent, and start it with nothing to write."""
        self.instance = new_instance()
        self.numbers = count()
        if self.windows is not None:
            self.windows.restart()


def new_instance() -> str:
    """A name for this process that no other has."""
    return urandom(8).hex()


class Session:
    """Logs for one deployed model; made by `tailrace.session(deployment_name=…)`. Safe to share among threads.

    No method raises or waits for anything slower than a local file; what cannot be logged is counted (`stats()`).

    In statistics-only mode no value of a feature, prediction, label or `extra_info` is written, and neither is the text
    of an exception: see `tailrace.configure`.
    """

    __slots__ = ("_collector", "_middle", "_name", "_target", "_write")

    def __init__(self, deployment_name: str, target: Target) -> None:
        self._name = deployment_name
        self._bind(target)

    def _bind(self, target: Target) -> None:
        name = encode_text(self._name)[0]
        project = encode_text(target.logger.project_id)[0]
        self._middle = b'"project_id":%b,"deployment":%b,' % (project, name)
        self._write = target.logger.write
        self._collector: Collector | None = (
            None if target.windows is None else target.windows.collector(self._name)
        )
        self._target = target

    @property
    def deployment_name(self) -> str:
        """The deployment that is logged for."""
        return self._name

    def log_metadata(self, key: str, value: Any) -> None:
        """Log a fact about the deployment, such as the model's version. Written in clear in every mode.

        Args:
            key: Its name.
            value: Anything that JSON can hold.
        """
        try:
            name, altered_key = encode_id(key)
            entry, altered = encode(self._redacted("metadata", value))
            entries = b"{%b:%b}" % (name, self._fitted(name, entry))
            self._line(b"metadata", b'"entries":%b' % entries, altered or altered_key)
        except Exception as exc:
            self._dropped(exc)

    def log_prediction(
        self,
        features: Mapping[str, Any] | Sequence[Any] | None = None,
        prediction: Any = None,
        prediction_id: str | None = None,
    ) -> str:
        """Log what the model was given and what it answered.

        Args:
            features: By name; an array or a list names them by position.
            prediction: A boolean, a number, a class, or a list, array or dict of them.
            prediction_id: Of your own, unique in the deployment; None makes one.

        Returns:
            The id, to be given to `log_ground_truth`; `""` where nothing is written that it could name.
        """
        try:
            if self._target.redact is not None:
                features = self._redacted("features", features)
                prediction = self._redacted("prediction", prediction)
            collector = self._collector
            if collector is not None:
                self._count(collector, features, prediction)
                return prediction_id or ""
            # Tried before anything else, since nearly all features are what orjson takes as it is.
            try:
                given = orjson.dumps(features)
                answer = orjson.dumps(prediction)
                plain = b"null" not in given and b"null" not in answer
            except Exception:
                plain = False
            if not plain:
                return self._predict_slowly(features, prediction, prediction_id)
            target = self._target
            if prediction_id is None:
                prediction_id = "%s-%d" % (target.instance, next(target.numbers))  # noqa: UP031 - quicker
                name = b'"%b"' % prediction_id.encode()
            else:
                name = encode_id(prediction_id)[0]
            if len(given) + len(answer) > SMALL:
                given = self._fitted(b'"features"', given)
                answer = self._fitted(b'"prediction"', answer)
            seconds, rest = divmod(time_ns(), _SECOND)
            middle = self._middle if current_trace() is None else self._middle_of_trace()
            self._write(_PREDICTION % (whole_second(seconds), rest // 1000, middle, name, given, answer))
            if target.debug is not None:
                target.debug.debug("prediction of %s logged as %s", self._name, prediction_id)
            return prediction_id
        except Exception as exc:
            self._dropped(exc)
            return ""

    def _predict_slowly(self, features: Any, prediction: Any, prediction_id: str | None) -> str:
        target = self._target
        name = prediction_id or f"{target.instance}-{next(target.numbers)}"
        given, altered_features = encode(features)
        answer, altered_prediction = encode(prediction)
        fields = b'"prediction_id":%b,"features":%b,"prediction":%b' % (
            encode_id(name)[0],
            self._fitted(b'"features"', given),
            self._fitted(b'"prediction"', answer),
        )
        self._line(b"prediction", fields, altered_features or altered_prediction)
        return name

    def _count(self, collector: Collector, features: Any, prediction: Any) -> None:
        # The service may change what it gave us before it is counted: hold nothing that is not a copy.
        own = dict(features) if type(features) is dict else _own_features(features)
        answer = prediction if type(prediction) in _SCALARS else _own(prediction)
        self._taken(collector.add_row(own, answer), "prediction")

    def _taken(self, taken: bool, kind: str, rows: int = 1) -> None:
        """See to it that what was handed to the statistics is written some time."""
        target = self._target
        if target.windows is not None and not target.windows.running:
            target.windows.start()
        if not taken:
            target.logger.count(Event.DROPPED, rows, "statistics queue full")
        if target.debug is not None:
            target.debug.debug("%s of %s %s", kind, self._name, "counted" if taken else "dropped")

    def log_prediction_batch(self, features: Any = None, predictions: Any = None) -> None:
        """Log many predictions at once, one record a row.

        Args:
            features: A list of lists or of dicts, a dict of columns, a numpy array or a pandas DataFrame.
            predictions: As many: a list (of values, lists or dicts), an array, a Series, a DataFrame or a dict of columns.
                A batch whose lengths differ is dropped as a whole, and counted.
        """
        try:
            batch = Batch(self._redacted("features", features), self._redacted("predictions", predictions))
        except BatchError as exc:
            self._target.logger.count(Event.DROPPED, 1, "invalid batch", str(exc))
            return
        except Exception as exc:
            self._dropped(exc)
            return
        try:
            if self._collector is not None:
                self._count_batch(self._collector, batch)
            else:
                self._write_batch(batch)
        except Exception as exc:
            self._dropped(exc, batch.rows)

    def _count_batch(self, collector: Collector, batch: Batch) -> None:
        predictions = [
            value if type(value) in _SCALARS else _own(value) for value in batch.predictions_by_row()
        ]
        records = None if batch.records is None else [_own_features(row) for row in batch.records]
        taken = collector.add_batch(batch.columns, records, predictions)
        self._taken(taken, f"batch of {batch.rows} predictions", batch.rows)

    def _write_batch(self, batch: Batch) -> None:
        target = self._target
        start = b'{"v":1,"kind":"prediction","ts":"%b",%b' % (timestamp(time_ns()), self._middle_now())
        lines: list[bytes] = []
        size = altered = 0
        for features, prediction in zip(batch.features_by_row(), batch.predictions_by_row(), strict=True):
            given, altered_features = encode(features)
            answer, altered_prediction = encode(prediction)
            altered += altered_features or altered_prediction
            line = b'%b"prediction_id":"%b-%d","features":%b,"prediction":%b}\n' % (
                start,
                target.instance.encode(),
                next(target.numbers),
                self._fitted(b'"features"', given),
                self._fitted(b'"prediction"', answer),
            )
            lines.append(line)
            size += len(line)
            if size > _JOINED_BYTES:
                self._write_joined(lines)
                lines, size = [], 0
        self._write_joined(lines)
        if altered:
            target.logger.count(Event.ALTERED, altered, detail="features or predictions of a batch")
        if target.debug is not None:
            target.debug.debug("%d predictions of %s logged", batch.rows, self._name)

    def _write_joined(self, lines: list[bytes]) -> None:
        write_lines = getattr(self._target.logger, "write_lines", None)
        if write_lines is None or len(lines) < 2:
            for line in lines:
                self._write(line)
            return
        # The first by itself: a logger looks after its file when it is time to, and then joins no lines.
        self._write(lines[0])
        write_lines(lines[1:])

    def log_exception(
        self,
        message: str | None = None,
        exc_info: ExcInfo = None,
        extra_info: Mapping[str, Any] | None = None,
    ) -> None:
        """Log that something went wrong in or around the model.

        Args:
            message: What; None takes the class and the text of the exception.
            exc_info: The exception; inside of `except:`, True takes the current one. Its stack trace is logged.
            extra_info: More about it, for people.
        """
        try:
            exc = _exception(exc_info)
            if self._collector is not None:
                self._count_exception(self._collector, exc)
                return
            target = self._target
            if message is None:
                message = "unknown" if exc is None else _described(exc)
            text = encode_text(self._redacted("message", _text(message)))[0]
            fields = b'"message":%b' % fitted_text(target.logger, b'"message"', text)
            altered = False
            if exc is not None:
                stack = encode_text(self._redacted("stack_trace", _stack(exc)))[0]
                fields += b',"stack_trace":%b' % fitted_text(target.logger, b'"stack_trace"', stack)
            if extra_info is not None:
                extra, altered = encode(self._redacted("extra_info", extra_info))
                fields += b',"extra_info":%b' % self._fitted(b'"extra_info"', extra)
            self._line(b"exception", fields + self._unique(), altered)
        except Exception as error:
            self._dropped(error)

    def _count_exception(self, collector: Collector, exc: BaseException | None) -> None:
        name = "(message)" if exc is None else type(exc).__qualname__[:MAX_NAME]
        self._taken(collector.add_exception(name), "exception")

    def log_ground_truth(
        self,
        label: Any,
        prediction: Any = None,
        segments: Sequence[str] | None = None,
        prediction_id: str | None = None,
    ) -> None:
        """Log what turned out to be true, whenever it is known; no prediction need have been logged.

        What kind of model it is, is read from the types: two booleans are binary, two texts are classes, two numbers are
        a regression (integers that stand for classes must be given as texts).

        Args:
            label: What was true.
            prediction: What the model had answered; may be left out in favour of `prediction_id` where raw data is
                logged. In statistics-only mode a ground truth without it is counted as missing.
            segments: Names of parts of the data that this belongs to. Written in clear in every mode.
            prediction_id: As `log_prediction` returned it.
        """
        try:
            if self._target.redact is not None:
                label = self._redacted("label", label)
                prediction = self._redacted("prediction", prediction)
            names = _segments(segments)
            if self._collector is not None:
                self._count_truth(self._collector, label, prediction, names)
                return
            encoded, altered = encode(label)
            fields = b'"label":%b' % self._fitted(b'"label"', encoded)
            if prediction is not None:
                answer, altered_prediction = encode(prediction)
                fields += b',"prediction":%b' % self._fitted(b'"prediction"', answer)
                altered = altered or altered_prediction
            if names:
                fields += b',"segments":[%b]' % b",".join(encode_id(name)[0] for name in names)
            if prediction_id:
                fields += b',"prediction_id":%b' % encode_id(prediction_id)[0]
            self._line(b"ground_truth", fields + self._unique(), altered)
        except Exception as exc:
            self._dropped(exc)

    def _count_truth(
        self, collector: Collector, label: Any, prediction: Any, segments: tuple[str, ...]
    ) -> None:
        self._taken(collector.add_truth(_own(label), _own(prediction), segments), "ground_truth")

    def flush(self) -> None:
        """End the current window of every session and write it; in other modes nothing waits to be written."""
        with suppress(Exception):
            if self._target.windows is not None:
                self._target.windows.flush()
            self._target.logger.flush()

    def stats(self) -> LoggerStats:
        """What was written and what was not, by all sessions and traces of the same logger."""
        return self._target.logger.stats()

    def _unique(self) -> bytes:
        # Equal lines are one row; two equal ground truths of the same microsecond are two.
        target = self._target
        return b',"id":"%b-%d"' % (target.instance.encode(), next(target.numbers))

    def _middle_now(self) -> bytes:
        return self._middle if current_trace() is None else self._middle_of_trace()

    def _middle_of_trace(self) -> bytes:
        trace = current_trace()
        return (
            self._middle
            if trace is None
            else b'%b"trace_id":%b,' % (self._middle, encode_text(trace.trace_id)[0])
        )

    def _line(self, kind: bytes, fields: bytes, altered: bool) -> None:
        target = self._target
        moment = timestamp(time_ns())
        self._write(b'{"v":1,"kind":"%b","ts":"%b",%b%b}\n' % (kind, moment, self._middle_now(), fields))
        if altered:
            target.logger.count(Event.ALTERED, detail=f"a {kind.decode()}")
        if target.debug is not None:
            target.debug.debug("%s of %s logged", kind.decode(), self._name)

    def _fitted(self, name: bytes, encoded: bytes) -> bytes:
        """A value as it goes into a line: itself, or what stands in for one over the size limit."""
        return fitted(self._target.logger, name, encoded)

    def _redacted(self, what: str, value: Any) -> Any:
        redact = self._target.redact
        if redact is None or value is None:
            return value
        value, problem = redacted(redact, what, value)
        if problem:
            self._target.logger.count(Event.ALTERED, detail=problem)
        return value

    def _dropped(self, exc: Exception, rows: int = 1) -> None:
        with suppress(Exception):
            self._target.logger.count(Event.DROPPED, rows, type(exc).__name__, type(exc).__name__)

    def __repr__(self) -> str:
        return f"Session(deployment_name={self._name!r})"


def _own(value: Any) -> Any:
    """A copy, one level deep, of what is to be counted later; what cannot be counted is not held."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if hasattr(value, "tolist"):
        value = value.tolist()
        kind = type(value)
        if kind in _SCALARS:
            return value
    if isinstance(value, Mapping):
        return {_text(name): item if type(item) in _SCALARS else _part(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) in _SCALARS else _part(item) for item in value]
    return _part(value)


def _part(value: Any) -> Any:
    """A scalar, or what stands for anything else, so that no large or changing object is held."""
    if isinstance(value, str | int | float):
        return value
    if getattr(value, "ndim", None) == 0:
        return value
    # pandas.NA, NaT
    return value if type(value).__name__ in ("NAType", "NaTType") else ()


def _own_features(features: Any) -> Any:
    own = _own(features)
    return own if own is None or isinstance(own, dict | list) else [own]


def _segments(segments: Any) -> tuple[str, ...]:
    if segments is None:
        return ()
    return (segments,) if isinstance(segments, str) else tuple(_text(segment) for segment in segments)


def _text(value: Any) -> str:
    return value if type(value) is str else str(value)


def _exception(exc_info: ExcInfo) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if len(exc_info) > 1 else None
    return sys.exc_info()[1] if exc_info else None


def _described(exc: BaseException) -> str:
    try:
        return f"{type(exc).__name__}: {exc}"
    except Exception:
        return type(exc).__name__


def _stack(exc: BaseException) -> str:
    return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
