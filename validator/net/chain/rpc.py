"""Bounded JSON-RPC 2.0 over HTTP to several sources, their answers compared.

Every call has one total deadline: each source is asked in a thread of its own, which is left behind when it hangs (at
most ``MAX_UNDER_WAY`` per source). Bodies are bounded before they are parsed, and never decompressed. Only the host of
a URL is ever put into a text.

A source's limits are learned, whatever its words (``validator.net.http.pacing``):

- What was answered stays answered. Of a batch only what was refused is asked again; answers about a block that is named
  by its hash outlive a call that ran out of time, so the next one goes on where it ended.
- What fails in a batch is asked again alone, and so a limit of batches is told from a fault of the request. If the
  lone one is answered, batches get smaller; if it fails in the same words, so have the others.
- A source that asks for less (429, Retry-After, "rate limit") rests, longer each time. Who rests is not asked while
  others can answer; a call waits for it only within its own deadline.
"""

from __future__ import annotations

import queue
import random
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from validator.net.http.pacing import Allowance, Pace, retry_after_s
from validator.protocol.errors import ConfigError, MalformedInput, TransientError

MAX_BODY_BYTES = 32 << 20
MAX_UNDER_WAY = 16
BATCH_LIMIT = 50
"""Requests per HTTP body at first; many public nodes take 3 to 20, which is learned."""
MAX_KEPT_BYTES = 32 << 20
"""Answers per source that wait for the rest of their call."""
DEADLINE_S = 15.0
CONNECT_S = 4.0
PATIENCE_S = 0.5
"""How long slower sources are waited for where an answer is there, and theirs would only make it better."""

MAX_NUMBER = 2**63 - 1
"""What a signed column of 64 bits holds."""

T = TypeVar("T")

_VM_FAILURES = (
    "revert",
    "out of gas",
    "outofgas",
    "invalid opcode",
    "invalidfeopcode",
    "opcodenotfound",
    "stack underflow",
    "stackunderflow",
    "stack overflow",
    "stackoverflow",
    "stack limit",
    "invalid jump",
    "invalidjump",
    "bad instruction",
    "write protection",
    "return data out of bounds",
    "gas uint64 overflow",
    "evm error",
    "vm exception",
)
_BUSY_CODES = (429, -32029)
_LIMIT_EXCEEDED = -32005
"""EIP-1474; for logs it means their number."""
_BUSY = re.compile(
    r"rate.?limit|too many requests|requests? limit|requests? per|per second|compute unit|throttl|quota|credits"
    r"|over capacity|slow down"
)
"""Hints only: a refusal in other words is tried again by the caller, later."""
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|[0-9]+")
_PRUNED = (
    "missing trie node",
    "pruned",
    "historical state",
    "state is not available",
    "state not available",
    "state unavailable",
    "no state available",
    "archive",
)


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One JSON-RPC request. ``parse`` makes a comparable value of the result; it raises MalformedInput or returns."""

    method: str
    params: tuple[Any, ...]
    parse: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Reverted:
    """The call ran and failed; ``data`` is what it reverted with. An answer like any other."""

    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Failed:
    """A source did not answer a request: a short reason, and what kind of failure it is."""

    reason: str
    pruned: bool = False
    """It lacks the state asked for."""
    busy: bool = False
    """It asks to be asked less."""
    down: bool = False
    """It is not fit to answer anything: no connection, a server's error."""
    rest_s: float = 0.0
    """How long it asks to be left alone."""


@dataclass(slots=True)
class SourceHealth:
    """What is known of one source since start; times are monotonic seconds."""

    host: str
    answered: int = 0
    failed: int = 0
    outvoted: int = 0
    last_error: str = ""
    last_s: float = 0.0


class Source:
    """One JSON-RPC node."""

    def __init__(self, url: str, *, deadline_s: float, max_body_bytes: int, batch_limit: int) -> None:
        """Raises ConfigError unless ``url`` is an http or https URL with a host."""
        try:
            parts = urlsplit(url)
            self.host = parts.hostname or ""
            if parts.port:
                self.host += f":{parts.port}"
        except ValueError as error:
            raise ConfigError("rpc_urls: not a URL", field="rpc_urls") from error
        if parts.scheme not in ("http", "https") or not self.host:
            raise ConfigError("rpc_urls: each must be an http or https URL", field="rpc_urls")
        named = [text for text in (parts.query, *parts.path.split("/")) if len(text) >= 6]
        self._secrets = tuple(text for text in (parts.username, parts.password, *named) if text)
        self._url = url
        self._deadline_s = deadline_s
        self._max_body_bytes = max_body_bytes
        self._allowance = Allowance(batch_limit)
        self._suspect = 0
        """A batch of this size failed, and it is not known yet whether for its size."""
        self._refusals = 0
        self._kept: OrderedDict[bytes, str] = OrderedDict()
        self._kept_bytes = 0
        self._kept_lock = threading.Lock()
        self.pace = Pace()
        self._under_way = threading.BoundedSemaphore(MAX_UNDER_WAY)
        self._client = httpx.Client(
            timeout=httpx.Timeout(deadline_s, connect=min(CONNECT_S, deadline_s)),
            headers={"content-type": "application/json", "accept-encoding": "identity"},
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=MAX_UNDER_WAY, max_keepalive_connections=4),
        )
        self.health = SourceHealth(self.host)

    def close(self) -> None:
        self._client.close()

    @property
    def batch_size(self) -> int:
        """Requests per HTTP body that this source is known, or hoped, to take."""
        return self._allowance.size

    def start(
        self, requests: Sequence[Request[Any]], answer: Callable[[Source, list[Any]], None], over: threading.Event
    ) -> None:
        """Ask in a thread of its own; ``answer`` gets one parsed value, Reverted or Failed per request.

        Once ``over`` is set, nothing more is asked.
        """
        if not self._under_way.acquire(blocking=False):
            answer(self, [self._fail("too many calls hang")] * len(requests))
            return

        def run() -> None:
            answers: list[Any] = [Failed("internal error")] * len(requests)
            try:
                answers = self._ask(requests, time.monotonic() + self._deadline_s, over)
            finally:
                self._under_way.release()
                answer(self, answers)

        threading.Thread(target=run, name=f"rpc {self.host}", daemon=True).start()

    def _ask(self, requests: Sequence[Request[Any]], until: float, over: threading.Event) -> list[Any]:
        errand = _Errand(self, requests, until, over)
        answers = errand.run()
        if any(isinstance(answer, Failed) for answer in answers):
            self.health.failed += 1
        else:
            self.health.answered += 1
            self.health.last_s = time.monotonic()
        return answers

    # --- sizes of batches ---

    def portion(self) -> int:
        """How many requests to put into one body now."""
        return self._allowance.after_refusal(self._suspect) if self._suspect else self._allowance.size

    def suspect(self, amount: int) -> int:
        """A batch of this size failed, perhaps for its size; what to try if a lone request is answered."""
        self._suspect = amount
        return self._allowance.after_refusal(amount)

    def acquit(self) -> None:
        """Batches are not at fault: a lone request fails as well."""
        self._suspect = 0

    def refused_in_a_row(self, whole: bool) -> int:
        """Count a batch that was refused, ``whole`` or in part, since the source asks to be asked less."""
        self._refusals = self._refusals + 1 if whole else 0
        return self._refusals

    def took(self, amount: int) -> None:
        """A batch of this size was answered whole."""
        if amount > 1:
            self._refusals = 0
        suspect, self._suspect = self._suspect, 0
        if suspect > amount:
            self._allowance.refused(suspect)
        self._allowance.taken(amount)

    # --- answers of calls that did not come to their end ---

    @property
    def has_kept(self) -> bool:
        return bool(self._kept)

    def recall(self, request: Request[Any]) -> Any:
        """The answer that an earlier call kept, or Failed."""
        key = _pinned(request)
        with self._kept_lock:
            result = self._kept.get(key) if key is not None else None
        return Failed("not asked") if result is None else self._read(request, {"result": result})

    def forget(self, requests: Sequence[Request[Any]]) -> None:
        """A call has come to its end: nobody waits for what was kept of it."""
        if not self._kept:
            return
        with self._kept_lock:
            for key in map(_pinned, requests):
                result = self._kept.pop(key, None) if key is not None else None
                if key is not None and result is not None:
                    self._kept_bytes -= len(key) + len(result)

    def keep(self, request: Request[Any], result: Any) -> None:
        """Keep an answer that can never change: a text about a block that is named by its hash."""
        key = _pinned(request)
        if key is None or not isinstance(result, str):
            return
        with self._kept_lock:
            if key in self._kept:
                return
            self._kept[key] = result
            self._kept_bytes += len(key) + len(result)
            while self._kept_bytes > MAX_KEPT_BYTES:
                old, value = self._kept.popitem(last=False)
                self._kept_bytes -= len(old) + len(value)

    # --- one HTTP request ---

    def post_batch(self, requests: Sequence[Request[Any]], until: float) -> list[tuple[Any, Any]]:
        """(parsed value, Reverted or Failed; the result as it came) per request."""
        calls = [
            {"jsonrpc": "2.0", "id": number, "method": request.method, "params": request.params}
            for number, request in enumerate(requests)
        ]
        try:
            body = self._post(msgspec.json.encode(calls if len(calls) > 1 else calls[0]), until)
            parsed = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            failed = self._fail("answer is not JSON")
        except MalformedInput as error:
            failed = self._fail(error.reason)
        except _Refused as error:
            failed = self._fail(error.message, busy=error.busy, down=not error.busy, rest_s=error.rest_s)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failed = self._fail(type(error).__name__, down=True)
        else:
            items = parsed if isinstance(parsed, list) else [parsed]
            by_id = {item["id"]: item for item in items if isinstance(item, dict) and type(item.get("id")) is int}
            whole = items[0] if len(items) == 1 and not by_id else None
            found = [by_id.get(number, whole) for number in range(len(requests))]
            return [
                (self._read(request, item), item.get("result") if isinstance(item, dict) else None)
                for request, item in zip(requests, found, strict=True)
            ]
        return [(failed, None)] * len(requests)

    def _post(self, body: bytes, until: float) -> bytes:
        left = until - time.monotonic()
        if left <= 0:
            raise _Refused("timed out")
        timeout = httpx.Timeout(left, connect=min(CONNECT_S, left))
        with self._client.stream("POST", self._url, content=body, timeout=timeout) as response:
            status, rest_s = response.status_code, retry_after_s(response.headers)
            if status == 429 or status >= 500 or (status >= 400 and rest_s > 0):
                raise _Refused(f"HTTP {status}", busy=status == 429 or rest_s > 0, rest_s=rest_s)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise MalformedInput("body", "compressed although not asked for")
            pieces: list[bytes] = []
            total = 0
            for piece in response.iter_raw():
                total += len(piece)
                if total > self._max_body_bytes:
                    raise MalformedInput("body", f"more than {self._max_body_bytes} bytes")
                if time.monotonic() > until:
                    raise _Refused("timed out")
                pieces.append(piece)
            if status != 200 and not pieces:
                raise MalformedInput("status", f"HTTP {status}")
            return b"".join(pieces)

    def _read(self, request: Request[Any], item: Any) -> Any:
        if not isinstance(item, dict):
            return self._fail(f"{request.method}: no answer in the batch")
        error = item.get("error")
        if error is not None:
            return self._read_error(request.method, error)
        if "result" not in item:
            return self._fail(f"{request.method}: neither result nor error")
        try:
            return request.parse(item["result"])
        except MalformedInput as fault:
            return self._fail(f"{request.method}: {fault.message}")

    def _read_error(self, method: str, error: Any) -> Reverted | Failed:
        message = str(error.get("message", "")) if isinstance(error, dict) else str(error)
        lowered = message.lower()
        ran = method in ("eth_call", "eth_estimateGas") and isinstance(error, dict)
        if ran and (error.get("code") == 3 or any(word in lowered for word in _VM_FAILURES)):
            return Reverted(_revert_data(error.get("data")))
        code = error.get("code") if isinstance(error, dict) else None
        busy = (
            code in _BUSY_CODES or (code == _LIMIT_EXCEEDED and method != "eth_getLogs") or bool(_BUSY.search(lowered))
        )
        return self._fail(f"{method}: {message}", pruned=any(word in lowered for word in _PRUNED), busy=busy)

    def _fail(
        self, reason: str, *, pruned: bool = False, busy: bool = False, down: bool = False, rest_s: float = 0.0
    ) -> Failed:
        for secret in self._secrets:
            reason = reason.replace(secret, "…")
        reason = "".join(c if c.isprintable() else "?" for c in reason[:200])
        self.health.last_error = reason
        return Failed(reason, pruned, busy, down, rest_s)


class _Refused(Exception):
    """An HTTP answer that holds none to our requests."""

    def __init__(self, message: str, *, busy: bool = False, rest_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.busy = busy
        self.rest_s = rest_s


class _Errand:
    """One call's requests at one source, until all are answered, refused for good, or the time is up."""

    def __init__(self, source: Source, requests: Sequence[Request[Any]], until: float, over: threading.Event) -> None:
        self._source = source
        self._requests = requests
        self._until = until
        self._over = over
        self._raw: dict[int, Any] = {}
        self._answers: dict[int, Any] = {}
        self._doubts: dict[int, Failed] = {}
        """Failed in a batch; whether the batch was at fault or they are, a lone request tells."""
        self._size = source.portion()
        self._patience = 2

    def run(self) -> list[Any]:
        """One answer per request."""
        for number, request in enumerate(self._requests if self._source.has_kept else ()):
            kept = self._source.recall(request)
            if not isinstance(kept, Failed):
                self._answers[number] = kept
        pending = [n for n in range(len(self._requests)) if n not in self._answers]
        while pending:
            failure = self._wait()
            if failure is None:
                # What is in doubt comes first, and alone.
                alone = next((n for n in pending if n in self._doubts), None)
                failure = self._try([alone] if alone is not None else pending[: self._size])
            if failure is not None:
                self._answers.update(dict.fromkeys((n for n in pending if n not in self._answers), failure))
            pending = [n for n in pending if n not in self._answers]
        answers = [self._answers[n] for n in range(len(self._requests))]
        if any(isinstance(answer, Failed) for answer in answers):
            for number, raw in self._raw.items():
                self._source.keep(self._requests[number], raw)
        else:
            self._source.forget(self._requests)
        return answers

    def _wait(self) -> Failed | None:
        """Let the source rest. Failed: its rest is longer than the call, or nobody waits for the call any more."""
        pace = self._source.pace
        while True:
            if self._over.is_set():
                return Failed("no longer asked for")
            left_s, rest_s = self._until - time.monotonic(), pace.rest_s()
            if rest_s <= 0 and left_s > 0:
                return None
            if rest_s >= left_s:
                return _resting(self._source) if rest_s > 0 else Failed("timed out")
            self._over.wait(min(rest_s * (1 + random.random() / 5), left_s))

    def _try(self, numbers: Sequence[int]) -> Failed | None:
        """Ask for these in one body. Failed: there is no use in asking for anything more."""
        said = self._source.post_batch([self._requests[n] for n in numbers], self._until)
        failed: dict[int, Failed] = {}
        for number, (answer, raw) in zip(numbers, said, strict=True):
            if isinstance(answer, Failed):
                failed[number] = answer
            else:
                self._answers[number] = answer
                self._raw[number] = raw
                self._doubts.pop(number, None)
        if not failed:
            self._go_on(len(numbers))
            return None
        busy = [failure for failure in failed.values() if failure.busy]
        if busy:
            self._source.pace.refused(busy[0].reason, max(failure.rest_s for failure in busy))
            # Once may be for the moment. Twice the same: perhaps it counts each request of a batch.
            if len(numbers) > 1 and self._source.refused_in_a_row(len(failed) == len(numbers)) >= self._patience:
                self._patience = 1
                return self._doubt(failed, len(numbers))
            return None
        if len(numbers) > 1:
            return self._doubt(failed, len(numbers))
        return self._fail_alone(numbers[0], failed[numbers[0]])

    def _go_on(self, amount: int) -> None:
        """Everything asked for was answered. A lone one acquits those that failed beside it: it was the batch."""
        self._source.pace.answered()
        self._source.took(amount)
        self._doubts.clear()

    def _doubt(self, failed: dict[int, Failed], amount: int) -> Failed | None:
        """Some of a batch failed: the batch may have been too large."""
        first = next(iter(failed.values()))
        if first.down and not first.reason.startswith("HTTP"):
            if not self._raw:  # it had the whole time, so the next call begins with less
                self._source.suspect(amount)
            self._source.pace.refused(first.reason)
            return first
        less = self._source.suspect(amount)
        self._size = max(min(amount - len(failed), amount - 1), less)
        self._doubts.update(failed)
        return None

    def _fail_alone(self, number: int, failure: Failed) -> Failed | None:
        """A lone request failed: batches are not at fault, and who failed in the same words fails too."""
        self._source.acquit()
        if failure.down:
            self._source.pace.refused(failure.reason)
            return failure
        self._answers[number] = failure
        self._doubts.pop(number, None)
        words = _NUMBERS.sub("", failure.reason)
        for other, doubt in list(self._doubts.items()):
            if _NUMBERS.sub("", doubt.reason) == words:
                self._answers[other] = self._doubts.pop(other)
        return None


def _resting(source: Source) -> Failed:
    pace = source.pace
    return Failed(f"rests for {pace.rest_s():.0f} s after: {pace.reason}", busy=True)


def _pinned(request: Request[Any]) -> bytes | None:
    """Key of a request whose answer can never change, since it names its block by hash; else None."""
    if not any(isinstance(param, dict) and "blockHash" in param for param in request.params):
        return None
    return msgspec.json.encode((request.method, request.params))


def _revert_data(data: Any) -> bytes:
    text = data.get("data") if isinstance(data, dict) else data
    if isinstance(text, str) and text.startswith("0x") and len(text) <= 1 << 16:
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            return b""
    return b""


class Rpc:
    """Several sources asked as one. Thread-safe."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        deadline_s: float = DEADLINE_S,
        max_body_bytes: int = MAX_BODY_BYTES,
        batch_limit: int = BATCH_LIMIT,
    ) -> None:
        """Raises ConfigError for no URL, one that is no http(s) URL, or one named twice."""
        if not urls:
            raise ConfigError("rpc_urls: name at least one", field="rpc_urls")
        if len(set(urls)) != len(urls):
            raise ConfigError("rpc_urls: one is named twice", field="rpc_urls")
        self._deadline_s = deadline_s
        self._sources = [
            Source(url, deadline_s=deadline_s, max_body_bytes=max_body_bytes, batch_limit=batch_limit) for url in urls
        ]
        self.majority = len(urls) // 2 + 1

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(source.host for source in self._sources)

    def health(self) -> list[SourceHealth]:
        """One entry per source, in the order of the URLs."""
        return [source.health for source in self._sources]

    def close(self) -> None:
        for source in self._sources:
            source.close()

    def agree(self, requests: Sequence[Request[Any]], *, together: bool = False) -> list[Any]:
        """The value of every request that a majority of all configured sources gave (a revert is a value).

        ``together``: a source's answers are evidence for each other, so all of them count or none, and a majority has
        given them all.

        Raises:
            TransientError: no majority before the deadline. ``reason``: "disagreement", "pruned" (sources lack the
                state asked for) or "unavailable"; ``sources``: host → what went wrong.
        """
        if not requests:
            return []
        votes: list[dict[Any, list[Source]]] = [{} for _ in requests]
        decided: dict[int, Any] = {}
        failures: dict[str, Failed] = {}
        with closing(self._gather(requests)) as heard:
            for source, answers in heard:
                lacking = next((answer for answer in answers if isinstance(answer, Failed)), None) if together else None
                for number, answer in enumerate([lacking] if lacking else answers):
                    if isinstance(answer, Failed):
                        failures[source.host] = answer
                        continue
                    backers = votes[number].setdefault(answer, [])
                    backers.append(source)
                    if len(backers) == self.majority:
                        decided[number] = answer
                if len(decided) == len(requests):
                    break
        for number, value in decided.items():
            for other, backers in votes[number].items():
                if other != value:
                    for source in backers:
                        source.health.outvoted += 1
                        source.health.last_error = f"{requests[number].method}: outvoted"
        if len(decided) < len(requests):
            number = next(n for n in range(len(requests)) if n not in decided)
            raise self._undecided(requests[number].method, votes[number], failures)
        return [decided[number] for number in range(len(requests))]

    def each(self, request: Request[Any]) -> list[tuple[str, Any]]:
        """(host, answer) per source; once one has given a value, the others get ``PATIENCE_S`` more."""
        heard: list[tuple[str, Any]] = []
        for source, answers in self._gather([request], lambda: any(_is_value(answer) for _, answer in heard)):
            heard.append((source.host, answers[0]))
        return heard

    def each_at_least(self, request: Request[T], enough: int) -> list[T]:
        """Values of sources, failures left out; once ``enough`` have answered, the others get ``PATIENCE_S`` more.

        Raises:
            TransientError: fewer than ``enough`` answered.
        """
        values: list[T] = []
        failures: dict[str, Failed] = {}
        for source, answers in self._gather([request], lambda: len(values) >= enough):
            if isinstance(answers[0], Failed):
                failures[source.host] = answers[0]
            elif not isinstance(answers[0], Reverted):
                values.append(answers[0])
        if len(values) < enough:
            raise self._undecided(request.method, {}, failures)
        return values

    def _gather(
        self, requests: Sequence[Request[Any]], satisfied: Callable[[], bool] | None = None
    ) -> Generator[tuple[Source, list[Any]], None, None]:
        """Yield (source, answers) as they come in, until all have answered or the deadline has passed.

        A source that rests is asked when its rest is over, if the others have not decided by then; one that rests
        longer than the call counts as failed at once. Once ``satisfied`` says so, the deadline is ``PATIENCE_S`` away:
        a source that hangs delays nobody for long.
        """
        inbox: queue.SimpleQueue[tuple[Source, list[Any]]] = queue.SimpleQueue()
        over = threading.Event()
        until = time.monotonic() + self._deadline_s
        resting = {source: time.monotonic() + source.pace.rest_s() for source in self._sources}
        waiting: set[Source] = set()
        patient = True
        try:
            while waiting or resting:
                now = time.monotonic()
                if patient and satisfied is not None and satisfied():
                    patient = False
                    until = min(until, now + PATIENCE_S)
                for source in [s for s, awake in resting.items() if awake <= now]:
                    del resting[source]
                    waiting.add(source)
                    source.start(requests, lambda who, answers: inbox.put((who, answers)), over)
                for source in [s for s, awake in resting.items() if awake >= until]:
                    del resting[source]
                    yield source, [_resting(source)] * len(requests)
                if not waiting and not resting:
                    return
                try:
                    source, answers = inbox.get(timeout=max(min([until, *resting.values()]) - now, 0.0))
                except queue.Empty:
                    if time.monotonic() < until:
                        continue  # one has rested enough
                    for source in waiting:
                        source.health.last_error = "timed out"
                        yield source, [Failed("timed out")] * len(requests)
                    return
                waiting.discard(source)
                yield source, answers
        finally:
            over.set()

    def _undecided(self, method: str, votes: dict[Any, list[Source]], failures: dict[str, Failed]) -> TransientError:
        said = {host: failure.reason for host, failure in failures.items()}
        # Before enough of them are awake, asking again is of no use.
        rest_s = sorted(source.pace.rest_s() for source in self._sources)[self.majority - 1]
        fields = {"sources": said, "retry_after_s": rest_s}
        if len(votes) > 1:
            hosts = ", ".join(source.host for backers in votes.values() for source in backers)
            return TransientError(
                f"not yet: RPC sources disagree on {method}: {hosts}", reason="disagreement", **fields
            )
        reason = "pruned" if any(failure.pruned for failure in failures.values()) else "unavailable"
        detail = "; ".join(f"{host}: {text}" for host, text in sorted(said.items()))
        return TransientError(f"RPC sources do not answer {method}: {detail}", reason=reason, **fields)


def _is_value(answer: Any) -> bool:
    return not isinstance(answer, Failed | Reverted)


# --- parsing --------------------------------------------------------------------------------------


_QUANTITY = re.compile("0x[0-9a-fA-F]{1,64}")


def parse_quantity(value: Any, what: str = "quantity") -> int:
    """ "0x1f" → 31, up to 256 bits. Raises MalformedInput."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise MalformedInput(what, "not a hex quantity")


def parse_number(value: Any, what: str = "number", most: int = MAX_NUMBER) -> int:
    """A quantity that counts something (blocks, gas, nonces, seconds) and so fits wherever such are kept.

    A source may say any 256 bits; what is beyond ``most`` is refused here, before it meets a column or an object.

    Raises:
        MalformedInput: no quantity, or more than ``most``.
    """
    number = parse_quantity(value, what)
    if number > most:
        raise MalformedInput(what, f"{number:#x} is more than {most:#x}")
    return number


def parse_bytes(value: Any, what: str = "data", size: int | None = None) -> bytes:
    """ "0x…" → bytes, of exactly ``size`` if given. Raises MalformedInput."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            raise MalformedInput(what, "not hex data") from None
        if 2 * len(data) != len(value) - 2:
            raise MalformedInput(what, "space between hex digits")
        if size is None or len(data) == size:
            return data
    raise MalformedInput(what, f"not hex data of {size} bytes" if size is not None else "not hex data")
