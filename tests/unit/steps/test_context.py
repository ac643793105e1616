"""Asking peers: nobody waits for the silent, nobody is asked twice at once, and no answer is thrown away."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from validator.protocol.errors import TransientError, ValidatorError
from validator.protocol.model import Address
from validator.steps.context import MAX_OWED, MAX_SESSIONS, SESSION_MS, Context

QUICK, SLOW = Address(b"\x01" * 20), Address(b"\x02" * 20)


def a_context(askers: ThreadPoolExecutor) -> Context:
    nothing = cast(Any, None)
    ports = dict.fromkeys(
        ("network", "clock", "store", "tasks", "chain", "source", "peers", "storage", "sender", "voting_key"), nothing
    )
    return Context(**ports, data_dir=Path("/nowhere"), askers=askers)


def test_a_slow_answer_comes_with_a_later_call_and_the_slow_one_is_asked_once() -> None:
    released = threading.Event()
    calls: Counter[Address] = Counter()

    def ask(member: Address) -> str:
        calls[member] += 1
        if member == SLOW:
            released.wait(20)
        return f"{calls[member]}. answer"

    with ThreadPoolExecutor(4) as askers:
        context = a_context(askers)
        assert context.gather("compare window:1", ask, [QUICK, SLOW]) == [(QUICK, "1. answer")]
        assert context.gather("compare window:1", ask, [QUICK, SLOW]) == [(QUICK, "2. answer")]
        released.set()
        context.asked["compare window:1", SLOW].result(20)
        assert context.gather("compare window:1", ask, [QUICK, SLOW]) == [(QUICK, "3. answer"), (SLOW, "1. answer")]
    assert calls == {QUICK: 3, SLOW: 1}
    assert context.asked == {}


def test_a_failure_is_an_answer_and_subjects_do_not_mix() -> None:
    def ask(member: Address) -> str:
        raise TransientError("refused")

    with ThreadPoolExecutor(4) as askers:
        context = a_context(askers)
        for subject in ("compare window:1", "recall window:1"):
            [(member, answer)] = context.gather(subject, ask, [QUICK])
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
        context = a_context(askers)
        for number in range(MAX_OWED + 3):
            assert context.gather(f"compare window:{number}", ask, [QUICK, SLOW]) == [(QUICK, "answer")]
        released.set()
    assert calls == {QUICK: MAX_OWED + 3, SLOW: MAX_OWED}


class HandClock:
    """The port ``Clock``, moved by hand."""

    def __init__(self) -> None:
        self.at_ms = 1_000_000

    def now_ms(self) -> int:
        return self.at_ms


def test_one_member_holds_few_threads_however_slowly_it_answers() -> None:
    with ThreadPoolExecutor(1) as askers:
        context = a_context(askers)
    context.clock = clock = HandClock()
    with ExitStack() as stack:
        expired = [stack.enter_context(context.session_with(SLOW)) for _ in range(MAX_SESSIONS)]
        with pytest.raises(TransientError, match="under way"), context.session_with(SLOW):
            pass
        with context.session_with(QUICK):
            pass
        assert not any(up() for up in expired)
        clock.at_ms += SESSION_MS + 1
        assert all(up() for up in expired)
        clock.at_ms -= 2 * SESSION_MS  # put back: its time is up too, or nobody would ever know
        assert all(up() for up in expired)
    with context.session_with(SLOW):
        pass
