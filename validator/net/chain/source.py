"""One JSON-RPC node as a source: asked in threads of its own, and never for more at a time than it takes.

A source's limits are learned, whatever its words (``net.http.pacing``):

- What was answered stays answered. Of a batch only what was refused is asked again; answers about a block that is named
  by its hash outlive a call that ran out of time, so the next one goes on where it ended.
- What fails in a batch is asked again alone, and so a limit of batches is told from a fault of the request. If the
  lone one is answered, batches get smaller; if it fails in the same words, so have the others.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from validator.net.chain.jsonrpc import Failed, JsonRpc, Request
from validator.net.http.pacing import Allowance, Pace

MAX_UNDER_WAY = 16
MAX_KEPT_BYTES = 32 << 20
"""Answers per source that wait for the rest of their call."""
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|[0-9]+")


@dataclass(slots=True)
class SourceHealth:
    """What is known of one source since start."""

    host: str
    answered: int = 0
    failed: int = 0
    outvoted: int = 0
    last_error: str = ""


class Source:
    """One JSON-RPC node."""

    def __init__(self, url: str, *, deadline_s: float, max_body_bytes: int, batch_limit: int) -> None:
        """Raises ConfigError unless ``url`` is an http or https URL with a host."""
        self.node = JsonRpc(
            url, self._note, deadline_s=deadline_s, max_body_bytes=max_body_bytes, connections=MAX_UNDER_WAY
        )
        self.host = self.node.host
        self.health = SourceHealth(self.host)
        self.pace = Pace()
        self.kept = _Kept()
        self._deadline_s = deadline_s
        self._allowance = Allowance(batch_limit)
        self._suspect = 0
        """A batch of this size failed, and it is not known yet whether for its size."""
        self._refusals = 0
        self._under_way = threading.BoundedSemaphore(MAX_UNDER_WAY)

    def close(self) -> None:
        self.node.close()

    def _note(self, reason: str) -> None:
        self.health.last_error = reason

    def resting(self) -> Failed:
        """What it counts as while it rests for longer than a call."""
        return Failed(f"rests for {self.pace.rest_s():.0f} s after: {self.pace.reason}", busy=True)

    def start(
        self, requests: Sequence[Request[Any]], answer: Callable[[Source, list[Any]], None], over: threading.Event
    ) -> None:
        """Ask in a thread of its own; ``answer`` gets one parsed value, Reverted or Failed per request.

        Once ``over`` is set, nothing more is asked.
        """
        if not self._under_way.acquire(blocking=False):
            answer(self, [self.node.fail("too many calls hang")] * len(requests))
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


class _Kept:
    """Answers of calls that did not come to their end, for the next one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, str] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._kept)

    def recall(self, request: Request[Any]) -> str | None:
        """The result that an earlier call kept."""
        key = _pinned(request)
        with self._lock:
            return self._kept.get(key) if key is not None else None

    def forget(self, requests: Sequence[Request[Any]]) -> None:
        """A call has come to its end: nobody waits for what was kept of it."""
        if not self._kept:
            return
        with self._lock:
            for key in map(_pinned, requests):
                result = self._kept.pop(key, None) if key is not None else None
                if key is not None and result is not None:
                    self._bytes -= len(key) + len(result)

    def keep(self, request: Request[Any], result: Any) -> None:
        """Keep an answer that can never change: a text about a block that is named by its hash."""
        key = _pinned(request)
        if key is None or not isinstance(result, str):
            return
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = result
            self._bytes += len(key) + len(result)
            while self._bytes > MAX_KEPT_BYTES:
                old, value = self._kept.popitem(last=False)
                self._bytes -= len(old) + len(value)


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
        for number, request in enumerate(self._requests if self._source.kept else ()):
            result = self._source.kept.recall(request)
            kept = None if result is None else self._source.node.read(request, {"result": result})
            if result is not None and not isinstance(kept, Failed):
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
                self._source.kept.keep(self._requests[number], raw)
        else:
            self._source.kept.forget(self._requests)
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
                return self._source.resting() if rest_s > 0 else Failed("timed out")
            self._over.wait(min(rest_s * (1 + random.random() / 5), left_s))

    def _try(self, numbers: Sequence[int]) -> Failed | None:
        """Ask for these in one body. Failed: there is no use in asking for anything more."""
        said = self._source.node.post([self._requests[n] for n in numbers], self._until)
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


def _pinned(request: Request[Any]) -> bytes | None:
    """Key of a request whose answer can never change, since it names its block by hash; else None."""
    if not any(isinstance(param, dict) and "blockHash" in param for param in request.params):
        return None
    return msgspec.json.encode((request.method, request.params))
