"""Bounded JSON-RPC 2.0 over HTTP to several sources, their answers compared.

Every call has one total deadline: each source is asked in a thread of its own, which is left behind when it hangs (at
most ``MAX_UNDER_WAY`` per source). Bodies are bounded before they are parsed, and never decompressed. Only the host of
a URL is ever put into a text.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from validator.errors import ConfigError, MalformedInput, TransientError

MAX_BODY_BYTES = 32 << 20
MAX_UNDER_WAY = 16
BATCH_LIMIT = 50
"""Requests per HTTP body; common limit of public nodes."""
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
    "evm error",
    "vm exception",
)
_PRUNED = ("missing trie node", "pruned", "historical state", "state is not available", "state not available")


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
    """A source did not answer a request: a short reason, and whether it lacks the state asked for."""

    reason: str
    pruned: bool = False


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
        self._batch_limit = batch_limit
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

    def start(self, requests: Sequence[Request[Any]], answer: Callable[[Source, list[Any]], None]) -> None:
        """Ask in a thread of its own; ``answer`` gets one parsed value, Reverted or Failed per request."""
        if not self._under_way.acquire(blocking=False):
            answer(self, [self._fail("too many calls hang")] * len(requests))
            return

        def run() -> None:
            answers: list[Any] = [Failed("internal error")] * len(requests)
            try:
                answers = self._ask(requests, time.monotonic() + self._deadline_s)
            finally:
                self._under_way.release()
                answer(self, answers)

        threading.Thread(target=run, name=f"rpc {self.host}", daemon=True).start()

    def _ask(self, requests: Sequence[Request[Any]], until: float) -> list[Any]:
        answers: list[Any] = []
        for first in range(0, len(requests), self._batch_limit):
            answers += self._ask_batch(requests[first : first + self._batch_limit], until)
        if any(isinstance(answer, Failed) for answer in answers):
            self.health.failed += 1
        else:
            self.health.answered += 1
            self.health.last_s = time.monotonic()
        return answers

    def _ask_batch(self, requests: Sequence[Request[Any]], until: float) -> list[Any]:
        calls = [
            {"jsonrpc": "2.0", "id": number, "method": request.method, "params": request.params}
            for number, request in enumerate(requests)
        ]
        try:
            body = self._post(msgspec.json.encode(calls if len(calls) > 1 else calls[0]), until)
            parsed = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return [self._fail("answer is not JSON")] * len(requests)
        except MalformedInput as error:
            return [self._fail(error.reason)] * len(requests)
        except (httpx.HTTPError, httpx.InvalidURL, TransientError) as error:
            reason = error.message if isinstance(error, TransientError) else type(error).__name__
            return [self._fail(reason)] * len(requests)
        items = parsed if isinstance(parsed, list) else [parsed]
        by_id = {item["id"]: item for item in items if isinstance(item, dict) and type(item.get("id")) is int}
        whole = items[0] if len(items) == 1 and not by_id else None
        return [self._read(request, by_id.get(number, whole)) for number, request in enumerate(requests)]

    def _post(self, body: bytes, until: float) -> bytes:
        left = until - time.monotonic()
        if left <= 0:
            raise TransientError("timed out")
        timeout = httpx.Timeout(left, connect=min(CONNECT_S, left))
        with self._client.stream("POST", self._url, content=body, timeout=timeout) as response:
            if response.status_code == 429 or response.status_code >= 500:
                raise TransientError(f"HTTP {response.status_code}")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise MalformedInput("body", "compressed although not asked for")
            pieces: list[bytes] = []
            total = 0
            for piece in response.iter_raw():
                total += len(piece)
                if total > self._max_body_bytes:
                    raise MalformedInput("body", f"more than {self._max_body_bytes} bytes")
                if time.monotonic() > until:
                    raise TransientError("timed out")
                pieces.append(piece)
            if response.status_code != 200 and not pieces:
                raise MalformedInput("status", f"HTTP {response.status_code}")
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
        return self._fail(f"{method}: {message}", pruned=any(word in lowered for word in _PRUNED))

    def _fail(self, reason: str, *, pruned: bool = False) -> Failed:
        for secret in self._secrets:
            reason = reason.replace(secret, "…")
        reason = "".join(c if c.isprintable() else "?" for c in reason[:200])
        self.health.last_error = reason
        return Failed(reason, pruned)


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

    def agree(self, requests: Sequence[Request[Any]]) -> list[Any]:
        """The value of every request that a majority of all configured sources gave (a revert is a value).

        Raises:
            TransientError: no majority before the deadline. ``reason``: "disagreement", "pruned" (sources lack the
                state asked for) or "unavailable"; ``sources``: host → what went wrong.
        """
        if not requests:
            return []
        votes: list[dict[Any, list[Source]]] = [{} for _ in requests]
        decided: dict[int, Any] = {}
        failures: dict[str, Failed] = {}
        for source, answers in self._gather(requests):
            for number, answer in enumerate(answers):
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
    ) -> Iterator[tuple[Source, list[Any]]]:
        """Yield (source, answers) as they come in, until all have answered or the deadline has passed.

        Once ``satisfied`` says so, the deadline is ``PATIENCE_S`` away: a source that hangs delays nobody for long.
        """
        inbox: queue.SimpleQueue[tuple[Source, list[Any]]] = queue.SimpleQueue()
        until = time.monotonic() + self._deadline_s
        patient = True
        for source in self._sources:
            source.start(requests, lambda who, answers: inbox.put((who, answers)))
        waiting = set(self._sources)
        while waiting:
            if patient and satisfied is not None and satisfied():
                patient = False
                until = min(until, time.monotonic() + PATIENCE_S)
            try:
                source, answers = inbox.get(timeout=max(until - time.monotonic(), 0.0))
            except queue.Empty:
                for source in waiting:
                    source.health.last_error = "timed out"
                    yield source, [Failed("timed out")] * len(requests)
                return
            waiting.discard(source)
            yield source, answers

    def _undecided(self, method: str, votes: dict[Any, list[Source]], failures: dict[str, Failed]) -> TransientError:
        said = {host: failure.reason for host, failure in failures.items()}
        if len(votes) > 1:
            hosts = ", ".join(source.host for backers in votes.values() for source in backers)
            return TransientError(
                f"not yet: RPC sources disagree on {method}: {hosts}", reason="disagreement", sources=said
            )
        reason = "pruned" if any(failure.pruned for failure in failures.values()) else "unavailable"
        detail = "; ".join(f"{host}: {text}" for host, text in sorted(said.items()))
        return TransientError(f"RPC sources do not answer {method}: {detail}", reason=reason, sources=said)


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
