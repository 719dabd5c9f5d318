"""File → Kafka: ours exactly once, Fluent Bit with the settings that were quickest for it, raw and at least once.

Both write the same lines into a topic of six partitions with acks=all. Both are timed from the start of their process, Fluent Bit
until Kafka has all lines, ours until it says that it has. Fluent Bit's librdkafka may have no zstd, so it compresses with snappy; ours does so
too, and once more with zstd, as shipped. In a third pair neither compresses.
The number of lines is asserted in every run. Before them each has a run that does not count, for a broker that has just started
needs some: what that one wrote is read back (Fluent Bit's with snappy), and compared by checksum.

Where ours goes with zstd (perf, 2026-11-27): half of its CPU is the compressor (ZSTD_compressBlock_fast 32 %, encodeSequences 10 %), copies 10 %, reading 5 %,
counting line feeds 4 %, Python 10 %, nearly all of it the start. Two compressors at once take 0.8 seconds each on these cores for what one alone does in 0.6. Tried
without gain: zstd as a stream that stays in the cache, other windows, tables and match lengths, levels -1 to -5, reads of 64 KiB to 1 MiB, two to four requests in
flight, a broker with C2 and with the options of Kafka's own scripts. Without compression 15 of the 20 ms of a request are the broker's.

FLUENT_BIT names the binary: a release build, since without the compiler's optimisation it is a peer for nobody. Without it the
row says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import xxhash
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.measure import Bench, Row, Taken, Watched, compared, interleaved, tailrace

PARTITIONS = 6
MOST_BYTES = 10_485_760
FLUENT_BIT = """
service:
  flush: {flush}
  grace: 5
  log_level: warning
pipeline:
  inputs:
    - name: tail
      tag: bench
      path: {path}
      read_from_head: on
      refresh_interval: 1
      key: log
      db: {home}/tail.db
      db.sync: normal
      buffer_chunk_size: 1M
      buffer_max_size: 9M
      mem_buf_limit: 64M
      threaded: {threaded}
  outputs:
    - name: kafka
      match: bench
      brokers: {brokers}
      topics: {topic}
      format: raw
      raw_log_key: log
      retry_limit: no_limits
      queue_full_retries: 0
      rdkafka.request.required.acks: "-1"
      rdkafka.message.timeout.ms: "0"
      rdkafka.message.max.bytes: "10485760"
      rdkafka.compression.codec: {codec}
      rdkafka.linger.ms: "{linger}"
      rdkafka.batch.size: "1000000"
      rdkafka.queue.buffering.max.kbytes: "262144"
      rdkafka.queue.buffering.max.messages: "1000000"
"""


def fluent_bit(
    home: Path, path: Path, brokers: str, topic: str, *, codec: str = "snappy", fresh: bool = False
) -> list[str]:
    """The command line of the peer, configured for throughput, or for lines that are to arrive soon."""
    home.mkdir(parents=True)
    text = FLUENT_BIT.format(
        home=home,
        path=path,
        brokers=brokers,
        topic=topic,
        codec=codec,
        flush="0.05" if fresh else "0.2",
        linger="5" if fresh else "20",
        threaded="off" if fresh else "on",
    )
    (home / "fluent-bit.yaml").write_text(text)
    return [os.environ["FLUENT_BIT"], "-c", str(home / "fluent-bit.yaml")]


async def ended(brokers: str, topic: str, lines: int, seconds: float) -> None:
    """Returns when the topic has so many messages."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
    await consumer.start()
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    deadline = time.monotonic() + seconds
    try:
        while (found := sum((await consumer.end_offsets(partitions)).values())) < lines:
            assert time.monotonic() < deadline, f"{found} of {lines} messages arrived"
            await asyncio.sleep(0.01)
    finally:
        await consumer.stop()


async def checked(brokers: str, topic: str) -> tuple[int, int]:
    """Number and checksum of the lines of a topic that are committed; the checksum does not depend on their order."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers, isolation_level="read_committed", max_partition_fetch_bytes=8 << 20
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        lines = total = 0
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    for line in (record.value or b"").split(b"\n"):
                        lines += 1
                        total += xxhash.xxh3_64_intdigest(line)
        return lines, total % 2**64
    finally:
        await consumer.stop()


def checksum(path: Path) -> tuple[int, int]:
    """The same of a file."""
    lines = total = 0
    with path.open("rb") as file:
        for line in file:
            lines += 1
            total += xxhash.xxh3_64_intdigest(line.removesuffix(b"\n"))
    return lines, total % 2**64


def rows(bench: Bench) -> list[Row]:
    """Ours against Fluent Bit."""
    lines, brokers = bench.plan.ship, bench.kafka.bootstrap
    corpus = bench.corpus(lines)
    expected = checksum(corpus)

    def topic() -> str:
        name = bench.name("ship")
        bench.kafka.create_topic(name, PARTITIONS, {"max.message.bytes": str(MOST_BYTES)})
        # What a process finds when it is not the very first: making it takes the broker 40 ms.
        bench.kafka.create_topic(f"{name}-checkpoints", 1, {"cleanup.policy": "compact"})
        return name

    def check(name: str) -> None:
        found = asyncio.run(checked(brokers, name))
        assert found == expected, f"{name}: {found} is not {expected}"

    def ours(codec: str, then: Callable[[str], None] = lambda name: None) -> Taken:
        name = topic()
        command = ["ship", "--kafka", brokers, "--topic", name, "--shipper-id", name, "--compression", codec]
        process = Watched(tailrace(*command, "--once", "--format", "json", corpus))
        seconds = process.reports()
        taken = replace(process.end(), seconds=seconds)
        document = json.loads(process.said())
        assert document["lines"] == lines, document
        then(name)
        return taken

    def theirs(codec: str, then: Callable[[str], None] = lambda name: None) -> Taken:
        name = topic()
        process = Watched(fluent_bit(bench.home / name, corpus, brokers, name, codec=codec))
        asyncio.run(ended(brokers, name, lines, 120))
        taken = process.end(signal.SIGTERM)
        then(name)
        return taken

    def pair(codec: str) -> dict[str, Callable[[], Taken]]:
        found = {"tailrace": partial(ours, codec)}
        return found | {"Fluent Bit": partial(theirs, codec)} if "FLUENT_BIT" in os.environ else found

    for codec in ("zstd", "snappy", "none"):
        ours(codec, check)
    if "FLUENT_BIT" in os.environ:
        theirs("snappy", check)
    bench.say("  everybody's lines are right")
    compressed = interleaved(bench, {"tailrace, zstd": partial(ours, "zstd"), **pair("snappy")})
    plain = interleaved(bench, pair("none"), min(bench.plan.runs, 3))
    shipped = {"tailrace": compressed.pop("tailrace, zstd"), "Fluent Bit": compressed.get("Fluent Bit", [])}
    size = corpus.stat().st_size
    goal = "2 times its lines/s, at most 0.6 of its CPU, no more memory"

    def reached(speed: float, cpu: float, memory: float) -> bool:
        return speed >= 2 and cpu <= 0.6 and memory <= 1

    def row(codec: str, runs: Mapping[str, Sequence[Taken]], note: str) -> Row:
        what = f"ship {lines:,} lines, file → Kafka, exactly once, {codec}"
        return compared(what, lines, size, runs, "Fluent Bit", goal, reached, note)

    return [
        row("zstd", shipped, "ours with zstd, as shipped, against its snappy; the peer at least once, raw"),
        row("snappy", compressed, "the peer at least once, raw"),
        row("no compression", plain, f"the peer at least once, raw; {min(bench.plan.runs, 3)} runs"),
    ]
