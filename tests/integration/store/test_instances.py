"""Votes, instances and evidence: persist, then speak."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import a_key
from tests.integration.store.worker import CONFIG, CONTEXT, INSTANCE
from validator.ports.states import BundleState
from validator.ports.store import StaleState
from validator.ports.stored import InstanceChange, StoredBundle, StoredInstance
from validator.protocol.codec.outcome import body_digest, encode_observation, encode_outcome, entries_root
from validator.protocol.codec.statement import sign_statement
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import EMPTY_ROOT, hash_body
from validator.protocol.model import (
    Digest,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    Statement,
    StatementKind,
    VoteQuorum,
)
from validator.store import statements
from validator.store.facade import SqlStore
from validator.store.statements import DoubleVote

V, W = hash_body(b"v"), hash_body(b"w")


def a_statement(
    kind: StatementKind = StatementKind.PREVOTE,
    value: Digest = V,
    round_: int = 0,
    member: int = 1,
    instance: InstanceId = INSTANCE,
    **fields: Any,
) -> Statement:
    key = a_key(member)
    return sign_statement(Statement(kind, CONFIG, instance, round_, value, key.address, **fields), key, CONTEXT)


def a_quorum(kind: StatementKind = StatementKind.PRECOMMIT, value: Digest = V, round_: int = 0) -> VoteQuorum:
    votes = [a_statement(kind, value, round_, member) for member in (1, 2, 3)]
    signatures = tuple(sorted((vote.signer, vote.signature) for vote in votes))
    return VoteQuorum(kind, CONFIG, INSTANCE, round_, value, signatures)


def opened(store: SqlStore) -> StoredInstance:
    store.instances.create_instance(INSTANCE, CONFIG, 5)
    return loaded(store)


def loaded(store: SqlStore, instance: InstanceId = INSTANCE) -> StoredInstance:
    stored = store.instances.load_instance(instance)
    assert stored is not None
    return stored


def save(
    store: SqlStore,
    stored: StoredInstance,
    progress: bytes = b"p",
    wake_ms: int | None = None,
    now_ms: int = 6,
    **fields: Any,
) -> None:
    store.instances.save_instance(stored, InstanceChange(progress, wake_ms, **fields), now_ms)


def test_state_and_vote_are_saved_together_and_come_back(store: SqlStore) -> None:
    stored = opened(store)
    vote, quorum = a_statement(), a_quorum(StatementKind.PREVOTE)
    save(store, stored, progress=b"state", said=[vote], quorums=[quorum], wake_ms=77, step="prevote")
    again = loaded(store)
    assert (again.progress, again.own, again.statements, again.quorums) == (b"state", (vote,), (vote,), (quorum,))
    assert (again.version, again.wake_ms, again.opened_ms) == (1, 77, 5)
    assert store.instances.create_instance(INSTANCE, CONFIG, 9) is False


def test_a_worker_with_an_older_state_is_refused_even_where_the_key_is_free(store: SqlStore) -> None:
    stale = opened(store)
    save(store, stale, said=[a_statement(StatementKind.PRECOMMIT, V, 0)])
    with pytest.raises(StaleState):
        save(store, stale, progress=b"other", said=[a_statement(StatementKind.PREVOTE, W, 1)])
    assert [s.round for s in loaded(store).own] == [0]
    assert loaded(store).progress == b"p"


def test_a_second_different_vote_is_impossible_and_nothing_of_it_is_kept(store: SqlStore) -> None:
    save(store, opened(store), said=[a_statement(value=V)])
    with pytest.raises(DoubleVote, match="holds another prevote"):
        save(store, loaded(store), progress=b"q", said=[a_statement(value=W)])
    assert (loaded(store).version, loaded(store).progress) == (1, b"p")
    assert loaded(store).own == (a_statement(value=V),)


def test_a_proposal_with_another_valid_round_is_another_vote(store: SqlStore) -> None:
    save(store, opened(store), said=[a_statement(StatementKind.PROPOSAL, V, 2, valid_round=0)])
    with pytest.raises(DoubleVote):
        save(store, loaded(store), said=[a_statement(StatementKind.PROPOSAL, V, 2, valid_round=1)])


def test_no_vote_for_a_round_below_the_highest_journaled_one(store: SqlStore) -> None:
    save(store, opened(store), said=[a_statement(round_=3)])
    with pytest.raises(DoubleVote, match="has reached round 3"):
        save(store, loaded(store), said=[a_statement(StatementKind.PRECOMMIT, round_=2)])
    assert [s.round for s in loaded(store).own] == [3]


def test_saying_the_same_again_is_harmless_and_keeps_the_first_signature(store: SqlStore) -> None:
    vote = a_statement()
    save(store, opened(store), said=[vote])
    other = Statement(vote.kind, CONFIG, INSTANCE, 0, V, vote.signer, signature=bytes(65))
    save(store, loaded(store), said=[other])
    assert loaded(store).own == (vote,)


def test_an_unsigned_or_foreign_vote_is_never_journaled(store: SqlStore) -> None:
    stored = opened(store)
    with pytest.raises(InvariantError, match="signed"):
        save(store, stored, said=[Statement(StatementKind.PREVOTE, CONFIG, INSTANCE, 0, V, a_key().address)])
    with pytest.raises(InvariantError, match="does not belong"):
        save(store, stored, said=[a_statement(instance=InstanceId(InstanceKind.LATE, INSTANCE.number))])
    assert loaded(store).version == 0


def test_a_window_and_a_late_set_of_one_number_do_not_share_a_key(store: SqlStore) -> None:
    late = InstanceId(InstanceKind.LATE, INSTANCE.number)
    store.instances.create_instance(late, CONFIG, 5)
    save(store, opened(store), said=[a_statement(value=V)])
    save(store, loaded(store, late), said=[a_statement(value=W, instance=late)])
    assert [s.value for s in loaded(store).own] == [V]
    assert [s.value for s in loaded(store, late).own] == [W]


def test_a_decision_stays_and_another_one_is_an_alarm(store: SqlStore) -> None:
    save(store, opened(store), certificate=a_quorum(round_=2))
    save(store, loaded(store), certificate=None)
    save(store, loaded(store), certificate=a_quorum(round_=4))
    assert store.instances.load_certificate(INSTANCE) == a_quorum(round_=2)
    assert loaded(store).certificate == a_quorum(round_=2)
    with pytest.raises(InvariantError, match="was decided"):
        save(store, loaded(store), certificate=a_quorum(value=W))


def test_the_wake_time_of_a_round_is_due(store: SqlStore) -> None:
    save(store, opened(store), wake_ms=50)
    assert store.due.claim(49, 10, 100) == []
    assert store.due.claim(50, 10, 100) == [("round.advance", str(INSTANCE))]
    save(store, loaded(store), wake_ms=None)
    assert store.due.claim(10_000, 10, 100) == []


def test_what_follows_a_decision_stays_due_until_it_is_done(store: SqlStore) -> None:
    save(store, opened(store), certificate=a_quorum(), wake_ms=None, now_ms=70)
    assert store.due.claim(70, 10, 5) == [("round.advance", str(INSTANCE))]
    assert store.due.claim(75, 10, 5) == [("round.advance", str(INSTANCE))]
    store.due.done("round.advance", str(INSTANCE))
    assert store.due.claim(1_000, 10, 5) == []


def test_statements_are_news_once_even_before_the_instance_is_open(store: SqlStore) -> None:
    votes = [a_statement(member=member) for member in (1, 2, 3)]
    assert store.instances.save_statements(votes) == 3
    assert store.instances.save_statements([*votes, a_statement(member=4)]) == 1
    assert set(opened(store).statements) == {*votes, a_statement(member=4)}


def test_of_one_signer_round_and_kind_two_different_statements_are_kept(store: SqlStore) -> None:
    three = [a_statement(value=hash_body(b"%d" % n)) for n in range(3)]
    assert store.instances.save_statements(three) == 2
    assert opened(store).statements == tuple(three[:2])


def test_a_third_statement_is_dropped_by_name_and_the_first_two_stay_known(store: SqlStore) -> None:
    opened(store)
    three = [a_statement(value=hash_body(b"%d" % n)) for n in range(3)]
    taken = store.instances.accept(three, {}, [])
    assert (taken.kept, taken.dropped, taken.enqueue) == (tuple(three[:2]), {"two kept already": 1}, (INSTANCE,))
    again = store.instances.accept(three, {}, [])
    assert (again.kept, again.dropped, again.enqueue) == (tuple(three[:2]), {"two kept already": 1}, ())


def test_a_flood_of_rounds_is_bounded_and_costs_its_sender_only(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "MAX_PER_SIGNER", 10)
    first = a_statement(StatementKind.OBSERVATION, member=2)
    store.instances.save_statements([first, a_statement(member=1)])
    for start in range(0, 40, 8):
        store.instances.save_statements([a_statement(round_=n, member=2) for n in range(start, start + 8)])
    kept = opened(store).statements
    assert [s.round for s in kept if s.signer == a_key(2).address and s.kind is StatementKind.PREVOTE] == list(
        range(30, 40)
    )
    assert first in kept
    assert a_statement(member=1) in kept


def test_evidence_is_kept_once_per_place_and_only_if_it_is_one(store: SqlStore) -> None:
    a, b, c = (a_statement(value=hash_body(x), member=4) for x in (b"a", b"b", b"c"))
    save(store, opened(store), evidence=[(a, b), (b, a), (a, c)])
    with store.database.read() as connection:
        (held,) = statements.load_evidence(connection)
    assert {held.first, held.second} == {a, b}
    with pytest.raises(InvariantError):
        save(store, loaded(store), evidence=[(a, a_statement(value=V, member=3))])
    with pytest.raises(InvariantError):
        save(store, loaded(store), evidence=[(a, Statement(a.kind, CONFIG, INSTANCE, 0, a.value, a.signer))])


def test_one_advance_is_queued_at_a_time(store: SqlStore) -> None:
    assert store.instances.mark_queued(INSTANCE) is False  # not open here: nothing to advance
    opened(store)
    assert store.instances.mark_queued(INSTANCE) is True
    assert store.instances.mark_queued(INSTANCE) is False
    save(store, loaded(store))
    assert store.instances.mark_queued(INSTANCE) is False  # saving neither sets nor heeds the flag
    store.instances.clear_queued(INSTANCE)
    assert store.instances.mark_queued(INSTANCE) is True


def test_undecided_instances_come_oldest_first_late_sets_by_their_bundle(store: SqlStore) -> None:
    store.bundles.create_bundle(StoredBundle(7, CONFIG, 0, 1_000, 3_000, 4_000, BundleState.OPEN))
    windows = [InstanceId(InstanceKind.WINDOW, start) for start in (5_000, 1_000, 9_000)]
    late = InstanceId(InstanceKind.LATE, 7)
    for instance in (*windows, late):
        store.instances.create_instance(instance, CONFIG, 1)
    assert store.instances.untouched(10) == [windows[1], late, windows[0], windows[2]]
    assert store.instances.untouched(1) == [windows[1]]
    stored = loaded(store, windows[1])
    save(store, stored, certificate=a_quorum())
    assert store.instances.untouched(1) == [late]


def test_a_raised_config_count_opens_the_instance_anew(store: SqlStore) -> None:
    save(store, opened(store), said=[a_statement()])
    other = hash_body(b"config 2")
    assert store.instances.create_instance(INSTANCE, other, 50) is True
    stored = loaded(store)
    assert (stored.config_digest, stored.own, stored.version) == (other, (), 0)


def test_bodies_are_kept_under_their_digest(store: SqlStore) -> None:
    observation = encode_observation(Observation(INSTANCE, EMPTY_ROOT, 0, 0, price=1 << 90))
    outcome = encode_outcome(Outcome(INSTANCE, 5, V, (), entries_root(()), 0, (), (W,)))
    for body in (observation, outcome, outcome):
        assert store.instances.save_body(body) == body_digest(body)
    assert store.instances.load_body(body_digest(outcome)) == outcome
    assert store.instances.load_body(V) is None
    for bad in (b"", b"\x83\x61a\x01\x02", b"\x01", encode_observation.__name__.encode()):
        with pytest.raises(MalformedInput):
            store.instances.save_body(bad)
