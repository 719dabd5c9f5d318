"""Pictures of slices: the values of a tag beside each other, or a time series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.explorer.answers import By, Metric, Over, SliceReport

SUFFIXES = (".png", ".svg", ".pdf")
_MOST_VALUES = 20
_WIDTH, _HEIGHT = 9.0, 3.2
_COLORS = {"p50": "#1f77b4", "p95": "#ff7f0e", "p99": "#d62728"}


def check_plot(path: Path, drawable: bool) -> None:
    """Refuse what cannot be drawn, before anything is asked.

    Args:
        path: Of the picture.
        drawable: Whether there is more than one figure to draw.

    Raises:
        ConfigError: Another suffix, no directory, nothing to draw, or matplotlib is missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: a picture's name ends in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no directory {path.parent}")
    if not drawable:
        raise ConfigError("--plot draws the values of --by or the time series of --over: give one of them")
    _figure_class()


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as exc:
        raise ConfigError("pictures need matplotlib: pip install 'tailrace[plot]'") from exc
    return Figure


def draw(report: SliceReport, path: Path) -> None:
    """Draw what a report holds, one panel below the other: traces and errors, then each metric.

    Raises:
        ConfigError: The file cannot be written, or matplotlib is missing.
    """
    panels = sum(1 + len(report.metrics) for part in (report.by, report.over) if part is not None)
    figure = _figure_class()(figsize=(_WIDTH, _HEIGHT * panels), layout="constrained")
    axes = list(figure.subplots(panels, 1, squeeze=False)[:, 0])
    figure.suptitle(_plain(report.slice or "every trace"), fontsize=10)
    if report.by is not None:
        _draw_by(axes, report.by, list(report.metrics))
    if report.over is not None:
        _draw_over(axes, report.over, list(report.metrics))
    try:
        figure.savefig(path, dpi=130)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror or exc}") from exc


def _plain(text: str, limit: int = 100) -> str:
    """Text as it stands: matplotlib would take what is between two dollar signs for mathematics."""
    shown = "".join(c if c.isprintable() else "�" for c in text)
    return (shown if len(shown) <= limit else shown[: limit - 1] + "…").replace("$", r"\$")


def _draw_by(axes: list[Any], by: By, names: list[str]) -> None:
    rows = by.rows[:_MOST_VALUES][::-1]
    labels = ["(without)" if row.value is None else _plain(row.value, 30) or '""' for row in rows]
    places = list(range(len(rows)))
    panel = axes.pop(0)
    panel.barh(places, [row.traces for row in rows], color="#9ecae1", label="traces")
    panel.barh(places, [row.errors for row in rows], color="#d62728", label="with errors")
    panel.set_yticks(places, labels)
    panel.set_xlabel(f"traces by {_plain(by.tag, 40)}")
    panel.legend(fontsize=8)
    for name in names:
        panel = axes.pop(0)
        for place, row in zip(places, rows, strict=True):
            _draw_distribution(panel, place, row.metrics[name])
        panel.set_yticks(places, labels)
        panel.set_xlabel(f"{_plain(name, 60)}: p50, p95, p99 (dots), mean (bar)")
        panel.grid(axis="x", alpha=0.3)


def _draw_distribution(panel: Any, place: int, metric: Metric) -> None:
    if metric.p50 is None or metric.p95 is None or metric.p99 is None:
        return
    panel.plot([metric.p50, metric.p99], [place, place], color="#bbbbbb", zorder=1)
    for level, color in _COLORS.items():
        panel.scatter([getattr(metric, level)], [place], color=color, zorder=2, s=24)
    if metric.mean is not None:
        panel.scatter([metric.mean], [place], marker="|", color="black", zorder=3, s=120)


def _draw_over(axes: list[Any], over: Over, names: list[str]) -> None:
    moments = [row.start for row in over.rows]
    panel = axes.pop(0)
    panel.plot(moments, [row.traces for row in over.rows], color="#1f77b4", label="traces")
    panel.plot(moments, [row.errors for row in over.rows], color="#d62728", label="with errors")
    panel.set_ylabel(f"traces per {over.every}")
    panel.set_ylim(bottom=0)
    panel.legend(fontsize=8)
    for name in names:
        panel = axes.pop(0)
        for level, color in _COLORS.items():
            heights = [getattr(row.metrics[name], level) for row in over.rows]
            panel.plot(moments, [float("nan") if h is None else h for h in heights], color=color, label=level)
        panel.set_ylabel(_plain(name, 40))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
