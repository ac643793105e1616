"""Several JSON-RPC 2.0 sources asked as one, their answers compared.

Every call has one total deadline: each source is asked in a thread of its own (``source``), which is left behind when
it hangs, over bounded HTTP (``jsonrpc``). A source that asks for less (429, Retry-After, "rate limit") rests, longer
each time. Who rests is not asked while others can answer; a call waits for it only within its own deadline.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from validator.net.chain.jsonrpc import Failed, Request, Reverted
from validator.net.chain.source import Source, SourceHealth
from validator.protocol.errors import ConfigError, TransientError

MAX_BODY_BYTES = 32 << 20
BATCH_LIMIT = 50
"""Requests per HTTP body at first; many public nodes take 3 to 20, which is learned."""
DEADLINE_S = 15.0
PATIENCE_S = 0.5
"""How long slower sources are waited for where an answer is there, and theirs would only make it better."""

T = TypeVar("T")


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

    def every(self, requests: Sequence[Request[Any]]) -> dict[str, list[Any]]:
        """Answers by host, nothing compared; slow sources are waited for until the deadline."""
        return {source.host: answers for source, answers in self._gather(requests)}

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
                    yield source, [source.resting()] * len(requests)
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
