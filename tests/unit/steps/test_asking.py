"""Asking peers: nobody waits for the silent, nobody is asked twice at once, and no answer is thrown away."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from validator.protocol.errors import TransientError, ValidatorError
from validator.protocol.model import Address, Digest, InstanceId, InstanceKind
from validator.steps.asking import FETCH_AGAIN_MS, MAX_OWED, MAX_SESSIONS, SESSION_MS, Asking, Fetch, Wanted

QUICK, SLOW = Address(b"\x01" * 20), Address(b"\x02" * 20)


class HandClock:
    """The port ``Clock``, moved by hand."""

    def __init__(self) -> None:
        self.at_ms = 1_000_000

    def now_ms(self) -> int:
        return self.at_ms


class Queue:
    """The port ``Tasks``, written down."""

    def __init__(self) -> None:
        self.queued: list[tuple[str, str]] = []

    def enqueue(self, task: str, key: str, eta_ms: int | None = None) -> None:
        self.queued.append((task, key))


class Askers(ThreadPoolExecutor):
    """Threads whose futures can be waited for."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.futures: list[Future[Any]] = []

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self.futures.append(super().submit(call, *arguments, **named))
        return self.futures[-1]


def test_a_slow_answer_comes_with_a_later_call_and_the_slow_one_is_asked_once() -> None:
    released = threading.Event()
    calls: Counter[Address] = Counter()

    def ask(member: Address) -> str:
        calls[member] += 1
        if member == SLOW:
            released.wait(20)
        return f"{calls[member]}. answer"

    with Askers(4) as askers:
        asking = Asking(HandClock(), Queue(), askers=askers)
        assert asking.gather("compare window:1", ask, [QUICK, SLOW]) == [(QUICK, "1. answer")]
        assert asking.gather("compare window:1", ask, [QUICK, SLOW]) == [(QUICK, "2. answer")]
        released.set()
        for asked in askers.futures:
            asked.result(20)
        assert asking.gather("compare window:1", ask, [QUICK, SLOW]) == [
            (QUICK, "3. answer"),
            (SLOW, "1. answer"),
        ]
    assert calls == {QUICK: 3, SLOW: 1}
    assert asking.owed() == []


def test_a_failure_is_an_answer_and_subjects_do_not_mix() -> None:
    def ask(member: Address) -> str:
        raise TransientError("refused")

    with ThreadPoolExecutor(4) as askers:
        asking = Asking(HandClock(), Queue(), askers=askers)
        for subject in ("compare window:1", "recall window:1"):
            [(member, answer)] = asking.gather(subject, ask, [QUICK])
            assert member == QUICK
            assert isinstance(answer, ValidatorError)
            assert str(answer) == "refused"


def test_a_member_that_hangs_takes_no_more_than_a_few_threads() -> None:
    released = threading.Event()
    calls: Counter[Address] = Counter()

    def ask(member: Address) -> str:
        calls[member] += 1
        if member == SLOW:
            released.wait(20)
        return "answer"

    with ThreadPoolExecutor(MAX_OWED + 1) as askers:
        asking = Asking(HandClock(), Queue(), askers=askers)
        for number in range(MAX_OWED + 3):
            assert asking.gather(f"compare window:{number}", ask, [QUICK, SLOW]) == [(QUICK, "answer")]
        released.set()
    assert calls == {QUICK: MAX_OWED + 3, SLOW: MAX_OWED}


def test_one_member_holds_few_threads_however_slowly_it_answers() -> None:
    clock = HandClock()
    asking = Asking(clock, Queue())
    with ExitStack() as stack:
        expired = [stack.enter_context(asking.session_with(SLOW)) for _ in range(MAX_SESSIONS)]
        with pytest.raises(TransientError, match="under way"), asking.session_with(SLOW):
            pass
        with asking.session_with(QUICK):
            pass
        assert not any(up() for up in expired)
        clock.at_ms += SESSION_MS + 1
        assert all(up() for up in expired)
        clock.at_ms -= 2 * SESSION_MS  # put back: its time is up too, or nobody would ever know
        assert all(up() for up in expired)
    with asking.session_with(SLOW):
        pass


def test_what_is_to_be_fetched_is_queued_once_a_second_from_the_same_sources() -> None:
    clock, queue = HandClock(), Queue()
    asking = Asking(clock, queue)
    instance, digest = InstanceId(InstanceKind.WINDOW, 1), Digest(b"\x07" * 32)
    for sources in ([QUICK], [QUICK], [QUICK, SLOW]):
        asking.fetch_soon(instance, Wanted.SET, digest, sources)
    first = ("round.obtain", f"window:1/set/{digest.hex()}/{QUICK.hex()}")
    assert queue.queued == [first, ("round.obtain", f"{first[1]},{SLOW.hex()}")]
    clock.at_ms += FETCH_AGAIN_MS
    asking.fetch_soon(instance, Wanted.SET, digest, [QUICK])
    assert queue.queued[2:] == [first]


def test_a_call_in_the_background_that_fails_takes_nothing_with_it() -> None:
    def fail() -> None:
        raise TransientError("refused")

    done = threading.Event()
    asking = Asking(HandClock(), Queue())
    asking.in_background(fail)
    asking.in_background(done.set)
    assert done.wait(20)


@pytest.mark.parametrize("sources", [(), (QUICK,), (QUICK, SLOW)])
@pytest.mark.parametrize("what", Wanted)
def test_what_is_to_be_fetched_is_read_from_its_key(what: Wanted, sources: tuple[Address, ...]) -> None:
    fetch = Fetch(InstanceId(InstanceKind.LATE, 3), what, b"\x07" * 32, sources)
    assert Fetch.parse(str(fetch)) == fetch
