"""The broker client: pulls windows of stream partitions from all brokers at once (``ports.MessageSource``).

Endpoints: ``GET {url}/v1/streams/{id}/partitions/{n}/messages?from&to`` with a login token; of brokers before ours
``GET {url}/stores/{id}/data/partitions/{n}/range?fromTimestamp&toTimestamp&format=raw``, below ``/streams``
on older brokers, with Basic login by the query key (reference: Log Store broker layer, HTTP API). How a broker wants
to be asked is learned (``dialects``); what to ask next, and when all is read, is decided in ``ranges``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from urllib.parse import quote

from validator.net.brokers.dialects import DIALECTS, REMEMBERED_S, V1, Brokers, Dialect, Tokens, make_logins
from validator.net.brokers.pages import position_of, read_answer, read_frames, read_lines
from validator.net.brokers.pull import PullFailed, PullFault, PullMetrics, Room, RunningPull
from validator.net.brokers.ranges import Ending, NoProgress, Page, Range, Reading
from validator.net.http.client import BoundedClient, OpenAnswer
from validator.net.http.pacing import retry_after_s
from validator.net.http.urls import IPNetwork, ParsedUrl, check_url
from validator.ports.sources import Broker, Pull, TakeRecords
from validator.protocol.codec.answer import Request, verify_answer
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError, ValidatorError
from validator.protocol.model import MIB, Address, StreamPart, Window

FRAMES = "application/vnd.logstore.frames"
MAX_ERROR_BYTES = 4 << 10
PATIENCE_S = 10.0
"""How long one request waits for a broker that wants to be left alone; what takes longer is the next pull's affair."""
MAX_TRIES = 5
"""Of one request that is answered 429 or 503."""
THREADS_PER_BROKER = 2
"""As many as ``validator.net.http.client`` opens connections to one address and port."""
MIN_S = 0.05
LINGER_S = 1.0
"""How long past the deadline a thread may take to notice it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one ``stream_window``: bytes after decompression, records, pages and seconds.

    Nothing is held here, and what several brokers serve is kept once.
    """

    page_bytes: int = 256 * MIB
    broker_bytes: int = 4096 * MIB
    total_bytes: int = 12288 * MIB
    broker_rows: int = 4_000_000
    total_rows: int = 12_000_000
    pages: int = 2_000
    broker_s: float = 600.0


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
        remembered_s: float = REMEMBERED_S,
        context: SigningContext | None = None,
    ) -> None:
        """``context``: of the network whose brokers answer at ``/v1``; without, only the old paths are tried.

        ``http``: share the process's one client, so that its limits per address count for peers too.

        ``remembered_s``: how long a broker's dialect is believed without trying newer ones.
        """
        self._http = http or BoundedClient(allow_nets=allow_nets)
        self._allow_http = allow_http
        self._allow_nets = tuple(allow_nets)
        self._limits = limits or Limits()
        self._on_pull = on_pull
        self._accept_encoding = accept_encoding
        self._logins = make_logins(query_key)
        self._context = context
        self._tokens = None if context is None else Tokens(query_key, context)
        dialects = DIALECTS if context is None else (V1, *DIALECTS)
        self._brokers = Brokers(remembered_s=remembered_s, clock=time.monotonic, dialects=dialects)

    def close(self) -> None:
        """Close idle connections; pulls under way end with their deadlines."""
        self._http.close()

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
        """Pull [start, end) of every part from every broker at once: one Pull per (broker, part); never raises for one.

        Records go to ``take``, nothing is held here, and the Pulls have none. ``deadline_ms`` is Unix time; a pull that
        the deadline ends keeps what had arrived. ``take`` is called from several threads, and no more once this has
        returned but by a pull whose time was over.

        Raises:
            ValidatorError: what ``take`` raised.
        """
        started = time.monotonic()
        until = started + max(0.0, deadline_ms / 1000 - time.time())
        limits = self._limits
        total = Room("all brokers", limits.total_bytes, limits.total_rows)
        jobs: list[RunningPull] = []
        futures: list[Future[None]] = []
        lanes: list[ThreadPoolExecutor] = []
        for broker in brokers:
            own = Room("one broker", limits.broker_bytes, limits.broker_rows, total)
            ends = min(until, started + limits.broker_s)
            mine = [
                RunningPull(broker, part, window, etags.get((broker.address, part)), own, ends, take) for part in parts
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

    def _close(self, job: RunningPull, started: float) -> Pull:
        """What the job has now; a thread that still runs stops at its next record."""
        if not job.complete and job.fault is None:
            job.stopped = True
            job.fail(PullFault.DEADLINE, "no answer in the time for this window")
            self._report(job, max(0.0, time.monotonic() - started))
        return job.result()

    def _checked(self, broker: Broker, jobs: Sequence[RunningPull]) -> ParsedUrl | None:
        try:
            return check_url(broker.url, allow_http=self._allow_http, allow_nets=self._allow_nets)
        except MalformedInput as error:
            for job in jobs:
                job.fail(PullFault.URL, error.reason)
                self._report(job, 0.0)
            return None

    # --- one pull, in a thread of its broker

    def _run(self, job: RunningPull, url: ParsedUrl) -> None:
        started = time.monotonic()
        try:
            self._pull(job, url)
            job.complete = True
        except PullFailed as failed:
            job.fail(failed.fault, failed.reason)
        except ValidatorError as error:
            job.fail(_fault_of(error, job), str(error))
        except Exception as error:  # ours, and it must not look like an answer that never came
            job.fail(PullFault.BODY, f"{type(error).__name__}: {error}")
            raise
        finally:
            job.forget_pages()
            self._report(job, time.monotonic() - started)

    def _report(self, job: RunningPull, seconds: float) -> None:
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

    def _pull(self, job: RunningPull, url: ParsedUrl) -> None:
        """All that the broker has of the window; what it keeps back is named, and the rest is read nevertheless."""
        reading = Reading.of_window(job.window)
        while reading.todo:
            if job.pages >= self._limits.pages:
                raise PullFailed(PullFault.PAGING, f"more than {self._limits.pages} pages")
            asked = reading.todo.popleft()
            page = self._page(job, url, asked)
            job.pages += 1
            if job.unchanged:
                return
            try:
                reading.accept(asked, page)
            except NoProgress as error:
                raise PullFailed(PullFault.PAGING, str(error)) from error
        if reading.gaps:
            first, *others = reading.gaps
            more = f", and {len(others)} more ranges" if others else ""
            unheeded = first.page.ending in (Ending.MEASURED, Ending.PROVED)
            raise PullFailed(PullFault.PAGING if unheeded else PullFault.CUT, f"not whole from {first}{more}")

    def _page(self, job: RunningPull, url: ParsedUrl, asked: Range) -> Page:
        """One page, asked for in the broker's dialect, or in one after the other until it answers."""
        dialects, understood = self._brokers.dialects_of(job.broker.url)
        refusals: list[tuple[Dialect, _OtherDialect]] = []
        blank: tuple[Dialect, Page] | None = None
        for dialect in dialects:
            known = understood and dialect is dialects[0]
            try:
                page = self._ask_patiently(job, url, dialect, asked, known)
            except _OtherDialect as error:
                refusals.append((dialect, error))
                continue
            except PullFailed as error:
                if error.fault is PullFault.BALANCE:
                    self._brokers.understood(job.broker.url, dialect)
                raise
            if page.blank and not known:
                blank = blank or (dialect, page)
                continue
            self._brokers.understood(job.broker.url, dialect)
            return page
        if blank is not None:
            self._brokers.understood(job.broker.url, blank[0])
            return blank[1]
        telling = refusals[0] if understood else max(refusals, key=lambda refusal: refusal[1].says)
        self._brokers.refused(job.broker.url, telling[0])
        raise PullFailed(telling[1].fault, telling[1].reason)

    def _ask_patiently(self, job: RunningPull, url: ParsedUrl, dialect: Dialect, asked: Range, known: bool) -> Page:
        """The answer to one request, asked again where the broker wants to be left alone for a while."""
        pace = self._brokers.pace_of(job.broker.url)
        tries = 0
        while True:
            rest_s = pace.rest_s()
            if rest_s > 0:
                if tries >= MAX_TRIES or rest_s > min(PATIENCE_S, job.until - MIN_S - time.monotonic()):
                    raise PullFailed(PullFault.THROTTLED, f"{pace.reason}: it is left alone for {rest_s:.0f} s more")
                time.sleep(rest_s)
            tries += 1
            try:
                return self._ask(job, url, dialect, asked, known)
            except _Throttled as error:
                pace.refused(f"it said {error.status}", error.asked_s)

    def _ask(self, job: RunningPull, url: ParsedUrl, dialect: Dialect, asked: Range, known: bool) -> Page:
        target, headers = self._request(job, dialect, asked)
        headers.append(("Accept-Encoding", self._accept_encoding))
        tag = job.etag if job.pages == 0 else None
        if tag is not None:
            headers.append(("If-None-Match", tag))
        seconds = job.until - time.monotonic()
        if job.stopped or seconds < MIN_S:
            raise PullFailed(PullFault.DEADLINE, "the time for this window is over")
        job.begin_page()
        begun = False
        try:
            with self._http.stream(
                "GET", url, target, max_bytes=self._limits.page_bytes, deadline_s=seconds, headers=headers
            ) as answer:
                if answer.status == 304 and tag is not None:
                    job.unchanged = True
                    job.new_etag = tag
                    return Page(0, 0, None, Ending.LAST_PAGE)
                if answer.status != 200:
                    if dialect == V1 and _knows_no_such_part(answer):
                        return Page(0, 0, None, Ending.LAST_PAGE)
                    raise _refusal(answer)
                begun = True
                if job.pages == 0:
                    job.new_etag = _etag(answer)
                return self._read_v1(job, answer, asked) if dialect == V1 else self._read(job, answer)
        except (MalformedInput, RemoteFault, TransientError) as error:
            if begun and _is_cut(error, job):
                return Page(job.rows, job.fresh, job.last, Ending.CUT, reason=str(error))
            if begun and job.rows == 0 and error.fields.get("field") in ("metadata", "frame", "trailer"):
                self._brokers.doubt(job.broker.url)
                if not known:
                    raise _OtherDialect(_fault_of(error, job), str(error), says=1) from error
            if "status" in error.fields:
                raise _OtherDialect(PullFault.REDIRECT, str(error), says=1) from error
            raise

    def _request(self, job: RunningPull, dialect: Dialect, asked: Range) -> tuple[str, list[tuple[str, str]]]:
        """Path and headers."""
        stream_id, partition = job.part
        name = quote(stream_id, safe="")
        if dialect == V1 and self._tokens is not None:
            target = f"/v1/streams/{name}/partitions/{partition}/messages"
            target += f"?from={asked.start.timestamp_ms}&to={asked.end.timestamp_ms + 1}&asOf=none"
            return target, [("Authorization", self._tokens.of(job.broker.address)), ("Accept", FRAMES)]
        target = (
            f"/{dialect.prefix}/{name}/data/partitions/{partition}/range"
            f"?fromTimestamp={asked.start.timestamp_ms}&fromSequenceNumber={asked.start.sequence_number}"
            f"&toTimestamp={asked.end.timestamp_ms}&toSequenceNumber={asked.end.sequence_number}&format=raw"
        )
        return target, [("Authorization", self._logins[dialect.hex_password])]

    def _read_v1(self, job: RunningPull, answer: OpenAnswer, asked: Range) -> Page:
        """Frames up to the broker's own word that these were all."""
        assert self._context is not None
        said = read_answer(_counted(job, answer.chunks), job.accept_page)
        verify_answer(said, self._context)
        request = Request(*job.part, asked.start.timestamp_ms, asked.end.timestamp_ms + 1)
        if (said.broker, said.request, said.count) != (job.broker.address, request, job.rows):
            raise MalformedInput("trailer", "of another broker, request or number of messages")
        if said.next:
            return Page(job.rows, job.fresh, job.last, Ending.CUT, reason="the broker gives no more without a receipt")
        return Page(job.rows, job.fresh, None, Ending.LAST_PAGE)

    def _read(self, job: RunningPull, answer: OpenAnswer) -> Page:
        """Hand the records over while they come, and say how the answer ends."""
        before = job.size
        chunks = _counted(job, answer.chunks)
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/octet-stream":
            read_frames(chunks, job.accept_page)
            measured = "content-length" in answer.headers
            ending = Ending.MEASURED if measured else Ending.PROVED if answer.framed else Ending.OPEN
            first = position_of(job.first, job.form) if job.first is not None and job.pages > 0 else None
            return Page(job.rows, job.fresh, job.last, ending, first)
        try:
            following = read_lines(chunks, job.accept_page)
        except MalformedInput as error:
            nothing = error.fields["field"] == "metadata" and job.size == before
            if nothing and not kind and answer.framed:  # how newer brokers say that there is nothing
                return Page(0, 0, None, Ending.PROVED, blank=True)
            raise
        ending = Ending.LAST_PAGE if following is None else Ending.NEXT_PAGE
        return Page(job.rows, job.fresh, None, ending, following=following)


class _OtherDialect(PullFailed):
    """A refusal that another path or password may not get. ``says``: how much it tells, 0 for nothing."""

    def __init__(self, fault: PullFault, reason: str, *, says: int) -> None:
        super().__init__(fault, reason)
        self.says = says


class _Throttled(Exception):
    """The broker wants to be left alone, for ``asked_s`` seconds where it says so."""

    def __init__(self, status: int, asked_s: float) -> None:
        super().__init__(status)
        self.status = status
        self.asked_s = asked_s


def _knows_no_such_part(answer: OpenAnswer) -> bool:
    """Whether a broker of today says so of the stream or partition, and not of the path. Reads a little of the body."""
    if answer.status != 404:
        return False
    text = b""
    for chunk in answer.chunks:
        text += chunk[: MAX_ERROR_BYTES - len(text)]
        if len(text) >= MAX_ERROR_BYTES:
            break
    return b'"field":"stream"' in text or b'"field":"partition"' in text


def _refusal(answer: OpenAnswer) -> Exception:
    """What a status other than 200 and 304 means. Reads a little of the body."""
    if answer.status in (429, 503):
        return _Throttled(answer.status, retry_after_s(answer.headers))
    if answer.status in (404, 405):
        return _OtherDialect(PullFault.STATUS, f"{answer.status}: no such path", says=0)
    if answer.status == 402:
        return PullFailed(PullFault.BALANCE, "402: the broker wants to be paid first")
    if answer.status in (401, 403):
        return _OtherDialect(PullFault.LOGIN, f"{answer.status}: the login of the query key was refused", says=2)
    text = b""
    for chunk in answer.chunks:
        text += chunk[: MAX_ERROR_BYTES - len(text)]
        if len(text) >= MAX_ERROR_BYTES:
            break
    shown = re.sub(r"[^ -~]", "?", text[:200].decode("ascii", "replace"))
    if answer.status == 400 and b"Not enough balance" in text:
        return PullFailed(PullFault.BALANCE, "the query key has no balance in QueryManager")
    return _OtherDialect(PullFault.STATUS, f"{answer.status}: {shown}", says=3)


def _is_cut(error: ValidatorError, job: RunningPull) -> bool:
    """Whether an answer that had begun ended too early, as far as the broker is concerned, with time left to ask on."""
    if time.monotonic() >= job.until - MIN_S:
        return False
    if isinstance(error, MalformedInput):
        return bool(error.fields.get("cut"))
    if isinstance(error, TransientError):
        return job.fresh > 0
    return "bytes" not in error.fields


def _counted(job: RunningPull, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        job.size += len(chunk)
        job.room.spend(len(chunk), 0)
        yield chunk


def _etag(answer: OpenAnswer) -> str | None:
    """The answer's entity tag, if it is one that can be sent back."""
    tag = answer.headers.get("etag", "")
    return tag if re.fullmatch(r'(?:W/)?"[!#-~]{1,200}"', tag) else None


def _fault_of(error: ValidatorError, job: RunningPull) -> PullFault:
    """Name of what ``validator.net.http.client`` or ``pages`` refused."""
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
