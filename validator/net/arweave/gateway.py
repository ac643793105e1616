"""One Arweave gateway over HTTP: bounded in bytes and time, with retries and a circuit breaker.

Nothing a gateway does can hold a thread beyond the call's deadline (net.http). Redirects, compressed answers and
answers beyond the limit are faults; nothing is sent twice unasked. Texts name the host only, since the rest of a URL
may hold credentials.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO, TypeVar

import tenacity

from validator.net.http.client import Answer, BoundedClient, OpenAnswer
from validator.net.http.pacing import LONGEST_ASKED_S, Pace, retry_after_s
from validator.net.http.urls import EVERYWHERE, read_operator_url
from validator.protocol.errors import ConfigError, RemoteFault, TransientError, UnknownOutcome, ValidatorError

T = TypeVar("T")
LONGEST_REST_S = 10.0
"""A call waits so long for a gateway that has asked another call for a rest; with more to go it is not asked at all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds. ``call_s`` bounds one call with its retries, ``request_s`` one request of it.

    ``download_s`` bounds the reading of a whole bundle, ``seed_s`` one run of sending one. The circuit opens after
    ``failures`` requests in a row that failed, for ``open_s``.
    """

    connect_s: float = 5.0
    read_s: float = 30.0
    request_s: float = 60.0
    call_s: float = 90.0
    download_s: float = 600.0
    seed_s: float = 600.0
    attempts: int = 4
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    failures: int = 5
    open_s: float = 30.0


@dataclass(frozen=True, slots=True)
class CircuitState:
    """What a dashboard shows of a gateway: "closed", "open" or "probing", failures in a row, the last error."""

    host: str
    state: str
    failures: int
    last_error: str


class CircuitOpen(TransientError):
    """The gateway failed too often; it is asked again later."""


@dataclass(slots=True)
class Circuit:
    """Counts failures in a row. Open: nothing is asked for ``open_s``; then one request probes.

    ``on_change`` hears of it when it opens, and when it closes, which is at the first answer too.
    """

    host: str
    failures_allowed: int
    open_s: float
    now: Callable[[], float]
    on_change: Callable[[CircuitState], None] = lambda _: None
    failures: int = 0
    last_error: str = ""
    opened_at: float | None = None
    is_probing: bool = False
    _told: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> None:
        """Raises CircuitOpen while nothing may be asked."""
        with self._lock:
            if self.opened_at is None:
                return
            if self.is_probing or self.now() - self.opened_at < self.open_s:
                raise CircuitOpen(f"{self.host}: circuit open after: {self.last_error}", host=self.host)
            self.is_probing = True

    def succeed(self) -> None:
        with self._lock:
            self.failures, self.opened_at, self.is_probing = 0, None, False
        self._tell()

    def fail(self, error: str) -> None:
        with self._lock:
            self.failures += 1
            self.last_error = error
            if self.is_probing or self.failures >= self.failures_allowed:
                self.opened_at, self.is_probing = self.now(), False
        if self.opened_at is not None:
            self._tell()

    def _tell(self) -> None:
        now = self.state
        with self._lock:
            is_news, self._told = now.state != self._told, now.state
        if is_news:
            self.on_change(now)

    def leave(self) -> None:
        """The request ended without a verdict on the gateway."""
        with self._lock:
            self.is_probing = False

    @property
    def state(self) -> CircuitState:
        with self._lock:
            name = "closed" if self.opened_at is None else "probing" if self.is_probing else "open"
            return CircuitState(self.host, name, self.failures, self.last_error)


class Gateway:
    """Requests to one gateway. Thread-safe; built in the process that uses it."""

    def __init__(
        self,
        url: str,
        limits: Limits | None = None,
        *,
        connections: int = 8,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
        on_circuit: Callable[[CircuitState], None] = lambda _: None,
    ) -> None:
        try:
            named = read_operator_url(url)
        except ValueError as error:
            raise ConfigError(f"gateway URL: {error}; write https://host[:port][/path]") from error
        if "?" in named.target or "#" in url:
            raise ConfigError(f"gateway URL of host {named.origin.authority}: write https://host[:port][/path]")
        self.host = named.origin.authority
        self.limits = limits or Limits()
        self.circuit = Circuit(self.host, self.limits.failures, self.limits.open_s, now, on_circuit)
        self.pace = Pace(now=now, chance=lambda: 0.0)  # repetitions have their own jitter
        self._sleep = sleep
        self._base = replace(named.origin, path=named.target.rstrip("/"))
        self._headers = named.headers
        self._client = BoundedClient(
            allow_nets=EVERYWHERE,
            connect_timeout_s=self.limits.connect_s,
            read_timeout_s=self.limits.read_s,
            floor_after_s=math.inf,
            encodings=(),
            per_port=connections,
            resend=False,
        )

    def __repr__(self) -> str:
        return f"Gateway({self.host})"

    def close(self) -> None:
        self._client.close()

    # --- calls with retries ---

    def get(self, path: str, *, max_bytes: int, accept: tuple[int, ...] = (200,), json: bool = False) -> Answer:
        """GET with retries; the answer's status is one of ``accept``.

        Raises:
            TransientError: no answer, 429, 5xx, or an open circuit.
            RemoteFault: another status, a redirect, an answer that is too long.
        """
        headers = {"accept": "application/json" if json else "text/plain, */*;q=0.5"}
        return self.retry(lambda: self._expect(self.request("GET", path, headers=headers, max_bytes=max_bytes), accept))

    def get_range(self, path: str, start: int, end: int, size: int) -> bytes:
        """Bytes [start, end) of what is known to have ``size`` of them, with retries.

        Raises:
            TransientError: as ``get``, and where it is not there yet.
            RemoteFault: as ``get``; the gateway gives no ranges, or another one than was asked for.
        """
        headers = {"accept": "*/*", "range": f"bytes={start}-{end - 1}"}

        def attempt() -> Answer:
            answer = self.request("GET", path, headers=headers, max_bytes=end - start)
            if answer.status in (202, 404):
                raise TransientError(
                    f"{self.host}: HTTP {answer.status}, not readable yet", host=self.host, gateway_works=True
                )
            return self._expect(answer, (206,))

        answer = self.retry(attempt)
        named = answer.headers.get("content-range", "")
        if named != f"bytes {start}-{end - 1}/{size}" or len(answer.body) != end - start:
            raise RemoteFault(f"{self.host}: another range than was asked for: {named[:60]!r}", host=self.host)
        return answer.body

    def post(
        self, path: str, body: bytes, *, max_bytes: int, accept: tuple[int, ...], has_effect: bool = True
    ) -> Answer:
        """POST of JSON with retries: only for requests that may be repeated.

        Raises:
            UnknownOutcome: sent at least once, and no answer told what became of it.
            TransientError, RemoteFault: as ``get``.
        """
        lost: list[UnknownOutcome] = []

        def attempt() -> Answer:
            try:
                return self._expect(
                    self.request("POST", path, body=body, max_bytes=max_bytes, has_effect=has_effect), accept
                )
            except UnknownOutcome as error:
                lost.append(error)
                raise

        try:
            return self.retry(attempt)
        except TransientError as error:
            if lost:
                raise UnknownOutcome(lost[-1].message, host=self.host) from error
            raise

    def retry(self, attempt: Callable[[], T]) -> T:
        """Repeat on 429, 5xx and lost connections: full jitter, Retry-After honoured, ``call_s`` in all.

        Raises:
            TransientError: as well where another call was asked to leave the gateway alone for long; nothing is asked.
        """
        limits = self.limits
        rest_s = self.pace.rest_s()
        if rest_s > LONGEST_REST_S:
            raise TransientError(
                f"{self.host}: rests for {rest_s:.0f} s after: {self.pace.reason}", host=self.host, retry_after_s=rest_s
            )
        if rest_s > 0:
            self._sleep(rest_s)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.fields.get("retry_after_s", 0.0) if isinstance(error, ValidatorError) else 0.0
            backoff = tenacity.wait_random_exponential(multiplier=limits.first_wait_s, max=limits.longest_wait_s)
            return max(float(asked), float(backoff(state)))

        retrying = tenacity.Retrying(
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(limits.attempts), tenacity.stop_before_delay(limits.call_s)
            ),
            wait=wait,
            retry=tenacity.retry_if_exception(_is_worth_repeating),
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(attempt)

    def _expect(self, answer: Answer, accept: tuple[int, ...]) -> Answer:
        if answer.status not in accept:
            raise RemoteFault(f"{self.host}: HTTP {answer.status}: {answer.text}", host=self.host, status=answer.status)
        return answer

    # --- one request ---

    def request(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        has_effect: bool = False,
    ) -> Answer:
        """One request, whole answer, no retry; any status but redirects, 429 and 5xx is for the caller to judge.

        Raises:
            TransientError: no answer, 429, 5xx, an open circuit. With ``has_effect`` this means: it took none.
            UnknownOutcome: with ``has_effect``, when it was sent and the answer is missing or a 5xx.
            RemoteFault: a redirect, a compressed answer, or one longer than ``max_bytes``.
        """
        with self._open(method, path, max_bytes, body, headers or {}, has_effect, self.limits.request_s) as response:
            return Answer(response.status, response.headers, b"".join(response.chunks))

    def download(self, path: str, file: BinaryIO, max_bytes: int, on_part: Callable[[bytes], None]) -> int:
        """GET into ``file``; the size. Each part is shown to ``on_part``. No retry.

        Raises:
            TransientError: not there (404, 202), broken off, or too slow.
            RemoteFault: longer than ``max_bytes``, or another status.
        """
        with self._open("GET", path, max_bytes, None, {"accept": "*/*"}, False, self.limits.download_s) as response:
            if response.status in (202, 404):
                raise TransientError(
                    f"{self.host}: HTTP {response.status}, not readable yet", host=self.host, gateway_works=True
                )
            if response.status != 200:
                raise RemoteFault(f"{self.host}: HTTP {response.status}", host=self.host)
            size = 0
            for part in response.chunks:
                file.write(part)
                on_part(part)
                size += len(part)
            return size

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        max_bytes: int,
        body: bytes | None,
        headers: dict[str, str],
        has_effect: bool,
        seconds: float,
    ) -> Iterator[OpenAnswer]:
        if body is not None:
            headers = {**headers, "content-type": "application/json"}
        fields = (*self._headers, *headers.items())
        self.circuit.enter()
        try:
            with self._client.stream(
                method, self._base, path, max_bytes=max_bytes, deadline_s=seconds, headers=fields, body=body
            ) as response:
                self._check_head(response, has_effect)
                yield response
            self.circuit.succeed()
            self.pace.answered()
        except ValidatorError as error:
            named = self._note(self._read_error(error, has_effect))
            if named is error:
                raise
            raise named from error
        except BaseException:
            self.circuit.leave()
            raise

    def _read_error(self, error: ValidatorError, has_effect: bool) -> ValidatorError:
        """What the client's error means here; our own are named already."""
        if "host" in error.fields:
            return error
        text = f"{self.host}: {error.fields.get('reason', error.message)}"
        if error.fields.get("answer_lost"):
            return (UnknownOutcome if has_effect else TransientError)(text, host=self.host)
        return (TransientError if isinstance(error, TransientError) else RemoteFault)(text, host=self.host)

    def _note(self, error: ValidatorError) -> ValidatorError:
        """Tell the circuit; a 404 or 429 comes from a gateway that works."""
        if error.fields.get("gateway_works"):
            self.circuit.succeed()
        else:
            self.circuit.fail(error.message)
        return error

    def _check_head(self, response: OpenAnswer, has_effect: bool) -> None:
        status = response.status
        asked_s = min(retry_after_s(response.headers), LONGEST_ASKED_S) if status in (429, 503) else 0.0
        if asked_s or status == 429:
            self.pace.refused(f"HTTP {status}", asked_s)
        if status == 429:
            raise TransientError(f"{self.host}: HTTP 429", host=self.host, retry_after_s=asked_s, gateway_works=True)
        if status >= 500:
            kind = UnknownOutcome if has_effect else TransientError
            raise kind(f"{self.host}: HTTP {status}", host=self.host, status=status, retry_after_s=asked_s)


def _is_worth_repeating(error: BaseException) -> bool:
    return isinstance(error, (TransientError, UnknownOutcome)) and not isinstance(error, CircuitOpen)
