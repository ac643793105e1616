"""A worker process for the store's tests: ``python -m tests.integration.store.worker JOB URL NUMBER ROUNDS``.

Prints "ready", waits for a line on standard input, then works and prints what it did, one line each, flushed.
"""

from __future__ import annotations

import sys
import tempfile

from tests.builders import a_key
from validator.ports.store import StaleState
from validator.ports.stored import InstanceChange, StoredInstance
from validator.protocol.codec.statement import SigningContext, sign_statement
from validator.protocol.errors import TransientError
from validator.protocol.hashing import hash_body
from validator.protocol.model import Address, Digest, InstanceId, InstanceKind, Statement, StatementKind
from validator.store.database import open_database
from validator.store.facade import SqlStore
from validator.store.segments import SegmentStore

INSTANCE = InstanceId(InstanceKind.WINDOW, 1_700_000_000_000)
CONFIG = hash_body(b"config")
CONTEXT = SigningContext(31337, Address(bytes(20)))


class StillClock:
    def now_ms(self) -> int:
        return 1_700_000_100_000


def a_vote(round_: int, value: Digest, kind: StatementKind = StatementKind.PREVOTE) -> Statement:
    """A vote of the validator whose processes all these workers are."""
    key = a_key()
    return sign_statement(Statement(kind, CONFIG, INSTANCE, round_, value, key.address), key, CONTEXT)


def save(store: SqlStore, stored: StoredInstance, progress: bytes, said: list[Statement]) -> None:
    store.instances.save_instance(stored, InstanceChange(progress, None, said=said), 1_700_000_100_000)


def count_up(store: SqlStore, _number: int, rounds: int) -> None:
    """Read a number, add one, write it back; again where another worker was first."""
    done = 0
    while done < rounds:
        stored = store.instances.load_instance(INSTANCE)
        assert stored is not None
        value = int.from_bytes(stored.progress or b"", "big") + 1
        try:
            save(store, stored, value.to_bytes(8, "big"), [])
        except StaleState:
            continue
        done += 1
    say(f"counted {done}")


def vote(store: SqlStore, number: int, rounds: int) -> None:
    """Prevote a value of its own in every round, unless this validator has voted there; print what may be heard."""
    for round_ in range(rounds):
        while True:
            stored = store.instances.load_instance(INSTANCE)
            assert stored is not None
            earlier = [s for s in stored.own if s.round == round_]
            mine = earlier[0] if earlier else a_vote(round_, hash_body(b"%d" % number))
            if stored.own and stored.own[-1].round > round_:
                break  # the other one is ahead: no vote for a lower round
            try:
                save(store, stored, b"%d" % round_, [mine])
            except StaleState:
                continue
            say(f"{round_} {mine.value.hex()} {mine.signature.hex()}")
            break


def vote_for_ever(store: SqlStore, number: int, _rounds: int) -> None:
    """Go on from the journal's highest round until killed."""
    while True:
        stored = store.instances.load_instance(INSTANCE)
        assert stored is not None
        round_ = max((s.round for s in stored.own), default=-1) + 1
        mine = a_vote(round_, hash_body(b"%d %d" % (number, round_)))
        save(store, stored, b"%d" % round_, [mine])
        say(f"{round_} {mine.value.hex()} {mine.signature.hex()}")


def claim(store: SqlStore, _number: int, rounds: int) -> None:
    """Claim due rows, a few at a time, until none is left."""
    while claimed := store.due.claim(1_000, rounds, 1_000_000):
        for _task, key in claimed:
            say(key)


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    job, url, number, rounds = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        store = SqlStore(open_database(url), SegmentStore(folder), StillClock())
        say("ready")
        sys.stdin.readline()
        try:
            JOBS[job](store, int(number), int(rounds))
        except TransientError as error:
            say(f"failed {error}")
            raise


JOBS = {"count_up": count_up, "vote": vote, "vote_for_ever": vote_for_ever, "claim": claim}

if __name__ == "__main__":
    main()
