"""`tailrace backfill s3://…` against an S3 server.

Needs `pip install s3fs 'moto[s3,server]'`, 300 MB that nothing else here wants; skipped without them.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from crash import stores
from crash.written import line
from support.cli import report

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

BUCKET = "logs"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """An empty bucket; what this process starts finds its server."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    client = pytest.importorskip("boto3").client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    server.stop()


def _data(writer: int, count: int) -> bytes:
    return b"".join(line(writer, number).data + b"\n" for number in range(count))


def test_from_s3(bucket: object, tmp_path: Path) -> None:
    """Objects below a prefix and by pattern, plain and compressed, one of several parts: every line once; a second run opens
    nothing, an object that was replaced is read again, and a bucket that is not there is named and makes the exit code 1."""
    put = bucket.put_object  # type: ignore[attr-defined]
    counts = {0: 20_000, 1: 3_000, 2: 500}
    put(Bucket=BUCKET, Key="2026/w0.log", Body=_data(0, counts[0]))
    put(Bucket=BUCKET, Key="2026/deep/w1.log.gz", Body=gzip.compress(_data(1, counts[1])))
    put(Bucket=BUCKET, Key="2026/w2.log", Body=_data(2, 400))
    put(Bucket=BUCKET, Key="other/w3.log", Body=_data(3, 10))
    dsn = stores.create_embedded(tmp_path / "db")
    arguments = ("backfill", f"s3://{BUCKET}/2026", "--clickhouse", dsn)
    assert (first := report(*arguments))["complete"] == 3, first
    again = report(*arguments)
    assert (again["finished_before"], again["lines"]) == (3, 0)
    put(Bucket=BUCKET, Key="2026/w2.log", Body=_data(2, counts[2]))
    third = report(*arguments)
    assert (third["finished_before"], third["lines"]) == (2, 100)
    counts[3] = 10
    assert report("backfill", f"s3://{BUCKET}/*/w3.log", "--clickhouse", dsn)["lines"] == 10
    stored, model = stores.read(dsn), stores.expected(counts)
    assert stored.tables == model.tables and stored.dead_letters == model.dead_letters
    missing = report("backfill", "s3://nothing/logs", "--clickhouse", dsn, check=1)
    assert set(missing["errors"]) == {"s3://nothing/logs"}
