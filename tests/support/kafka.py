"""A real Apache Kafka for tests: one KRaft node, from jars of Maven Central, on random loopback ports.

    broker = KafkaBroker(data_dir)
    broker.start()
    broker.create_topic("tailrace", partitions=3)
    …
    broker.kill(); broker.restart()          # same port, same data
    rows = broker.read_all("tailrace", "read_committed")
    broker.stop()

`python -m support.kafka` (run in `tests/`) fetches the jars, and Java and Maven where it can, and starts nothing.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

T = TypeVar("T")
Isolation = Literal["read_committed", "read_uncommitted"]

REPOSITORY = Path(__file__).resolve().parents[2]
POM = Path(__file__).with_name("kafka") / "pom.xml"
OLDEST_JAVA = 17
START_SECONDS = 60.0


class KafkaMissing(Exception):
    """The broker cannot run here; the text says exactly what to install."""


class Message(NamedTuple):
    """One record as `read_all` gives it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


# ---------------------------------------------------------------- jars, Java, Maven


def jars() -> Path:
    """The folder with the broker's jars, fetched on first use.

    Raises:
        KafkaMissing: Java, Maven or the jars are not here and cannot be had; the text says what to install.
    """
    _need_java()
    given = os.environ.get("TAILRACE_KAFKA_LIB")
    if given:
        if not any(Path(given).glob("kafka_*.jar")):
            raise KafkaMissing(f"TAILRACE_KAFKA_LIB={given} holds no kafka_*.jar")
        return Path(given)
    # The folder is named after the list of jars, so that a change of version is a new folder.
    name = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    lib = REPOSITORY / ".cache" / "kafka" / name
    if not lib.is_dir():
        _fetch_jars(lib)
    return lib


def _fetch_jars(lib: Path) -> None:
    maven = _need_maven()
    half = lib.with_name(f"{lib.name}.{os.getpid()}")
    half.mkdir(parents=True, exist_ok=True)
    command = [
        maven,
        "--batch-mode",
        "--quiet",
        "-f",
        str(POM),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={half}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=half.parent)
    if done.returncode != 0:
        shutil.rmtree(half, ignore_errors=True)
        raise KafkaMissing(f"Maven could not fetch Kafka's jars:\n{(done.stdout + done.stderr)[-2000:]}")
    try:
        half.rename(lib)  # all jars or none: an interrupted fetch leaves no folder that looks complete
    except OSError:
        if not lib.is_dir():
            raise
        shutil.rmtree(half, ignore_errors=True)  # somebody else fetched them meanwhile


def _java_version() -> int | None:
    java = shutil.which("java")
    if java is None:
        return None
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else None


def _need_java() -> None:
    version = _java_version()
    if version is not None and version >= OLDEST_JAVA:
        return
    _apt_install("openjdk-17-jre-headless", "default-jre-headless")
    version = _java_version()
    if version is None or version < OLDEST_JAVA:
        raise KafkaMissing(
            f"the tests' Kafka needs Java {OLDEST_JAVA} or newer and found {version or 'none'}: "
            "apt-get install openjdk-17-jre-headless maven"
        )


def _need_maven() -> str:
    if shutil.which("mvn") is None:
        _apt_install("maven")
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaMissing(
            "the tests' Kafka is fetched with Maven, which is not here: apt-get install maven "
            "(or set TAILRACE_KAFKA_LIB to a folder with Kafka's jars)"
        )
    return maven


def _apt_install(*choices: str) -> None:
    """Install the first of the packages that apt has; do nothing where we may not."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([apt, "update", "-qq"], env=environment, check=False, capture_output=True)
    for package in choices:
        command = [apt, "install", "-y", "-qq", "--no-install-recommends", package]
        if subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0:
            return


# ---------------------------------------------------------------- the broker


class KafkaBroker:
    """One broker and controller in one JVM.

    Args:
        data_dir: Where log segments, settings and the broker's own log go; kept over `kill` and `restart`.
        overrides: Broker settings that replace the defaults here, for example `{"message.max.bytes": "1000"}`.
        listeners: Further ones on `localhost`, by name and port; what they are is said in `overrides`.
        scram_users: Users by password, for SCRAM.
        heap: Of the JVM, as its options say it, for example `1g`: all of it from the start. By default it grows to 512 MB.
    """

    def __init__(
        self,
        data_dir: Path,
        overrides: Mapping[str, str] | None = None,
        listeners: Mapping[str, int] | None = None,
        scram_users: Mapping[str, str] | None = None,
        heap: str | None = None,
    ) -> None:
        self._dir = data_dir
        self._overrides = dict(overrides or {})
        self._listeners = dict(listeners or {})
        self._scram_users = dict(scram_users or {})
        self._heap = [f"-Xms{heap}", f"-Xmx{heap}"] if heap is not None else ["-Xms128m", "-Xmx512m"]
        self._process: subprocess.Popen[bytes] | None = None
        self._port, self._controller_port = free_ports(2)

    @property
    def bootstrap(self) -> str:
        """`host:port`; the same over restarts."""
        return f"127.0.0.1:{self._port}"

    @property
    def alive(self) -> bool:
        """Whether the process runs; it need not answer yet."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """What the broker printed, over all its starts."""
        return self._dir / "broker.log"

    def start(self, deadline: float = START_SECONDS) -> None:
        """Start, and return when the broker answers.

        Raises:
            KafkaMissing: There is no Java or no jars.
            RuntimeError: It did not answer within `deadline` seconds; the text ends with its log.
        """
        if self.alive:
            raise RuntimeError("the broker runs already")
        lib = jars()
        self._dir.mkdir(parents=True, exist_ok=True)
        settings = self._dir / "server.properties"
        if not settings.exists():
            settings.write_text("".join(f"{k}={v}\n" for k, v in self._settings().items()))
            self._format(lib, settings)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*_java(lib), *self._heap, "kafka.Kafka", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._dir,
                start_new_session=True,  # a Ctrl-C in the tests must not reach it before the tests end
            )
        atexit.register(self._reap)
        self._wait_ready(time.monotonic() + deadline)

    def stop(self) -> None:
        """Ask it to shut down cleanly, and wait; nothing happens when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as when the machine's power goes; nothing happens when it is not running."""
        self._end(signal.SIGKILL)

    def restart(self, deadline: float = START_SECONDS) -> None:
        """Start again on the same port and data, killing it first if it still runs."""
        self.kill()
        self.start(deadline)

    def pause(self) -> None:
        """SIGSTOP: it holds its connections open and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic and wait until its partitions have a leader; one that exists is left as it is."""
        _run(self._create_topic(name, partitions, dict(config or {})))

    def read_all(
        self, topic: str, isolation: Isolation = "read_committed", deadline: float = 60.0
    ) -> list[Message]:
        """Every record of a topic, from the first to what is its end now, in order within each partition.

        With `read_committed` the end is the last stable offset: records of a transaction that is still
        open, and everything after them, are not given. An absent topic reads as an empty one.
        """
        return _run(asyncio.wait_for(self._read_all(topic, isolation), deadline))

    def read_lines(
        self, topic: str, isolation: Isolation = "read_committed", deadline: float = 60.0
    ) -> list[Message]:
        """As `read_all`, with each line of a message as if it were one of its own, its key included."""
        return [line for message in self.read_all(topic, isolation, deadline) for line in _lines(message)]

    def values(self, topic: str, isolation: Isolation = "read_committed") -> list[bytes]:
        """The values of `read_lines`, those of a lower partition first."""
        return [m.value or b"" for m in sorted(self.read_lines(topic, isolation), key=lambda m: m[:2])]

    def _settings(self) -> dict[str, str]:
        more = "".join(f",{name}://localhost:{port}" for name, port in self._listeners.items())
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port}{more},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}{more}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._dir / "data"),
            "auto.create.topics.enable": "false",  # what ought to create topics is the code under test
            "num.partitions": "1",
            "default.replication.factor": "1",
            "min.insync.replicas": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "3",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.num.partitions": "3",
            "transaction.state.log.min.isr": "1",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",  # a killed broker is let back in after this long
            "controlled.shutdown.enable": "false",
            "log.cleaner.dedupe.buffer.size": "8388608",
            "log.cleaner.backoff.ms": "1000",
            "log.segment.bytes": "134217728",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "num.recovery.threads.per.data.dir": "2",
            **self._overrides,
        }

    def _format(self, lib: Path, settings: Path) -> None:
        command = [
            *_java(lib),
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            uuid.uuid4().hex[:22],
            "--config",
            str(settings),
            *(
                f"--add-scram={mechanism}=[name={user},password={password}]"
                for user, password in self._scram_users.items()
                for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            ),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self._dir)
        if done.returncode != 0:
            raise RuntimeError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")

    def _wait_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if not self.alive:
                assert self._process is not None
                raise RuntimeError(
                    f"Kafka exited with {self._process.returncode} while starting:\n{self.log_tail()}"
                )
            # A connect is asked for first: it is free, and keeps the client from logging each refusal.
            with socket.socket() as probe:
                probe.settimeout(1.0)
                listens = probe.connect_ex(("127.0.0.1", self._port)) == 0
            if listens and _run(self._answers()):
                return
            time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"Kafka did not answer on {self.bootstrap} in time:\n{self.log_tail()}")

    async def _answers(self) -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=5000)
        try:
            await admin.start()
            cluster = await admin.describe_cluster()
            return bool(cluster["brokers"])
        except (KafkaError, OSError):
            return False
        finally:
            await admin.close()

    async def _create_topic(self, name: str, partitions: int, config: dict[str, str]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            topic = NewTopic(name, partitions, 1, topic_configs=config)
            # Not every error is raised by every version of the client: some stand in the answer only.
            answer = await admin.create_topics([topic])
            for error in answer.topic_errors:
                if error[1] not in (0, TopicAlreadyExistsError.errno):
                    raise RuntimeError(f"topic {name} was not created: {error}")
            until = time.monotonic() + 30
            while time.monotonic() < until:
                described = (await admin.describe_topics([name]))[0]
                found = described["partitions"]
                if len(found) >= partitions and all(p["leader"] >= 0 for p in found):
                    return
                await asyncio.sleep(0.05)
            raise RuntimeError(f"topic {name} has no leaders: {described}")
        finally:
            await admin.close()

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            described = (await admin.describe_topics([topic]))[0]
        finally:
            await admin.close()
        return [TopicPartition(topic, p["partition"]) for p in described["partitions"]]

    async def _read_all(self, topic: str, isolation: Isolation) -> list[Message]:
        partitions = await self._partitions(topic)
        if not partitions:
            return []
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level=isolation,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=4 << 20,
        )
        await consumer.start()
        try:
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            await consumer.seek_to_beginning(*partitions)
            found: list[Message] = []
            open_partitions = set(partitions)
            while open_partitions:
                # A position also moves over control records and aborted transactions, which are never given.
                for partition in list(open_partitions):
                    if await consumer.position(partition) >= ends[partition]:
                        open_partitions.discard(partition)
                        consumer.pause(partition)
                if not open_partitions:
                    break
                batches = await consumer.getmany(*open_partitions, timeout_ms=200)
                found.extend(
                    Message(r.partition, r.offset, r.key, r.value, tuple(r.headers))
                    for records in batches.values()
                    for r in records
                    if r.offset < ends[TopicPartition(r.topic, r.partition)]
                )
            return found
        finally:
            await consumer.stop()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self._reap)
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _reap(self) -> None:
        self.kill()

    def log_tail(self, size: int = 4000) -> str:
        """The end of what the broker printed."""
        if not self.log_path.exists():
            return "(the broker printed nothing)"
        return self.log_path.read_text(errors="replace")[-size:]


def _lines(message: Message) -> Iterator[Message]:
    if message.value is None or b"\n" not in message.value:
        yield message
        return
    file_id, separator, position = (message.key or b"").rpartition(b"@")
    byte = int(position or 0)
    for line in message.value.split(b"\n"):
        yield message._replace(
            key=b"%b%b%d" % (file_id, separator, byte) if separator else message.key, value=line
        )
        byte += len(line) + 1


def _java(lib: Path) -> list[str]:
    return [
        "java",
        # Two cores are shared with what is tested: a quick start and few threads count, not peak throughput.
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-cp",
        f"{lib}/*",
    ]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. They are not held: somebody may take one before the broker does."""
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [int(holder.getsockname()[1]) for holder in holders]
    finally:
        for holder in holders:
            holder.close()


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from a plain function, also from one that a running loop called."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def wait_until(condition: Callable[[], T], what: str, deadline: float = 30.0, pause: float = 0.05) -> T:
    """Poll until `condition()` is true, and return what it returned.

    Raises:
        AssertionError: It was not true within `deadline` seconds; the text says what was waited for.
    """
    until = time.monotonic() + deadline
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"waited {deadline:.0f} s for: {what}")
        time.sleep(pause)


def main() -> int:
    """Fetch what the broker needs, and say where it is."""
    try:
        lib = jars()
    except KafkaMissing as exc:
        print(exc, file=sys.stderr)
        return 1
    print(f"Kafka's jars are in {lib}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
