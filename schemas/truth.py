"""What kind of answer a model gives: the same for whoever counts ground truths in a service and whoever adds them up later."""

from __future__ import annotations

from typing import Any


def truth_kind(label: Any, prediction: Any) -> str:
    """What a model answers, as label and prediction show it: `binary`, `text`, `number`, `other`, or `none`.

    >>> truth_kind(True, False), truth_kind(1, 0.5), truth_kind("cat", None)
    ('binary', 'number', 'none')
    """
    if label is None or prediction is None:
        return "none"
    kinds = {type(label), type(prediction)}
    if kinds == {bool}:
        return "binary"
    if kinds == {str}:
        return "text"
    return "number" if kinds <= {bool, int, float} else "other"
