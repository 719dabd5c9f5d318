"""The model monitoring library that this one follows, name by name: what its documentation shows works in the same lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tailrace
from support.cli import query, report
from support.cli import tailrace as run


def log_what_the_document_shows() -> None:
    """The calls of the document's sections 3 to 5 and of its examples, in their order."""
    sess = tailrace.session(deployment_name="model1_prod")
    sess.log_metadata("key1", "val1")
    sess.log_prediction(features={"feat1": 1.2, "feat2": "XX"}, prediction=True)
    sess.log_prediction_batch(features=[[1.2, 70], [3.5, 40]], predictions=[[0.5], [0.75]])
    sess.log_exception(message="wrong format", extra_info={"feature": "F1"})
    sess.log_ground_truth(label=True, prediction=False)
    sess.log_ground_truth(label=True, prediction=False, segments=["seg1", "seg2"])

    fraud = tailrace.session(deployment_name="fraud_detection_prod")
    fraud.log_metadata("model version", "1.0")
    output_data = np.array([[0.25]])
    for features in ({"amount": 12.5, "country": "DE"}, {"amount": 7.5, "country": "FR"}, None):
        try:
            assert features is not None
            fraud.log_prediction(
                features={**features, "half": features["amount"] / 2}, prediction=output_data[0]
            )
        except AssertionError:
            fraud.log_exception(exc_info=True)
    frame = pd.DataFrame({"amount": [1.0, 2.0], "country": ["DE", None]})
    fraud.log_prediction_batch(features=frame, predictions=np.array([0.5, 0.75]))
    fraud.log_prediction_batch(features={"amount": [3.0], "country": ["IT"]}, predictions=[0.5])
    fraud.log_prediction_batch(features=[{"amount": 4.0}], predictions=pd.Series([0.5]))

    recommender = tailrace.session(deployment_name="job_recommender_prod")
    recommender.log_metadata("model version", "v1.2")
    recommender.log_ground_truth(label=True, prediction=False)


@pytest.fixture(scope="module", params=["raw", "statistics only"])
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """What the document shows, through a file and the pipeline, into an embedded database; and the file."""
    directory = tmp_path_factory.mktemp("monitoring")
    log = directory / "models.log"
    tailrace.configure(
        project_id="shop", path=log, statistics_only=request.param == "statistics only", api_key="my_api_key"
    )
    log_what_the_document_shows()
    tailrace.session(deployment_name="model1_prod").flush()
    dsn = f"chdb://{directory / 'db'}"
    found = report("up", "--once", "--clickhouse", dsn, log)
    lines = log.read_text().splitlines()
    assert (found["rows"], found["dead_letters"]) == (len(lines), 0)
    return request.param, directory / "db", log


def only(columns: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (column,) = [column for column in columns if column["name"] == name]
    return column


def test_deployments_are_listed(stored: tuple[str, Path, Path]) -> None:
    """Each deployment with how much was logged, the same in both modes."""
    _, path, _ = stored
    found = report("deployments", "--clickhouse", f"chdb://{path}")["deployments"]
    assert [
        (
            each["project_id"],
            each["deployment"],
            each["predictions"],
            each["ground_truths"],
            each["exceptions"],
        )
        for each in found
    ] == [
        ("shop", "fraud_detection_prod", 6, 0, 1),
        ("shop", "job_recommender_prod", 0, 1, 0),
        ("shop", "model1_prod", 3, 2, 1),
    ]


def test_a_deployment_is_described(stored: tuple[str, Path, Path]) -> None:
    """Features, predictions, exceptions, metadata and performance by segment: the same in both modes, to one per cent."""
    _, path, _ = stored
    where = ["--clickhouse", f"chdb://{path}"]
    fraud = report("deployment", "fraud_detection_prod", *where)
    assert fraud["metadata"] == {"model version": "1.0"}
    assert fraud["whole"]["predictions"] == 6
    amount = only(fraud["whole"]["features"], "amount")
    assert (amount["type"], amount["count"], amount["missing"], amount["distinct"]) == ("number", 6, 0, 6)
    values = [12.5, 7.5, 1.0, 2.0, 3.0, 4.0]
    assert amount["mean"] == pytest.approx(np.mean(values), rel=0.01)
    assert amount["std"] == pytest.approx(np.std(values), rel=0.03)
    assert (amount["min"], amount["max"]) == (pytest.approx(1, rel=0.011), pytest.approx(12.5, rel=0.011))
    country = only(fraud["whole"]["features"], "country")
    assert (country["type"], country["count"], country["missing"], country["distinct"]) == ("text", 6, 2, 3)
    assert fraud["whole"]["exceptions"] == [{"type": "AssertionError", "count": 1}]
    assert only(fraud["whole"]["outputs"], "0")["mean"] == pytest.approx(0.25, rel=0.01)

    model = report("deployment", "model1_prod", "--over", "hour", *where)
    performance = {each["segment"]: each for each in model["whole"]["performance"]}
    assert {name: each["count"] for name, each in performance.items()} == {"": 2, "seg1": 1, "seg2": 1}
    assert (performance[""]["accuracy"], performance[""]["recall"], performance[""]["f1"]) == (0, 0, 0)
    assert sum(bucket["predictions"] for bucket in model["over"]) == 3
    feature = only(model["whole"]["features"], "1")
    assert (feature["type"], feature["min"], feature["max"], feature["missing"]) == ("integer", 40, 70, 1)

    assert "AssertionError" in run("deployment", "fraud_detection_prod", *where).stdout
    assert "accuracy" in run("deployment", "model1_prod", "--format", "csv", *where).stdout
    assert run("deployment", "no_such", *where, check=3).stderr.startswith("tailrace: there is no deployment")


def test_raw_data_is_in_the_tables_or_nowhere(stored: tuple[str, Path, Path]) -> None:
    """With raw data every value is in its table; in statistics-only mode those tables are empty, and so is the file of it."""
    mode, path, log = stored
    tables = ("predictions", "ground_truths", "exceptions", "statistics")
    counts = query(path, *(f"SELECT count() AS n FROM {table}" for table in tables))
    predictions, truths, exceptions, statistics = (rows[0]["n"] for rows in counts)
    if mode == "raw":
        assert (predictions, truths, exceptions, statistics) == (9, 3, 2, 0)
        (rows,) = query(
            path, "SELECT features, prediction FROM predictions WHERE deployment = 'model1_prod' ORDER BY ts"
        )
        assert json.loads(rows[0]["features"]) == {"feat1": 1.2, "feat2": "XX"}
        assert {row["prediction"] for row in rows} == {"true", "[0.5]", "[0.75]"}
    else:
        assert (predictions, truths, exceptions) == (0, 0, 0)
        assert statistics > 10
        text = log.read_text()
        assert not any(f'"{secret}"' in text for secret in ("XX", "wrong format", "F1", "DE", "FR", "IT"))
