"""Model monitoring: configure once, then a session for each deployed model.

    >>> import tailrace
    >>> from tailrace.testing import MemoryLogger
    >>> logger = MemoryLogger("shop")  # in production: configure(project_id="shop", path="/var/log/shop/models.log")
    >>> tailrace.configure(logger=logger)
    >>> session = tailrace.session(deployment_name="fraud_prod")
    >>> session.log_metadata("model version", "1.0")
    >>> prediction_id = session.log_prediction(features={"amount": 12.5, "country": "XX"}, prediction=True)
    >>> session.log_ground_truth(label=False, prediction_id=prediction_id, segments=["new customers"])
    >>> logger.of_kind("prediction")[0]["features"]
    {'amount': 12.5, 'country': 'XX'}

With `statistics_only=True` the same calls write no raw data, but statistics of windows:

    >>> logger = MemoryLogger("shop")
    >>> tailrace.configure(logger=logger, statistics_only=True)
    >>> for amount in range(100):
    ...     _ = session.log_prediction(features={"amount": amount}, prediction=amount > 90)
    >>> session.flush()
    >>> feature = logger.of_kind("statistics")[0]
    >>> feature["name"], feature["type"], feature["count"], feature["mean"]
    ('amount', 'integer', 100, 49.5)
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Mapping
from hashlib import blake2b
from threading import RLock
from typing import TYPE_CHECKING, Any

from tailrace.jsonable import encode
from tailrace.logger import Counters, Event, Logger, LoggerStats
from tailrace.policy import Redact
from tailrace.schemas.errors import ConfigError
from tailrace.schemas.limits import MAX_NAME
from tailrace.sessions import Session, Target
from tailrace.wire import timestamp

if TYPE_CHECKING:
    from tailrace.windows import Collector, Windows

__all__ = ["Session", "configure", "session"]

MAX_SESSIONS = 1000
"""Deployments that a process may tell apart; sessions beyond them share one named `(other)`."""
_TRUE = re.compile(r"1|true|yes|on", re.IGNORECASE)


class _Unconfigured:
    """Stands for a logger until there is one: counts, and warns once."""

    project_id = "unconfigured"

    def __init__(self) -> None:
        self._counters = Counters()

    def write(self, _line: bytes) -> None:
        self._counters.add(
            Event.DROPPED,
            1,
            "not configured",
            "model monitoring is not configured: call tailrace.configure(project_id=…, path=…) or set "
            "TAILRACE_PROJECT_ID and TAILRACE_LOG",
        )

    def count(self, event: Event, number: int = 1, reason: str = "", detail: str = "") -> None:
        self._counters.add(event, number, reason, detail)

    def stats(self) -> LoggerStats:
        return self._counters.snapshot(0)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Monitoring:
    """Sessions by name, and where they log to. A process has one; tests may make their own.

    Args:
        environ: Consulted by the first session when `configure` was not called: `TAILRACE_PROJECT_ID`, `TAILRACE_LOG`,
            `TAILRACE_STATISTICS_ONLY`, `TAILRACE_HASH_KEY`.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._lock = RLock()
        self._sessions: dict[str, Session] = {}
        self._configured = False
        self._target = Target(_Unconfigured())

    def configure(
        self,
        *,
        project_id: str | None = None,
        path: str | os.PathLike[str] | None = None,
        logger: Logger | None = None,
        statistics_only: bool | None = None,
        window_seconds: float = 60.0,
        debug_mode: bool = False,
        hash_key: str | bytes | None = None,
        api_key: str | None = None,
        redact: Redact | None = None,
    ) -> None:
        """See `tailrace.configure`."""
        if statistics_only is None:
            statistics_only = bool(_TRUE.fullmatch(self._environ.get("TAILRACE_STATISTICS_ONLY", "")))
        if not 0.1 <= window_seconds <= 86400:
            raise ConfigError(f"window_seconds must be between 0.1 and 86400 (a day), not {window_seconds!r}")
        logger = self._logger(project_id, path, logger)
        target = Target(logger, debug=_debug_log() if debug_mode else None)
        target.redact = redact or getattr(getattr(logger, "policy", None), "redact", None)
        if statistics_only:
            secret = hash_key or self._environ.get("TAILRACE_HASH_KEY") or api_key
            target.windows = _windows(target, secret, window_seconds)
        with self._lock:
            before, self._target = self._target, target
            self._configured = True
            for session in self._sessions.values():
                session._bind(target)
        if before.windows is not None:
            before.windows.close()
        # What is registered last runs first: before the logger, which was made earlier, lets go of its lines.
        atexit.unregister(self.close)
        atexit.register(self.close)

    def _logger(
        self, project_id: str | None, path: str | os.PathLike[str] | None, logger: Logger | None
    ) -> Logger:
        if logger is not None:
            if path is not None:
                raise ConfigError("give either a path or a logger, not both")
            if project_id is not None and project_id != logger.project_id:
                raise ConfigError(
                    f"project_id {project_id!r} is not that of the logger ({logger.project_id!r}): leave it out"
                )
            return logger
        project_id = project_id or self._environ.get("TAILRACE_PROJECT_ID")
        path = path or self._environ.get("TAILRACE_LOG")
        if not project_id or not path:
            missing = "project_id (or TAILRACE_PROJECT_ID)" if not project_id else "path (or TAILRACE_LOG)"
            raise ConfigError(f"model monitoring needs a {missing}: tailrace.configure(project_id=…, path=…)")
        from tailrace.file_logger import FileLogger

        return FileLogger(path, project_id)

    def session(self, deployment_name: str) -> Session:
        """See `tailrace.session`."""
        name = _name(deployment_name)
        found = self._sessions.get(name)
        if found is not None:
            return found
        with self._lock:
            if not self._configured and self._environ.get("TAILRACE_LOG"):
                self._configure_from_environment()
            if name not in self._sessions and len(self._sessions) >= MAX_SESSIONS:
                self._target.logger.count(Event.ALTERED, detail="too many deployments: logged as (other)")
                name = "(other)"
            if name not in self._sessions:
                self._sessions[name] = Session(name, self._target)
            return self._sessions[name]

    def _configure_from_environment(self) -> None:
        try:
            self.configure()
        except Exception as exc:
            self._configured = True  # once is enough: the warning says what is wrong
            Counters.warn(f"model monitoring cannot be configured from the environment: {exc}")

    def close(self) -> None:
        """Write what is held, as at exit. Logging goes on to work, without a thread."""
        if self._target.windows is not None:
            self._target.windows.close()

    def restart(self) -> None:
        """Begin anew in a forked child."""
        self._lock = RLock()
        self._target.restart()


def _windows(target: Target, secret: str | bytes | None, window_seconds: float) -> Windows:
    try:
        from tailrace.statistics import Hasher
        from tailrace.windows import Windows
    except ModuleNotFoundError as exc:
        raise ConfigError(f"statistics need {exc.name}: pip install 'tailrace[statistics]'") from exc

    # Without a secret, hashes of the same project are alike in all processes, and anybody can make them.
    source = secret if secret is not None else target.logger.project_id
    data = source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass")
    hasher = Hasher(blake2b(data, digest_size=32, person=b"tailrace").digest(), secret=secret is not None)

    def emit(collector: Collector, record: dict[str, Any], began: float, seconds: float) -> None:
        fields = {
            "v": 1,
            "kind": "statistics",
            "ts": timestamp(int(began * 1e9)).decode(),
            "project_id": target.logger.project_id,
            "deployment": collector.deployment,
            "seconds": round(max(seconds, 0.0), 6),
            "instance": target.instance,
            "sequence": next(target.numbers),
            **record,
        }
        line, _ = encode(fields)
        target.logger.write(line + b"\n")
        if target.debug is not None:
            target.debug.debug("window of %s: %s", collector.deployment, line.decode())

    def problem(reason: str, number: int, detail: str) -> None:
        target.logger.count(Event.DROPPED if number else Event.ALTERED, max(number, 1), reason, detail)

    return Windows(hasher, window_seconds, emit, problem)


def _name(deployment_name: Any) -> str:
    try:
        return str(deployment_name)[:MAX_NAME] or "(unnamed)"
    except Exception:
        return "(unnamed)"


def _debug_log() -> Any:
    import logging

    log = logging.getLogger("tailrace.monitoring")
    log.setLevel(logging.DEBUG)
    if not log.hasHandlers():
        log.addHandler(logging.StreamHandler())
    return log


# The one configuration of a process, as `logging` has one root. Everything that is known of it is inside.
_MONITORING = Monitoring(os.environ)
os.register_at_fork(after_in_child=_MONITORING.restart)


def configure(
    *,
    project_id: str | None = None,
    path: str | os.PathLike[str] | None = None,
    logger: Logger | None = None,
    statistics_only: bool | None = None,
    window_seconds: float = 60.0,
    debug_mode: bool = False,
    hash_key: str | bytes | None = None,
    api_key: str | None = None,
    redact: Redact | None = None,
) -> None:
    """Say once, at start, where sessions log to. Called again, it replaces what was said; sessions stay valid.

    A service that does not call it is configured by the environment: `TAILRACE_PROJECT_ID`, `TAILRACE_LOG`,
    `TAILRACE_STATISTICS_ONLY`, `TAILRACE_HASH_KEY`. Where that is not set either, sessions warn once and count what is
    lost.

    **Statistics only.** No raw value of a feature, prediction, label or `extra_info`, and no text of an exception, is
    written. For each session, window and feature there are counts, a sketch of distinct values, and for numbers mean,
    deviation, and a histogram with bins of two per cent, from which minimum, maximum and quantiles are read within one
    per cent; mean and deviation are exact over five or more different values and as coarse otherwise. Texts are hashed
    with a key. Ground truths give counts of hits and misses (binary), of pairs of hashed classes (texts), or figures of
    the errors (numbers), for each segment. Names of features, segments and exception classes, and metadata, are written
    in clear. Windows end by time and are written by a daemon thread, and at exit. SIGTERM ends Python without running
    exit handlers unless the service (or its server: gunicorn, uvicorn) handles it; where nothing does,
    `signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))` is enough.

    Args:
        project_id: The project that every line names; the logger's when a logger is given.
        path: The log file; a `FileLogger` is made for it.
        logger: Any logger, in place of a path.
        statistics_only: Write statistics of windows and no raw data; needs `pip install 'tailrace[statistics]'`.
        window_seconds: Length of a window, from 0.1 to 86,400.
        debug_mode: Tell every call, and every window, to the standard logger `tailrace.monitoring`.
        hash_key: A secret, the same in all processes of a project, by which texts are hashed in statistics. Without
            one the key is derived from the project: nobody can read texts from a sketch, but whoever can guess one may
            confirm it, so hashes of frequent texts are then left out. (Classes of ground truths are hashed in any case.)
        api_key: Taken for `hash_key` where that is not given. There is no server to send it to.
        redact: Called with what a value is (`features`, `prediction`, `predictions`, `label`, `extra_info`, `metadata`,
            `message`, `stack_trace`) and the value, returns what to log in its place; the logger's policy by default.

    Raises:
        ConfigError: A setting is missing or contradicts another, or what statistics need is not installed.
    """
    _MONITORING.configure(
        project_id=project_id,
        path=path,
        logger=logger,
        statistics_only=statistics_only,
        window_seconds=window_seconds,
        debug_mode=debug_mode,
        hash_key=hash_key,
        api_key=api_key,
        redact=redact,
    )


def session(deployment_name: str) -> Session:
    """The session of a deployed model. The same name gives the same session; any number may be used in parallel.

    Args:
        deployment_name: For example `fraud_prod`; with the project it names the deployment.
    """
    return _MONITORING.session(deployment_name)
