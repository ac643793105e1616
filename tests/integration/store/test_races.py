"""Real processes on one database: nothing is lost, nothing is said twice, whatever is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests import paths
from tests.integration.store.worker import CONFIG, INSTANCE
from validator.store.facade import SqlStore

ROOT = paths.ROOT


@contextmanager
def a_worker(job: str, url: str, number: int, rounds: int) -> Iterator[subprocess.Popen[str]]:
    """A worker that has connected and waits for the word."""
    words = [sys.executable, "-m", "tests.integration.store.worker", job, url, str(number), str(rounds)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def start(children: list[subprocess.Popen[str]]) -> None:
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


def run_workers(job: str, url: str, count: int, rounds: int) -> list[list[str]]:
    """What each of ``count`` workers printed."""
    with ExitStack() as stack:
        children = [stack.enter_context(a_worker(job, url, n, rounds)) for n in range(count)]
        start(children)
        said = [child.communicate(timeout=90)[0].splitlines() for child in children]
        assert [child.returncode for child in children] == [0] * count, said
        return said


def test_four_processes_that_read_decide_and_write_lose_no_update(store: SqlStore, url: str) -> None:
    store.instances.create_instance(INSTANCE, CONFIG, 0)
    run_workers("count_up", url, 4, 25)
    stored = store.instances.load_instance(INSTANCE)
    assert stored is not None
    assert int.from_bytes(stored.progress or b"", "big") == 100
    assert stored.version == 100


def test_racing_workers_never_let_two_votes_be_heard(store: SqlStore, url: str) -> None:
    store.instances.create_instance(INSTANCE, CONFIG, 0)
    heard: dict[str, set[str]] = {}
    for lines in run_workers("vote", url, 3, 15):
        for line in lines:
            round_, rest = line.split(" ", 1)
            heard.setdefault(round_, set()).add(rest)
    assert len(heard) == 15
    assert all(len(votes) == 1 for votes in heard.values())  # value and signature: nothing is signed twice


def test_two_that_claim_at_once_share_the_rows(store: SqlStore, url: str) -> None:
    for number in range(60):
        store.due.postpone("round.advance", f"window:{number}", number)
    claimed = [key for lines in run_workers("claim", url, 3, 7) for key in lines]
    assert sorted(claimed) == sorted(f"window:{number}" for number in range(60))


@pytest.mark.parametrize("after", [1, 7, 20])
def test_a_vote_that_was_heard_is_in_the_journal_after_sigkill(store: SqlStore, url: str, after: int) -> None:
    store.instances.create_instance(INSTANCE, CONFIG, 0)
    heard: list[str] = []
    for number in range(2):
        with a_worker("vote_for_ever", url, number, 0) as child:
            start([child])
            assert child.stdout is not None
            heard += [child.stdout.readline().strip() for _ in range(after)]
            child.kill()
            heard += [line.strip() for line in child.stdout if line.endswith("\n")]
    stored = store.instances.load_instance(INSTANCE)
    assert stored is not None
    journal = {f"{s.round} {s.value.hex()} {s.signature.hex()}" for s in stored.own}
    assert set(heard) <= journal
    assert len(journal) == len({s.round for s in stored.own})
    assert stored.progress == b"%d" % max(s.round for s in stored.own)  # the vote and its state are one write
    assert stored.version == len(journal)
