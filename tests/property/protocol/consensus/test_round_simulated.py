"""Whole simulated networks keep every invariant, and planted bugs are caught. ``make simulate`` runs many more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import paths
from tests.simulator.__main__ import main
from tests.simulator.monitor import ADDRESS_BYTES, HELD_BYTES, STATEMENT_BYTES, quorum_bytes
from tests.simulator.mutations import CAUGHT_BY, CAUGHT_BY_TEST, MUTATIONS, Mutation
from tests.simulator.run import message_delays, run_mutated, run_seed, run_seeds
from validator.net.peers.wire import encode_held
from validator.ports.peers import HeldVotes
from validator.protocol.codec.statement import MAX_ROUND, encode_quorum, encode_statement
from validator.protocol.errors import InvariantError
from validator.protocol.model import Address, Digest, InstanceId, InstanceKind, Statement, StatementKind, VoteQuorum

CHUNK = 25
SEEDS = 100
"""Here; the simulator's own stage takes three hundred others, and ``make simulate`` ten thousand."""
ROOT = paths.ROOT


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_mixed_faults_break_no_invariant(first: int) -> None:
    totals = run_seeds(range(first, first + CHUNK))
    assert [(r.seed, r.violations) for r in totals.failed] == []
    assert totals.faults["packets_lost"] > 0
    assert totals.faults["statements_of_liars"] > 0


@pytest.mark.parametrize("validators", range(1, 14))
def test_every_committee_size_decides_over_a_lossy_network(validators: int) -> None:
    totals = run_seeds(range(12), validators, plain=True)
    assert [(r.seed, r.violations) for r in totals.failed] == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_planted_bugs_are_caught(mutation: Mutation) -> None:
    seed = CAUGHT_BY[mutation.name]
    assert run_mutated(mutation, seed).violations != ()
    assert run_seed(seed).violations == ()


def test_planted_bugs_of_other_parts_are_in_the_tests_that_are_named() -> None:
    assert not set(CAUGHT_BY) & set(CAUGHT_BY_TEST)
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *CAUGHT_BY_TEST.values()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("validators", range(3, 14))
def test_where_nothing_goes_wrong_everybody_decides_three_message_delays_after_the_proposal(validators: int) -> None:
    """Its data is at hand with the leader: proposal, prevotes, precommits."""
    assert set(message_delays(validators)) == {3.0}


def test_the_bytes_that_are_counted_are_those_of_the_longest_encodings() -> None:
    digest, member = Digest(b"\xff" * 32), Address(b"\xff" * 20)
    instance = InstanceId(InstanceKind.WINDOW, 1 << 62)
    proposal = Statement(
        StatementKind.PROPOSAL, digest, instance, MAX_ROUND, digest, member, MAX_ROUND - 1, b"\xff" * 65
    )
    assert len(encode_statement(proposal)) == STATEMENT_BYTES
    pairs = tuple((Address(bytes([i]) * 20), b"\xff" * 65) for i in range(67))
    for size in (1, 3, 9, 67):
        quorum = VoteQuorum(StatementKind.PRECOMMIT, digest, instance, MAX_ROUND, digest, pairs[:size])
        assert 0 <= quorum_bytes(quorum) - len(encode_quorum(quorum)) <= 10
    items = tuple((StatementKind.PREVOTE, i, digest, tuple(a for a, _ in pairs[:9])) for i in range(100))
    counted = sum(HELD_BYTES + ADDRESS_BYTES * len(signers) for *_, signers in items)
    assert 0.8 * counted <= len(encode_held(HeldVotes(digest, instance, items))) <= counted


def test_a_seed_replays_exactly() -> None:
    first, second = run_seed(7, trace=True), run_seed(7, trace=True)
    assert first == second
    assert first.trace


def test_a_core_that_raises_is_a_failing_seed_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise InvariantError("a second prevote in round 0")

    monkeypatch.setattr("validator.protocol.consensus.driver.advance", raises)
    result = run_seed(0, trace=True)
    assert result.violations == ("error: InvariantError('a second prevote in round 0')",)
    assert "Traceback" in result.trace[-1]


def test_message_delays_are_printed_by_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--delays", "--validators", "4"]) == 0
    assert capsys.readouterr().out == " 4 validators: 3 to 3 message delays from proposal to decision\n"


def test_a_failing_seed_ends_with_its_trace_and_how_to_replay_it(capsys: pytest.CaptureFixture[str]) -> None:
    mutation = next(m for m in MUTATIONS if m.name == "nil-certificate")
    with mutation.applied():
        status = main(["--seeds", "1", "--first", str(CAUGHT_BY[mutation.name])])
    printed = capsys.readouterr().out
    assert status == 1
    assert "timers" in printed
    assert f"--first {CAUGHT_BY[mutation.name]} --seeds 1 --trace" in printed
