"""The storing process: hands out jobs, gathers what comes back, announces, inserts, and counts.

    find ─▶ jobs ─▶ workers ─▶ gather ─▶ announce ─▶ insert, ledger last ─▶ file finished

Everything between two arrows is bounded, so memory does not grow with the files.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tailrace.ingestor import compiled
from tailrace.ingestor.backfill.channel import End, LocalEnd, local_pair
from tailrace.ingestor.backfill.claims import Claim, History
from tailrace.ingestor.backfill.gather import Gathering, claim_of
from tailrace.ingestor.backfill.known import Counts, KnownRange
from tailrace.ingestor.backfill.report import BackfillReport, FileReport, begin
from tailrace.ingestor.backfill.settings import BackfillSettings
from tailrace.ingestor.backfill.sources import Source, SourceError, is_plain
from tailrace.ingestor.backfill.work import (
    Ask,
    Broken,
    DecodedRange,
    Done,
    Job,
    Skipped,
    loop,
    serve,
    stream_name,
)
from tailrace.ingestor.decode import DecodedBatch
from tailrace.ingestor.insert import Inserter, TableWriter, absent
from tailrace.schemas.crash import crash_point
from tailrace.schemas.errors import FatalError, Reason, RetryableError
from tailrace.schemas.streams import FileRef

log = logging.getLogger("tailrace.ingestor")

_STOP_SECONDS = 30.0
_END_SECONDS = 2.0
"""A thread may be waiting for standard input; it does not outlive the process."""
_GATHER_SECONDS = 5.0
"""A batch that is not full is inserted after so long all the same."""
_NOTE_SECONDS = 1.0
_SAMPLE_ROWS = 64
_JOBS_A_WORKER = 4
_SMALL_BYTES = 1024 * 1024
"""Fewer bytes than this are not worth a process."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Ranges that are inserted together, and the file of each."""

    gathering: Gathering
    files: list[FileReport]


@dataclass(frozen=True, slots=True)
class _Came:
    """What of a range came another way before.

    Args:
        rows: How many of its records.
        letters: Which of its dead letters, by position.
    """

    rows: int = 0
    letters: frozenset[int] = frozenset()

    def split(self, counts: Counts) -> tuple[Counts, Counts]:
        """What is new of the range, and what is not; bytes are split as lines are, and blank lines go with the last of the others."""
        there = Counts(rows=self.rows, dead_letters=len(self.letters))
        there.lines = there.rows + there.dead_letters
        if there.lines and there.lines + counts.blank == counts.lines:
            there.lines, there.blank = counts.lines, counts.blank
        there.bytes = counts.bytes * there.lines // max(1, counts.lines)
        return counts.less(there), there


class Backfill:
    """One run over some sources.

    Args:
        settings: What to read, and how.
        history: What earlier runs did, and where this one notes what it does.
        writers: Where rows go; each is used by a thread of its own. None for a dry run without a database.
        report: What `begin` said of the sources, where somebody asked already.
        clock: Seconds since the epoch.
        monotonic: Seconds.
    """

    def __init__(
        self,
        settings: BackfillSettings,
        history: History,
        writers: Sequence[TableWriter],
        report: BackfillReport | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.report = report or BackfillReport()
        self._settings = settings
        self._history = history
        self._writers: Sequence[TableWriter | None] = writers or [None]
        self._clock = clock
        self._monotonic = monotonic
        self._jobs: dict[bool, deque[Job]] = {True: deque(), False: deque()}
        self._processes: list[BaseProcess] = []
        self._readers: list[threading.Thread] = []
        self._channels: list[LocalEnd] = []
        self._threads = ThreadPoolExecutor(settings.workers + 4, "tailrace-backfill")
        self._history_thread = ThreadPoolExecutor(1, "tailrace-history")
        self._ranges: asyncio.Queue[tuple[FileReport, DecodedRange] | None] = asyncio.Queue(
            max(2, settings.workers)
        )
        self._batches: asyncio.Queue[_Batch | None] = asyncio.Queue(1)
        self._known: dict[tuple[str, int], set[tuple[int, str]]] = {}
        self._is_empty = False
        self._in_flight: dict[Claim, list[FileReport]] = {}
        self._stored: set[Claim] = set()
        self._stopping = asyncio.Event()
        self._allowed_at = 0.0
        self._finished: list[tuple[Source, Counts]] = []
        self._noted_at = monotonic()
        self._inserters: list[Inserter] = []
        self._waiting = ""

    @property
    def waiting(self) -> str:
        """Why nothing goes on at the moment; empty when nothing is wrong."""
        reasons = [self._waiting, *(inserter.stats.waiting for inserter in self._inserters)]
        return next(filter(None, reasons), "")

    def stop(self) -> None:
        """Finish the batch that is being inserted and return from `run`. Safe from a signal handler of the loop."""
        self._stopping.set()

    async def run(self) -> BackfillReport:
        """Store everything that the sources hold and nobody stored before.

        A source that cannot be read, or not to its end, is in the report; the others are done.

        Raises:
            FatalError: ClickHouse refuses, or a worker process ended.
            ConfigError: A path needs a library that is not installed.
        """
        try:
            await self._plan()
            work = asyncio.create_task(self._work())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not work.done():
                self.report.interrupted = True
                self._end_workers()
                await asyncio.wait({work}, timeout=_STOP_SECONDS)
                work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            await self._note_finished()
        finally:
            self._end_workers()
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._history_thread.shutdown(wait=False, cancel_futures=True)
        self.report.retries = sum(inserter.stats.retries for inserter in self._inserters)
        return self.report

    # ------------------------------------------------------------ what to do

    async def _plan(self) -> None:
        if not self.report.files:
            self.report = await self._ask(begin, self._settings, self._history)
        self._is_empty = await self._ask(self._history.is_empty)
        await self._ask(self._history.recall)
        await asyncio.to_thread(self._plan_jobs)

    def _plan_jobs(self) -> None:
        plain: dict[str, bool] = {}
        for file in self.report.files.values():
            if not file.finished_before:
                try:
                    plain[file.source.path] = is_plain(file.source)
                except SourceError as exc:
                    file.error = str(exc)
        files = [self.report.files[path] for path in plain]
        section = self._section(sum(file.source.size for file in files if plain[file.source.path]))
        for file in files:
            source = file.source
            jobs = self._jobs_of(source, section) if plain[source.path] else [Job(source)]
            file.jobs = len(jobs)
            self._jobs[source.in_process or not self._settings.workers].extend(jobs)

    def _section(self, size: int) -> int:
        """How much of a plain file is a job: of few bytes less, so that no worker is idle while another has much left."""
        ranges = size // max(1, self._settings.workers * _JOBS_A_WORKER) // self._settings.range_bytes
        return min(self._settings.section_bytes, max(1, ranges) * self._settings.range_bytes)

    def _jobs_of(self, source: Source, section: int) -> Sequence[Job]:
        """Of a plain file."""
        quiet = self._clock() - source.modified / 1e9
        settled = quiet >= self._settings.settled_seconds
        return [
            Job(source, start, start + section, settled) for start in range(0, max(source.size, 1), section)
        ]

    # ------------------------------------------------------------ the pipeline

    async def _work(self) -> None:
        """All steps at once; the first that fails ends the others."""
        readers = asyncio.create_task(self._read_all())
        gather = asyncio.create_task(self._gather())
        inserters = [asyncio.create_task(self._insert_all(writer)) for writer in self._writers]
        tasks = {readers, gather, *inserters}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_all(self) -> None:
        shared, own = self._jobs[False], self._jobs[True]
        size = sum(job.source.size if job.end < 0 else job.end - job.start for job in shared)
        count = min(self._settings.workers, len(shared), 1 + size // _SMALL_BYTES)
        start = self._start_thread if decodes_in_threads() else self._start_process
        drivers: list[Coroutine[Any, Any, None]] = [self._drive(start(), shared) for _ in range(count)]
        if own:
            drivers.append(self._drive(self._start_thread(), own))
        await asyncio.gather(*drivers)
        await self._ranges.put(None)

    def _start_process(self) -> End:
        # Never by forking: the embedded engine has threads that a fork would not take along.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._settings), daemon=True)
        process.start()
        theirs.close()
        self._processes.append(process)
        return ours

    def _start_thread(self) -> End:
        ours, theirs = local_pair()
        reader = threading.Thread(
            target=loop, args=(theirs, self._settings), name="tailrace-reader", daemon=True
        )
        reader.start()
        self._readers.append(reader)
        self._channels.append(ours)
        return ours

    def _end_workers(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for channel in self._channels:
            channel.close()
        until = self._monotonic() + _END_SECONDS
        for reader in self._readers:
            reader.join(max(0.0, until - self._monotonic()))
        for ended in (self._processes, self._channels, self._readers):
            ended.clear()

    async def _drive(self, worker: End, jobs: deque[Job]) -> None:
        """One worker: gives it jobs, and takes what it says."""
        try:
            while jobs and not self._stopping.is_set():
                job = jobs.popleft()
                file = self.report.files[job.source.path]
                await self._call(worker.send, job)
                await self._listen(worker, file)
                file.jobs -= 1
                await self._settle(file)
        except (EOFError, ConnectionError, OSError) as exc:
            if self._stopping.is_set():
                return
            raise FatalError(
                "a worker process ended, perhaps for want of memory: start the backfill again, it goes on where it was; "
                "--workers 1 needs less"
            ) from exc

    async def _listen(self, worker: End, file: FileReport) -> None:
        while True:
            message = await self._call(worker.recv)
            match message:
                case Ask(stream):
                    await self._call(worker.send, await self._recall(stream))
                case Skipped(known, consumed):
                    file.there.add(known.counts)
                    file.consumed += consumed
                case DecodedRange():
                    file.ranges += 1
                    await self._ranges.put((file, message))
                case Done(error, left, consumed):
                    file.error = file.error or error
                    file.left += left
                    file.consumed += consumed
                    return
                case Broken(error):
                    raise FatalError(f"a worker failed: {error}")

    async def _recall(self, stream: str) -> Sequence[KnownRange]:
        """What earlier runs did of a stream."""
        known: Sequence[KnownRange] = await self._ask(self._history.known, stream)
        for each in known:
            self._known.setdefault((stream, each.start), set()).add((each.end, each.digest))
        return known

    async def _gather(self) -> None:
        gatherings = {doubtful: Gathering(self._settings, doubtful) for doubtful in (False, True)}
        files: dict[bool, list[FileReport]] = {False: [], True: []}

        async def flush(doubtful: bool) -> None:
            if gatherings[doubtful].ranges:
                await self._batches.put(_Batch(gatherings[doubtful], files[doubtful]))
                gatherings[doubtful], files[doubtful] = Gathering(self._settings, doubtful), []

        while True:
            try:
                item = await asyncio.wait_for(self._ranges.get(), _GATHER_SECONDS)
            except TimeoutError:
                for doubtful in (False, True):
                    await flush(doubtful)
                continue
            if item is None:
                break
            file, found = item
            wanted = await self._claim(file, found)
            if wanted is None:
                await self._settle(file)
                continue
            gathering = gatherings[wanted.doubtful]
            gathering.add(wanted, self._monotonic())
            files[wanted.doubtful].append(file)
            if gathering.is_full or self._monotonic() - gathering.since >= _GATHER_SECONDS:
                await flush(wanted.doubtful)
        for doubtful in (False, True):
            await flush(doubtful)
        for _ in self._writers:
            await self._batches.put(None)

    async def _claim(self, file: FileReport, found: DecodedRange) -> DecodedRange | None:
        """The range to store, or `None` when it is stored, or on its way as a part of an equal file.

        Another range that begins at the same place of the same stream, and is not the same, belongs to another file with the
        same beginning: then this one gets a name of its own.
        """
        claim = claim_of(found)
        others = self._known.setdefault((claim.stream, claim.start), set())
        if others and (claim.end, claim.digest) not in others:
            found = self._rename(found)
            claim = claim_of(found)
            known = await self._recall(claim.stream)
            same = [k for k in known if (k.start, k.end, k.digest) == claim[1:]]
            if any(each.stored for each in same):
                self._stored.add(claim)
            elif same:
                found = replace(found, doubtful=True)
            others = self._known.setdefault((claim.stream, claim.start), set())
        others.add((claim.end, claim.digest))
        if claim in self._stored:
            self._count_there(file, found)
            return None
        if claim in self._in_flight:
            self._in_flight[claim].append(file)
            file.consumed += found.consumed
            return None
        self._in_flight[claim] = []
        return found

    def _count_there(self, file: FileReport, found: DecodedRange) -> None:
        file.there.add(found.content.counts)
        file.consumed += found.consumed
        file.ranges -= 1

    def _rename(self, found: DecodedRange) -> DecodedRange:
        file = FileRef(f"{found.file.id}-{found.digest[:16]}", found.file.path)
        found.content.span.stream = stream_name(file.id, self._settings.scope)
        letters = [
            msgspec.structs.replace(letter, origin=msgspec.structs.replace(letter.origin, file_id=file.id))
            for letter in found.content.letters
        ]
        return replace(found, content=found.content._replace(letters=letters), file=file)

    # ------------------------------------------------------------ storing

    async def _insert_all(self, writer: TableWriter | None) -> None:
        thread = ThreadPoolExecutor(1, "tailrace-insert")
        inserter = None if writer is None else Inserter(writer, thread, self._settings.retry, self._clock)
        if inserter is not None:
            self._inserters.append(inserter)
        try:
            while (gathered := await self._batches.get()) is not None:
                if self._settings.dry_run or inserter is None or writer is None:
                    await self._look(gathered, writer)
                else:
                    await self._wait_for_rate(gathered.gathering)
                    if self._stopping.is_set():
                        return
                    await self._store(gathered, inserter, writer)
                if self._stopping.is_set():
                    return
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    async def _wait_for_rate(self, gathering: Gathering) -> None:
        if not self._settings.rate:
            return
        now = self._monotonic()
        pause, self._allowed_at = (
            self._allowed_at - now,
            max(self._allowed_at, now) + gathering.lines / self._settings.rate,
        )
        if pause > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _store(self, gathered: _Batch, inserter: Inserter, writer: TableWriter) -> None:
        gathering = gathered.gathering
        token, claims = gathering.token(), gathering.claims()
        batch, came = await self._only_new(gathering, writer)
        crash_point("backfill.before-intent")
        await self._ask(self._history.announce, claims, token, self._clock())
        # A crash from here until the ledger has the token leaves the ranges in doubt.
        crash_point("backfill.after-intent")
        if gathering.doubtful:
            batch = await inserter.only_missing(batch)
        stored = await inserter.store(batch, token, in_doubt=gathering.doubtful)
        crash_point("backfill.after-store")
        for file in self._landed(gathered, came, _rejected(stored)):
            await self._settle(file)

    async def _look(self, gathered: _Batch, writer: TableWriter | None) -> None:
        """A dry run: what is there, and what is not."""
        _, came = await self._only_new(gathered.gathering, writer)
        self._landed(gathered, came)

    async def _only_new(
        self, gathering: Gathering, writer: TableWriter | None
    ) -> tuple[DecodedBatch, list[_Came]]:
        """The batch without what came another way before, and by range what that is.

        It is not counted in our ledger rows either, which say what stands in the tables because of us; the audit adds them up. Of
        ranges in doubt nobody knows who stored them, so all of them count as ours.
        """
        batch: DecodedBatch = await self._call(gathering.batch)
        in_doubt = gathering.doubtful and not self._settings.dry_run
        if writer is None or in_doubt or self._is_empty:
            return batch, [_Came()] * len(gathering.ranges)
        tables, stored = await self._stored_rows(batch, writer)
        told: set[int] = set()
        if batch.dead_letters and not gathering.doubtful:
            told = await self._ask(self._history.told, batch.dead_letters)
        came, first = [], 0
        for found in gathering.ranges:
            letters = found.content.letters
            indices = range(first, first + len(letters))
            first = indices.stop
            rows = sum(
                pc.sum(pc.is_in(rows["line_hash"], value_set=stored[table])).as_py() or 0
                for table, rows in found.content.tables
                if table in stored
            )
            at: frozenset[int] = frozenset()
            # The same bytes at the same position are no proof, since garbage repeats itself. That the records around them are
            # there too is one.
            if not told.isdisjoint(indices) and await self._is_there(found, writer):
                at = frozenset(letters[n - indices.start].origin.byte for n in told.intersection(indices))
            came.append(_Came(rows, at))
        return _without(DecodedBatch(tables, batch.dead_letters, batch.spans, batch.without), came), came

    async def _stored_rows(
        self, batch: DecodedBatch, writer: TableWriter
    ) -> tuple[Sequence[tuple[str, pa.Table]], dict[str, pa.Array]]:
        """The rows that are not stored, and by table the hashes of those that are. Of a run that stores only a sample is looked
        for at first, which is all that new lines cost."""
        if not self._settings.dry_run:
            samples = [(table, _sample(rows)) for table, rows in batch.tables]
            if not any(
                [len(await self._missing(writer, table, rows)) < len(rows) for table, rows in samples]
            ):
                return batch.tables, {}
        tables: list[tuple[str, pa.Table]] = []
        stored: dict[str, list[int]] = {}
        for table, rows in batch.tables:
            missing = await self._missing(writer, table, rows)
            if missing:
                tables.append((table, rows.take(missing).combine_chunks()))
            absent = set(missing)
            stored.setdefault(table, []).extend(
                line_hash
                for index, line_hash in enumerate(rows["line_hash"].to_pylist())
                if index not in absent
            )
        return tables, {table: pa.array(hashes, pa.uint64()) for table, hashes in stored.items()}

    async def _is_there(self, found: DecodedRange, writer: TableWriter) -> bool:
        """Whether the records of a range are stored, judged by some of each table; not if it has none."""
        samples = [(table, rows.slice(0, _SAMPLE_ROWS)) for table, rows in found.content.tables]
        missing = [await self._missing(writer, table, rows) for table, rows in samples]
        return bool(missing) and not any(missing)

    async def _missing(self, writer: TableWriter, table: str, rows: pa.Table) -> list[int]:
        """See `absent`; a dry run only looks."""
        if self._settings.dry_run:
            missing: list[int] = await self._retried(self._call, writer.missing, table, rows)
        else:
            missing = await self._retried(self._call, absent, writer, table, rows)
        return missing

    def _landed(
        self, gathered: _Batch, came: Sequence[_Came], rejected: Mapping[str, Sequence[int]] | None = None
    ) -> list[FileReport]:
        """Counts what is stored now, with the lines that ClickHouse rejected as the dead letters that they became; the files that
        it is of, each once."""
        touched: dict[str, FileReport] = {}
        for file, found, before in zip(gathered.files, gathered.gathering.ranges, came, strict=True):
            stored, there = before.split(found.content.counts)
            span = found.content.span
            refused = sum(span.start <= byte < span.end for byte in (rejected or {}).get(found.file.id, ()))
            stored.rows, stored.dead_letters = stored.rows - refused, stored.dead_letters + refused
            self.report.reasons.update({Reason.REJECTED.value: refused} if refused else {})
            file.stored.add(stored)
            file.there.add(there)
            self.report.rows_there += there.rows
            self.report.letters_there += there.dead_letters
            file.consumed += found.consumed
            file.ranges -= 1
            touched[file.source.path] = file
            for letter in found.content.letters:
                if letter.origin.byte not in before.letters:
                    self.report.reasons[letter.reason.value] += 1
            claim = claim_of(found)
            self._stored.add(claim)
            for waiting in self._in_flight.pop(claim):
                waiting.there.add(found.content.counts)
                waiting.ranges -= 1
                touched[waiting.source.path] = waiting
        return list(touched.values())

    async def _settle(self, file: FileReport) -> None:
        """Notes a source as finished, once it is; soon, or at the end."""
        if not file.is_complete or self._settings.dry_run or file.source.size < 0 or file.noted:
            return
        file.noted = True
        counts = msgspec.structs.replace(file.stored)
        counts.add(file.there)
        self._finished.append((file.source, counts))
        if self._monotonic() - self._noted_at >= _NOTE_SECONDS:
            await self._note_finished()

    async def _note_finished(self) -> None:
        """Many small files end at once: an insert for each would cost more than they do. One that a crash leaves out is read
        again, and nothing of it is stored again."""
        finished, self._finished, self._noted_at = self._finished, [], self._monotonic()
        if finished:
            crash_point("backfill.before-file")
            await self._ask(self._history.finish, self._settings.scope, finished, self._clock())

    async def _ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """A call of `History`, in its thread."""
        return await self._retried(self._in_history_thread, method, *arguments)

    async def _in_history_thread(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._history_thread, method, *arguments)

    async def _retried(self, call: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        """A call, repeated while ClickHouse is away."""
        failures = 0
        while True:
            try:
                answer = await call(*arguments)
            except RetryableError as error:
                failures += 1
                self._waiting = str(error)
                delay = self._settings.retry.delay(failures, random.random())  # noqa: S311 - jitter, not a secret
                log.warning("%s; attempt %d, next in %.1f s", error, failures, delay)
                await asyncio.sleep(delay)
            else:
                self._waiting = ""
                return answer

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def decodes_in_threads() -> bool:
    """Whether workers are threads rather than processes: where compiled code decodes, which lets other threads run meanwhile. Then
    no process is started, and nothing is copied from one to the other."""
    return compiled.is_available()


def _without(batch: DecodedBatch, came: Sequence[_Came]) -> DecodedBatch:
    """The batch with fewer dead letters, and its ranges with smaller counts."""
    letters, spans, first = [], [], 0
    for span, before in zip(batch.spans, came, strict=True):
        its = batch.dead_letters[first : first + span.dead_letters]
        first += span.dead_letters
        letters += [letter for letter in its if letter.origin.byte not in before.letters]
        fewer = len(before.letters)
        spans.append(
            replace(
                span,
                lines=span.lines - before.rows - fewer,
                rows=span.rows - before.rows,
                dead_letters=span.dead_letters - fewer,
            )
        )
    return DecodedBatch(
        batch.tables, letters, spans, lambda rejected: _without(batch.without(rejected), came)
    )


def _rejected(batch: DecodedBatch) -> Mapping[str, Sequence[int]]:
    """By file, where the lines begin that ClickHouse rejected."""
    found: dict[str, list[int]] = {}
    for letter in batch.dead_letters:
        if letter.reason is Reason.REJECTED:
            found.setdefault(letter.origin.file_id, []).append(letter.origin.byte)
    return found


def _sample(rows: pa.Table) -> pa.Table:
    """Some rows from all over a table."""
    step = max(1, rows.num_rows // _SAMPLE_ROWS)
    return rows.take(pa.array(range(0, rows.num_rows, step))).combine_chunks()
