"""The broker client: pulls windows of stream partitions from all brokers at once (``ports.MessageSource``).

Endpoint: ``GET {url}/streams/{id}/data/partitions/{n}/range?fromTimestamp&toTimestamp&format=raw``, below ``/stores``
on newer brokers, with Basic login by the query key (reference: Log Store broker layer, HTTP API). Which prefix and
form of password a broker wants is learned from its first answer.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote

from validator.broker.pages import Next, position_of_frame, read_frames, read_lines
from validator.codec.message import digest_of_payload
from validator.codec.secp256k1 import SigningKey
from validator.errors import MalformedInput, RemoteFault, TransientError, ValidatorError
from validator.fetching import BoundedClient, IPNetwork, OpenAnswer, ParsedUrl, check_url
from validator.model import MIB, Address, SignatureType, StreamPart, Window
from validator.ports import Broker, Pull, PulledRecord, TakeRecords

MAX_SEQUENCE = 2**31 - 1
PAGE_ROWS = 5000
"""A broker's answer holds at most so many messages; one of frames that has as many may be followed by another."""
MAX_ERROR_BYTES = 4 << 10
MAX_FRAME_TAIL = 4 << 20
"""Bytes of a page's last frames that are searched for one that can be read."""
MAX_DIALECTS = 1000
THREADS_PER_BROKER = 2
"""As many as ``validator.fetching`` opens connections to one address and port."""
MIN_S = 0.05
LINGER_S = 1.0
"""How long past the deadline a thread may take to notice it."""


class PullFault(StrEnum):
    """Why a pull is not complete: the first word of ``Pull.error``, a label in metrics."""

    URL = "url"
    CONNECTION = "connection"
    DEADLINE = "deadline"
    TOO_SLOW = "too slow"
    LOGIN = "login"
    BALANCE = "balance"
    STATUS = "status"
    REDIRECT = "redirect"
    CUT = "cut"
    BODY = "body"
    SHAPE = "shape"
    PAGING = "paging"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one ``fetch_window``: bytes after decompression, records, pages and seconds."""

    page_bytes: int = 256 * MIB
    broker_bytes: int = 512 * MIB
    total_bytes: int = 768 * MIB
    broker_rows: int = 1_000_000
    total_rows: int = 2_000_000
    pages: int = 2_000
    broker_s: float = 30.0


STREAMED = Limits(
    broker_bytes=4096 * MIB,
    total_bytes=12288 * MIB,
    broker_rows=4_000_000,
    total_rows=12_000_000,
    broker_s=600.0,
)
"""Bounds of one ``stream_window``: nothing is held here, and what several brokers serve is kept once."""


@dataclass(frozen=True, slots=True)
class PullMetrics:
    """What one pull cost: handed to ``on_pull`` once per broker and stream partition."""

    broker: Address
    stream_part: StreamPart
    messages: int
    bytes: int
    pages: int
    seconds: float
    fault: PullFault | None
    unchanged: bool


class _Failed(Exception):
    """Ends a pull."""

    def __init__(self, fault: PullFault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault
        self.reason = reason


class _Budget:
    """Bytes and rows left, counted by several threads; ``parent`` is what all brokers share."""

    def __init__(self, name: str, size: int, rows: int, parent: _Budget | None = None) -> None:
        self._name = name
        self._bytes = size
        self._rows = rows
        self._parent = parent
        self._lock = threading.Lock()

    def take(self, size: int, rows: int) -> None:
        """Raises _Failed, and takes nothing here, if so much is not left."""
        with self._lock:
            if size > self._bytes or rows > self._rows:
                what = "bytes" if size > self._bytes else "records"
                raise _Failed(PullFault.LIMIT, f"more {what} than are taken from {self._name} in one window")
            self._bytes -= size
            self._rows -= rows
        if self._parent is not None:
            self._parent.take(size, rows)


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How a generation of brokers wants to be asked: path prefix, and password as 0x hex or base64."""

    prefix: str
    hex_password: bool


_DIALECTS = (_Dialect("streams", True), _Dialect("stores", False), _Dialect("stores", True))


@dataclass(slots=True)
class _Job:
    """One pull under way. ``records`` grow while it runs; the rest is set by its end."""

    broker: Broker
    part: StreamPart
    window: Window
    etag: str | None
    budget: _Budget
    until: float
    known: dict[bytes, bytes]
    """Records of all brokers by their bytes: what several serve is held once."""
    take: TakeRecords | None
    """Where records go; without it they are held."""
    records: list[PulledRecord] = field(default_factory=list)
    count: int = 0
    frames: deque[bytes] = field(default_factory=deque)
    """The last ones, of which one tells where the next page begins."""
    frame_bytes: int = 0
    own_error: ValidatorError | None = None
    """Ours, not the broker's: raised when all pulls have ended."""
    size: int = 0
    pages: int = 0
    new_etag: str | None = None
    unchanged: bool = False
    complete: bool = False
    fault: PullFault | None = None
    reason: str = ""
    stopped: bool = False
    reported: bool = False

    def keep(self, records: Sequence[bytes], form: str) -> None:
        if self.stopped:
            raise _Failed(PullFault.DEADLINE, "the time for this window is over")
        try:
            self.budget.take(0, len(records))
        except _Failed:
            if len(records) > 1:  # those for which there is room, until the first for which there is none
                for data in records:
                    self.keep([data], form)
            raise
        position = self.count
        self.count += len(records)
        if self.take is not None:
            try:
                self.take(self.broker.address, self.part, position, records, form)
            except ValidatorError as error:  # a full disk is not the broker's fault
                self.own_error = error
                raise _Failed(PullFault.LIMIT, "what was served could not be kept") from error
        else:
            for at, data in enumerate(records, position):
                self.records.append(PulledRecord(self.broker.address, at, self.known.setdefault(data, data), form))

    def keep_frames(self, bodies: Sequence[bytes], form: str) -> None:
        self.frames.extend(bodies)
        self.frame_bytes += sum(map(len, bodies))
        while len(self.frames) > 1 and self.frame_bytes > MAX_FRAME_TAIL:
            self.frame_bytes -= len(self.frames.popleft())
        self.keep(bodies, form)

    def fail(self, fault: PullFault, reason: str) -> None:
        self.fault = fault
        self.reason = reason

    def result(self) -> Pull:
        complete = self.complete and self.fault is None
        return Pull(
            self.broker.address,
            self.part,
            tuple(self.records),
            complete,
            self.unchanged and complete,
            self.new_etag if complete else None,
            "" if self.fault is None else f"{self.fault}: {self.reason}",
        )


class BrokerClient:
    """Fulfils ``ports.MessageSource``. Thread-safe.

    Each call has threads of its own, two per broker: a slow broker keeps nobody else's pulls waiting, nor the next
    call's, and nothing is left behind in a process that forks.
    """

    def __init__(
        self,
        query_key: SigningKey,
        *,
        http: BoundedClient | None = None,
        allow_http: bool = False,
        allow_nets: Sequence[IPNetwork] = (),
        limits: Limits | None = None,
        on_pull: Callable[[PullMetrics], None] | None = None,
        accept_encoding: str = "zstd, gzip",
    ) -> None:
        """``http``: share the process's one client, so that its limits per address count for peers too."""
        self._http = http or BoundedClient(allow_nets=allow_nets)
        self._allow_http = allow_http
        self._allow_nets = tuple(allow_nets)
        self._limits = limits or Limits()
        self._streamed = limits or STREAMED
        self._on_pull = on_pull
        self._accept_encoding = accept_encoding
        self._logins = {hex_password: _basic_login(query_key, hex_password) for hex_password in (True, False)}
        self._dialects: dict[str, _Dialect] = {}

    def close(self) -> None:
        """Close idle connections; pulls under way end with their deadlines."""
        self._http.close()

    def fetch_window(
        self,
        brokers: Sequence[Broker],
        parts: Sequence[StreamPart],
        window: Window,
        *,
        etags: Mapping[tuple[Address, StreamPart], str],
        deadline_ms: int,
    ) -> list[Pull]:
        """Pull [start, end) of every part from every broker at once: one Pull per (broker, part); never raises for one.

        ``deadline_ms`` is Unix time. A pull that the deadline ends keeps what had arrived.
        """
        return self._fetch(brokers, parts, window, None, etags, deadline_ms, self._limits)

    def stream_window(
        self,
        brokers: Sequence[Broker],
        parts: Sequence[StreamPart],
        window: Window,
        take: TakeRecords,
        *,
        etags: Mapping[tuple[Address, StreamPart], str],
        deadline_ms: int,
    ) -> list[Pull]:
        """The same, record by record to ``take``: nothing is held here, and the Pulls have no records.

        ``take`` is called from several threads, and no more once this has returned but by a pull whose time was over.

        Raises:
            ValidatorError: what ``take`` raised.
        """
        return self._fetch(brokers, parts, window, take, etags, deadline_ms, self._streamed)

    def _fetch(
        self,
        brokers: Sequence[Broker],
        parts: Sequence[StreamPart],
        window: Window,
        take: TakeRecords | None,
        etags: Mapping[tuple[Address, StreamPart], str],
        deadline_ms: int,
        limits: Limits,
    ) -> list[Pull]:
        started = time.monotonic()
        until = started + max(0.0, deadline_ms / 1000 - time.time())
        total = _Budget("all brokers", limits.total_bytes, limits.total_rows)
        known: dict[bytes, bytes] = {}
        jobs: list[_Job] = []
        futures: list[Future[None]] = []
        lanes: list[ThreadPoolExecutor] = []
        for broker in brokers:
            own = _Budget("one broker", limits.broker_bytes, limits.broker_rows, total)
            ends = min(until, started + limits.broker_s)
            mine = [
                _Job(broker, part, window, etags.get((broker.address, part)), own, ends, known, take) for part in parts
            ]
            jobs += mine
            url = self._checked(broker, mine)
            if url is not None:
                lane = ThreadPoolExecutor(THREADS_PER_BROKER, thread_name_prefix="broker")
                lanes.append(lane)
                futures += [lane.submit(self._run, job, url) for job in mine]
        wait(futures, max(0.0, until - time.monotonic()) + LINGER_S)
        for lane in lanes:
            lane.shutdown(wait=False, cancel_futures=True)
        for job in jobs:
            if job.own_error is not None:
                raise job.own_error
        return [self._close(job, started) for job in jobs]

    def _close(self, job: _Job, started: float) -> Pull:
        """What the job has now; a thread that still runs stops at its next record."""
        if not job.complete and job.fault is None:
            job.stopped = True
            job.fail(PullFault.DEADLINE, "no answer in the time for this window")
            self._report(job, max(0.0, time.monotonic() - started))
        return job.result()

    def _checked(self, broker: Broker, jobs: Sequence[_Job]) -> ParsedUrl | None:
        try:
            return check_url(broker.url, allow_http=self._allow_http, allow_nets=self._allow_nets)
        except MalformedInput as error:
            for job in jobs:
                job.fail(PullFault.URL, error.reason)
                self._report(job, 0.0)
            return None

    # --- one pull, in a thread of its broker

    def _run(self, job: _Job, url: ParsedUrl) -> None:
        started = time.monotonic()
        try:
            self._pull(job, url)
            job.complete = True
        except _Failed as failed:
            job.fail(failed.fault, failed.reason)
        except ValidatorError as error:
            job.fail(_fault_of(error, job), str(error))
        except Exception as error:  # ours, and it must not look like an answer that never came
            job.fail(PullFault.BODY, f"{type(error).__name__}: {error}")
            raise
        finally:
            self._report(job, time.monotonic() - started)

    def _report(self, job: _Job, seconds: float) -> None:
        if self._on_pull is not None and not job.reported:
            job.reported = True
            self._on_pull(
                PullMetrics(
                    job.broker.address,
                    job.part,
                    job.count,
                    job.size,
                    job.pages,
                    seconds,
                    job.fault,
                    job.unchanged,
                )
            )

    def _pull(self, job: _Job, url: ParsedUrl) -> None:
        """All pages of the window; each must begin later than the one before."""
        start: Next | None = Next(job.window.start_ms, 0)
        last_ms = job.window.end_ms - 1
        while start is not None:
            if job.pages >= self._limits.pages:
                raise _Failed(PullFault.PAGING, f"more than {self._limits.pages} pages")
            following = self._page(job, url, start, last_ms)
            job.pages += 1
            if job.unchanged:
                return
            if following is not None:
                _require_progress(start, following, last_ms)
            start = following

    def _page(self, job: _Job, url: ParsedUrl, start: Next, last_ms: int) -> Next | None:
        """One page, asked for in the broker's dialect, or in one after the other until it answers."""
        known = self._dialects.get(job.broker.url)
        failed: _Failed | None = None
        for dialect in (known,) if known is not None else _DIALECTS:
            try:
                following = self._ask(job, url, dialect, start, last_ms)
            except _OtherDialect as error:
                failed = _Failed(error.fault, error.reason)
                continue
            if len(self._dialects) >= MAX_DIALECTS:
                self._dialects.clear()
            self._dialects[job.broker.url] = dialect
            return following
        self._dialects.pop(job.broker.url, None)
        assert failed is not None
        raise failed

    def _ask(self, job: _Job, url: ParsedUrl, dialect: _Dialect, start: Next, last_ms: int) -> Next | None:
        stream_id, partition = job.part
        target = (
            f"/{dialect.prefix}/{quote(stream_id, safe='')}/data/partitions/{partition}/range"
            f"?fromTimestamp={start.timestamp_ms}&fromSequenceNumber={start.sequence_number}"
            f"&toTimestamp={last_ms}&toSequenceNumber={MAX_SEQUENCE}&format=raw"
        )
        headers = [("Authorization", self._logins[dialect.hex_password]), ("Accept-Encoding", self._accept_encoding)]
        asked = job.etag if job.pages == 0 else None
        if asked is not None:
            headers.append(("If-None-Match", asked))
        seconds = job.until - time.monotonic()
        if job.stopped or seconds < MIN_S:
            raise _Failed(PullFault.DEADLINE, "the time for this window is over")
        with self._http.stream(
            "GET", url, target, max_bytes=self._limits.page_bytes, deadline_s=seconds, headers=headers
        ) as answer:
            if answer.status == 304 and asked is not None:
                job.unchanged = True
                job.new_etag = asked
                return None
            if answer.status != 200:
                raise _refusal(answer)
            if job.pages == 0:
                job.new_etag = _etag(answer)
            return self._read(job, answer, start)

    def _read(self, job: _Job, answer: OpenAnswer, start: Next) -> Next | None:
        chunks = _counted(job, answer.chunks)
        if answer.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/octet-stream":
            return read_lines(chunks, job.keep)
        before = job.count
        job.frames.clear()
        job.frame_bytes = 0
        read_frames(chunks, job.keep_frames)
        if job.count - before < PAGE_ROWS:
            return None
        for body in reversed(job.frames):
            following = position_of_frame(body)
            if following is not None:
                return following
        raise _Failed(PullFault.PAGING, f"no message of a full page from {start.timestamp_ms} can be read")


class _OtherDialect(_Failed):
    """A refusal that another prefix or password may not get."""


def _refusal(answer: OpenAnswer) -> _Failed:
    """What a status other than 200 and 304 means. Reads a little of the body."""
    if answer.status == 404:
        return _OtherDialect(PullFault.STATUS, "404: no such path")
    if answer.status in (401, 403):
        return _OtherDialect(PullFault.LOGIN, f"{answer.status}: the login of the query key was refused")
    text = b""
    for chunk in answer.chunks:
        text += chunk[: MAX_ERROR_BYTES - len(text)]
        if len(text) >= MAX_ERROR_BYTES:
            break
    shown = re.sub(r"[^ -~]", "?", text[:200].decode("ascii", "replace"))
    if answer.status == 400 and b"Not enough balance" in text:
        return _Failed(PullFault.BALANCE, "the query key has no balance in QueryManager")
    return _Failed(PullFault.STATUS, f"{answer.status}: {shown}")


def _require_progress(start: Next, following: Next, last_ms: int) -> None:
    if not 0 <= following.sequence_number <= MAX_SEQUENCE:
        raise _Failed(PullFault.PAGING, f"sequence number {following.sequence_number} is out of range")
    if (following.timestamp_ms, following.sequence_number) <= (start.timestamp_ms, start.sequence_number):
        raise _Failed(
            PullFault.PAGING,
            f"the page after {start.timestamp_ms}/{start.sequence_number} would begin at "
            f"{following.timestamp_ms}/{following.sequence_number}",
        )
    if following.timestamp_ms > last_ms:
        raise _Failed(PullFault.PAGING, f"the next page would begin at {following.timestamp_ms}, after the window")


def _counted(job: _Job, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        job.size += len(chunk)
        job.budget.take(len(chunk), 0)
        yield chunk


def _etag(answer: OpenAnswer) -> str | None:
    """The answer's entity tag, if it is one that can be sent back."""
    tag = answer.headers.get("etag", "")
    return tag if re.fullmatch(r'(?:W/)?"[!#-~]{1,200}"', tag) else None


def _fault_of(error: ValidatorError, job: _Job) -> PullFault:
    """Name of what ``validator.fetching`` or ``pages`` refused."""
    if isinstance(error, MalformedInput):
        by_field = {"url": PullFault.URL, "body": PullFault.BODY, "frame": PullFault.SHAPE, "metadata": PullFault.SHAPE}
        return by_field.get(str(error.fields.get("field")), PullFault.SHAPE)
    if isinstance(error, TransientError):
        return PullFault.DEADLINE if time.monotonic() >= job.until - MIN_S else PullFault.CONNECTION
    if isinstance(error, RemoteFault):
        if "status" in error.fields:
            return PullFault.REDIRECT
        return PullFault.TOO_SLOW if "bytes" in error.fields else PullFault.CUT
    return PullFault.CONNECTION


def _basic_login(key: SigningKey, hex_password: bool) -> str:
    """Authorization header: lower-case address, and the EIP-191 signature over that text."""
    user = "0x" + key.address.hex()
    signature = key.sign(digest_of_payload(SignatureType.ECDSA_SECP256K1_EVM, user.encode()))
    password = "0x" + signature.hex() if hex_password else base64.b64encode(signature).decode()
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
