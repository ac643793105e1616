"""Planted bugs: each a change of the core or of the shell, with the seed that catches it (``CAUGHT_BY``).

Those of adapters, bundles and reports are planted in tests of their own (``CAUGHT_BY_TEST``).
A mutation of the core replaces one function of ``validator.protocol.consensus`` while it is applied; one of the shell
is a switch of ``node.Switches``. Production code knows nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from msgspec.structs import replace as change

from tests.simulator import content
from tests.simulator.node import Switches
from validator.protocol import quorum
from validator.protocol.codec import certificate
from validator.protocol.consensus import driver, proposal, state, views, votes
from validator.protocol.consensus import round as machine
from validator.protocol.consensus.proposal import Answer
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
    NIL,
    Address,
    Digest,
    Flag,
    InstanceKind,
    Observation,
    Outcome,
    Statement,
    StatementKind,
    VoteQuorum,
)

PREVOTE, PRECOMMIT, PROPOSAL = StatementKind.PREVOTE, StatementKind.PRECOMMIT, StatementKind.PROPOSAL
Patch = tuple[Any, str, Any]
Turn = machine.Transitions


@dataclass(frozen=True, slots=True)
class Mutation:
    """One planted bug. ``patches``: (object, attribute, replacement)."""

    name: str
    what: str
    patches: tuple[Patch, ...] = ()
    switches: Callable[[], Switches] = Switches

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The core with the bug in it."""
        with ExitStack() as stack:
            for target, name, value in self.patches:
                stack.enter_context(mock.patch.object(target, name, value))
            yield


# --- quorums and certificates ---------------------------------------------------------------------


def _one_less(n: int) -> int:
    return max(1, n - (n - 1) // 3 - 1)


_rules_of = state.Rules.of.__func__  # type: ignore[attr-defined]


def _skip_with_f(cls: Any, *args: Any) -> state.Rules:
    rules: state.Rules = _rules_of(cls, *args)
    return replace(rules, one_honest=max(1, rules.one_honest - 1))


def _check_signers_twice(votes: VoteQuorum, config_digest: Digest, instance: Any, committee: Any) -> None:
    distinct: dict[Any, bytes] = {}
    for signer, signature in votes.signatures:
        distinct.setdefault(signer, signature)
    missing = quorum.quorum(len(committee)) - len(votes.signatures)
    if missing > 0 or votes.value == NIL or votes.instance != instance or votes.config_digest != config_digest:
        raise MalformedInput("quorum", "too few")


def _count_signers_twice(self: votes.Votes, kind: StatementKind, round: int, value: Digest) -> int:
    return sum(1 for kept in self.of(kind, round).values() for s in kept if s.value == value) + sum(
        1 for kept in self.of(kind, round).values() if len(kept) == 2 and any(s.value == value for s in kept)
    )


_count = votes.Votes.count


def _count_mixed(self: votes.Votes, kind: StatementKind, round: int, value: Digest) -> int:
    if kind != PRECOMMIT:
        return _count(self, kind, round, value)
    signers = {
        signer
        for (k, _), slots in self.said.items()
        if k == kind
        for signer, kept in slots.items()
        if any(s.value == value for s in kept)
    }
    return len(signers)


def _form_mixed(held: votes.Votes, kind: StatementKind, round: int, value: Digest) -> VoteQuorum:
    chosen: dict[Any, Statement] = {}
    for (k, r), slots in held.said.items():
        if k == kind and (kind == PRECOMMIT or r == round):
            for signer, kept in slots.items():
                for s in kept:
                    if s.value == value:
                        chosen.setdefault(signer, s)
    one = next(iter(chosen.values()))
    pairs = tuple((signer, chosen[signer].signature) for signer in sorted(chosen))
    return VoteQuorum(kind, one.config_digest, one.instance, round, value, pairs)


_form_true = votes.form_quorum


def _form_loose(held: votes.Votes, kind: StatementKind, round: int, value: Digest) -> VoteQuorum:
    """Whatever is there, without the check that it is of distinct signers."""
    chosen: dict[Any, Statement] = {}
    for signer, kept in held.of(kind, round).items():
        for s in kept:
            if s.value == value:
                chosen.setdefault(signer, s)
    one = next(iter(chosen.values()))
    pairs = tuple((signer, chosen[signer].signature) for signer in sorted(chosen))
    return VoteQuorum(kind, one.config_digest, one.instance, round, value, pairs)


_include = Turn.include


def _include_nil(self: machine.Transitions, s: Statement) -> None:
    _include(self, s)
    nil_decides = s.kind is PRECOMMIT and s.value == NIL and self.decided is None
    if nil_decides and self.votes.count(PRECOMMIT, s.round, NIL) >= self.rules.quorum:
        self.accept_quorum(votes.form_quorum(self.votes, PRECOMMIT, s.round, NIL))


def _check_without_digest(q: VoteQuorum, config_digest: Digest, instance: Any, committee: Any) -> None:
    certificate.check_quorum(q, q.config_digest, instance, committee)


def _why_foreign_without_digest(rules: state.Rules, s: Statement) -> str:
    return _why_foreign(
        rules if s.config_digest == rules.config_digest else replace(rules, config_digest=s.config_digest), s
    )


_why_foreign = state.why_foreign


# --- locks ------------------------------------------------------------------------------------------


def _rebuild_without_lock(rs: state.RoundState, own: Any) -> state.RoundState:
    return change(_rebuild(rs, own), locked_value=NIL, locked_round=-1)


_rebuild = state._rebuild


def _raise_valid_and_lock(self: machine.Transitions, q: VoteQuorum) -> None:
    """A polka of any round moves the lock, also downwards."""
    _raise_valid(self, q)
    if (
        self.round_state.locked_round >= 0
        and q.round != self.round_state.locked_round
        and q.value != self.round_state.locked_value
    ):
        self.round_state = change(self.round_state, locked_value=q.value, locked_round=q.round)


_raise_valid = Turn.raise_valid


def _why_foreign_open(rules: state.Rules, s: Statement) -> str:
    if s.kind is PROPOSAL and s.valid_round >= 0:
        s = replace(s, valid_round=-1)
    return _why_foreign(rules, s)


def _answer_open(self: machine.Transitions, s: Statement) -> Answer:
    """Prevotes of any rounds are added up to a polka, and the valid round may be anything."""
    if s.valid_round == -1:
        return _answer(self, s)
    signers = {
        signer
        for (kind, _), slots in self.votes.said.items()
        if kind == PREVOTE
        for signer, kept in slots.items()
        if any(v.value == s.value for v in kept)
    }
    if len(signers) < self.rules.quorum:
        return Answer.NOT_YET
    if self.round_state.locked_round > s.valid_round and self.round_state.locked_value != s.value:
        return Answer.NO
    return self.judge(s.value, fresh=False)


_answer = Turn.answer_proposal


# --- judging ----------------------------------------------------------------------------------------

_judge = Turn.judge


def _judge_never_fresh(self: machine.Transitions, value: Digest, *, fresh: bool) -> Answer:
    return _judge(self, value, fresh=False)


def _judge_always_fresh(self: machine.Transitions, value: Digest, *, fresh: bool) -> Answer:
    return _judge(self, value, fresh=self.round_state.step is state.Step.PROPOSE)


def _judge_no_for_not_yet(self: machine.Transitions, value: Digest, *, fresh: bool) -> Answer:
    known = self.judgements.get(value)
    answer = _judge(self, value, fresh=fresh)
    if known is None:
        return answer  # the question has only now been put
    return Answer.NO if answer is Answer.NOT_YET else answer


def _ask_never_again(self: machine.Transitions) -> None:
    """What was "not yet" stays so."""


def _answer_unobserved(self: machine.Transitions, s: Statement) -> Answer:
    if s.valid_round == -1 and not self.has_said(StatementKind.OBSERVATION, 0):
        if self.round_state.locked_round != -1 and self.round_state.locked_value != s.value:
            return Answer.NO
        return self.judge(s.value, fresh=True)
    return _answer(self, s)


# --- leaders, time ----------------------------------------------------------------------------------


def _build_eagerly(self: machine.Transitions) -> bool:
    ready = self.has_said(StatementKind.OBSERVATION, 0)
    return ready and len(self.eligibility.reproduced) >= self.rules.quorum


def _build_patiently(self: machine.Transitions) -> bool:
    ready = self.has_said(StatementKind.OBSERVATION, 0)
    return ready and len(self.eligibility.reproduced) >= len(self.rules.committee)


def _never_grown(self: state.Timeouts, base_ms: int, round: int) -> int:
    return base_ms


# --- votes ------------------------------------------------------------------------------------------


def _refuse_second(held: votes.Votes, s: Statement, floor: int, ceiling: int) -> str:
    reason = _why_dropped(held, s, floor, ceiling)
    if not reason and s.kind in (PREVOTE, PRECOMMIT) and held.of(s.kind, s.round).get(s.signer):
        return "two kept already"
    return reason


_why_dropped = votes.why_dropped


def _accept_as_singles(self: machine.Transitions, q: VoteQuorum) -> None:
    """A quorum is taken apart, and counts only as far as its votes are kept."""
    for s in q.statements():
        if not _refuse_second(self.votes, s, self.floor(), self.ceiling()):
            self.include(s)


def _refuse_by_signature(held: votes.Votes, s: Statement, floor: int, ceiling: int) -> str:
    kept = held.of(s.kind, s.round).get(s.signer, ())
    if any(other.signature == s.signature for other in kept):
        return "known"
    reason = _why_dropped(held, s, floor, ceiling)
    return "" if reason == "known" and len(kept) < 2 else reason


class _PairBySignature:
    """Two signatures over one content pass for two statements."""

    def __init__(self, first: Statement, second: Statement) -> None:
        self.first, self.second = first, second

    @classmethod
    def of(cls, a: Statement, b: Statement) -> _PairBySignature:
        return cls(a, b)


_relay = Turn.relay


def _relay_and_resend(self: machine.Transitions) -> None:
    before = self.eligibility.relay_at
    _relay(self)
    if before is not None and self.eligibility.relay_at != before:
        self.resend()


def _keep_any_round(held: votes.Votes, s: Statement, floor: int, ceiling: int) -> str:
    return _why_dropped(held, s, 0, _LAST_ROUND)


def _add_any_round(held: votes.Votes, s: Statement, ceiling: int) -> votes.Votes:
    return _add(held, s, _LAST_ROUND)


_add = votes.add
_LAST_ROUND = 1 << 62


def _miss_everything(a: state.InstanceState, held: votes.Held) -> Any:
    return _missing_for(a, ())


_missing_for = views.missing_for


def _drive_speaking_first(
    before: state.InstanceState, events: Any, now_ms: int, shell: driver.Shell
) -> tuple[state.InstanceState, Any]:
    ready = driver.prepare(before, events, now_ms, shell.sign)
    shell.send(ready)
    shell.persist(ready)
    return ready.state, shell.ask(ready)


# --- sets -------------------------------------------------------------------------------------------


def _mean(values: Any) -> int:
    return int(sum(values) // len(values))


def _upper_median(values: Any) -> int:
    return int(sorted(values)[len(values) // 2])


_judge_entry = proposal._judge_entry


def _judge_entry_without_full(entry: Any, *arguments: Any) -> Any:
    return _judge_entry(replace(entry, flags=entry.flags & ~Flag.FULL), *arguments)


def _span_of_horizon(instance: Any) -> proposal.Span:
    span = _span_of(instance)
    if instance.kind is InstanceKind.LATE:
        return proposal.Span(span.until_ms - content.PARAMETERS.horizon_ms, span.until_ms)
    return span


_span_of = content.span_of


_judge_validity = proposal.judge_validity


def _judge_any_observers(
    outcome: Outcome, used: Mapping[Digest, Observation], *rest: Any, **more: Any
) -> proposal.Verdict:
    """The core's judgement, blind to who observed: each digest passes for a member of its own."""
    apart = {digest: replace(o, observer=Address(digest[:20])) for digest, o in used.items()}
    return _judge_validity(outcome, apart, *rest, **more)


def _switch(**on: bool) -> Callable[[], Switches]:
    return lambda: Switches(**on)


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "quorum-minus-one",
        "n - f - 1 is a quorum",
        ((state, "quorum", _one_less), (certificate, "quorum", _one_less)),
    ),
    Mutation("skip-with-f", "rounds are skipped with f members", ((state.Rules, "of", classmethod(_skip_with_f)),)),
    Mutation(
        "signer-twice",
        "one signer counts twice",
        (
            (machine, "check_quorum", _check_signers_twice),
            (votes.Votes, "count", _count_signers_twice),
            (machine, "form_quorum", _form_loose),
        ),
    ),
    Mutation(
        "mixed-rounds",
        "precommits of different rounds make a certificate",
        ((votes.Votes, "count", _count_mixed), (machine, "form_quorum", _form_mixed)),
    ),
    Mutation("nil-certificate", "nil precommits decide", ((Turn, "include", _include_nil),)),
    Mutation("lock-lost", "a restart forgets the lock", ((state, "_rebuild", _rebuild_without_lock),)),
    Mutation("lock-lowered", "an older polka moves the lock", ((Turn, "raise_valid", _raise_valid_and_lock),)),
    Mutation("stale-worker", "saved whatever the version", switches=_switch(save_any_version=True)),
    Mutation("speak-first", "sent before it is saved", ((driver, "drive", _drive_speaking_first),)),
    Mutation("speak-before-data", "voted before the data is durable", switches=_switch(data_in_memory=True)),
    Mutation(
        "validround-open",
        "any valid round, and prevotes of mixed rounds as polka",
        ((machine, "why_foreign", _why_foreign_open), (Turn, "answer_proposal", _answer_open)),
    ),
    Mutation("accept-always", "acceptability is not asked", ((Turn, "judge", _judge_never_fresh),)),
    Mutation("accept-again", "acceptability is asked with a polka too", ((Turn, "judge", _judge_always_fresh),)),
    Mutation(
        "vote-unobserved",
        "fresh proposals are prevoted before the own observation",
        ((Turn, "answer_proposal", _answer_unobserved),),
        switches=_switch(judge_without_set=True),
    ),
    Mutation("resent-for-ever", "own words are said again at every look", ((Turn, "relay", _relay_and_resend),)),
    Mutation(
        "rounds-kept",
        "statements of any round are kept",
        ((machine, "why_dropped", _keep_any_round), (machine, "add", _add_any_round)),
    ),
    Mutation(
        "answers-all", "a peer is answered with all, not what it lacks", ((views, "missing_for", _miss_everything),)
    ),
    Mutation("no-relay", "only own votes are sent again", switches=_switch(relay_own_only=True)),
    Mutation(
        "first-vote-stands",
        "a signer's second vote is dropped, inside polkas too",
        ((machine, "why_dropped", _refuse_second), (Turn, "accept_quorum", _accept_as_singles)),
    ),
    Mutation("proof-left-out", "a re-proposal travels without its polka", switches=_switch(polka_left_out=True)),
    Mutation("cert-needs-value", "no certificate before the value", switches=_switch(value_first=True)),
    Mutation("unknown-is-no", "not yet is no", ((Turn, "judge", _judge_no_for_not_yet),)),
    Mutation("asked-once", "not yet is never asked again", ((Turn, "ask_again", _ask_never_again),)),
    Mutation("leader-eager", "proposes with the first n - f sets", ((Turn, "may_build", _build_eagerly),)),
    Mutation("leader-patient", "waits for a silent observer", ((Turn, "may_build", _build_patiently),)),
    Mutation("timeouts-flat", "timeouts do not grow", ((state.Timeouts, "grown", _never_grown),)),
    Mutation("late-key-clash", "late sets under the window's key", switches=_switch(late_under_window=True)),
    Mutation("late-by-leaf", "duplicates in late sets by leaf", switches=_switch(stored_by_leaf=True)),
    Mutation(
        "horizon-single", "late messages valid within the horizon only", ((content, "span_of", _span_of_horizon),)
    ),
    Mutation("variant-any", "the leader's variant is taken unranked", switches=_switch(any_variant=True)),
    Mutation(
        "cap-without-prefix", "a limit without the full rule", ((proposal, "_judge_entry", _judge_entry_without_full),)
    ),
    Mutation(
        "block-from-observation",
        "the block that most used observations read",
        switches=_switch(block_by_majority=True),
    ),
    Mutation("block-early", "the block is read before it is final", switches=_switch(block_early=True)),
    Mutation("median-mean", "the mean of prices", ((proposal, "lower_median", _mean),)),
    Mutation("median-upper", "the upper median of prices", ((proposal, "lower_median", _upper_median),)),
    Mutation(
        "observers-twice",
        "a member's two observations both count",
        ((proposal, "judge_validity", _judge_any_observers),),
        switches=_switch(observers_twice=True),
    ),
    Mutation(
        "epoch-unchecked",
        "quorums and votes of an older config digest count",
        ((machine, "check_quorum", _check_without_digest), (machine, "why_foreign", _why_foreign_without_digest)),
    ),
    Mutation(
        "evidence-by-signature",
        "two signatures over one content are a double vote",
        ((machine, "why_dropped", _refuse_by_signature), (machine, "Evidence", _PairBySignature)),
    ),
    Mutation("proposal-unjournaled", "a leader proposes anew after a crash", switches=_switch(forget_proposals=True)),
    Mutation(
        "permission-by-arrival",
        "a message is judged by the block that was the newest when it came",
        switches=_switch(permission_by_arrival=True),
    ),
    Mutation("future-window", "observed by the own clock alone", switches=_switch(clock_only=True)),
)

CAUGHT_BY = {
    "quorum-minus-one": 0,
    "skip-with-f": 0,
    "signer-twice": 5,
    "mixed-rounds": 20,
    "nil-certificate": 0,
    "lock-lost": 0,
    "lock-lowered": 46,
    "stale-worker": 12,
    "speak-first": 0,
    "speak-before-data": 0,
    "validround-open": 112,
    "accept-always": 0,
    "accept-again": 20,
    "vote-unobserved": 36,
    "resent-for-ever": 1,
    "rounds-kept": 29,
    "answers-all": 0,
    "no-relay": 18,
    "first-vote-stands": 4,
    "proof-left-out": 20,
    "cert-needs-value": 2,
    "unknown-is-no": 0,
    "asked-once": 19,
    "leader-eager": 0,
    "leader-patient": 0,
    "timeouts-flat": 0,
    "late-key-clash": 0,
    "late-by-leaf": 191,
    "horizon-single": 5,
    "variant-any": 1034,
    "cap-without-prefix": 9,
    "block-from-observation": 15,
    "block-early": 11,
    "median-mean": 0,
    "median-upper": 0,
    "observers-twice": 84,
    "epoch-unchecked": 93,
    "evidence-by-signature": 5,
    "proposal-unjournaled": 9,
    "permission-by-arrival": 50,
    "future-window": 17,
}
"""The first seed that catches each; found by ``python -m tests.simulator --mutations --seeds 2000``.

Any change of what a run draws or does may move them: search again then.
"""

_SETTLED = (
    "tests/property/protocol/test_settlement.py::test_a_planted_mistake_breaks_its_claim_and_the_real_thing_keeps_it"
)
_STEPS = "tests/integration/steps/test_planted.py::test_a_planted_bug_breaks_its_claim_and_the_real_thing_keeps_it"

CAUGHT_BY_TEST = {
    "ids-by-digest": f"{_STEPS}[ids_by_digest-variants_of_one_message_are_reconciled]",
    "late-unbound": f"{_STEPS}[late_unbound-the_late_set_is_in_the_bundle_root]",
    "boundary-by-file": f"{_STEPS}[boundary_by_file-ends_follow_canonical_bytes]",
    "attest-exclusive": f"{_STEPS}[attest_exclusive-every_upload_that_was_read_back_is_attested]",
    "balance-at-B-only": f"{_SETTLED}[balance_at_b_only-claim_nothing_is_short]",
    "ledger-local": f"{_SETTLED}[ledger_local-claim_same_ledger_for_all]",
    "carry-rewards": f"{_SETTLED}[carry_rewards-claim_rewards_follow_captures]",
    "price-mean": f"{_SETTLED}[median_mean-claim_lower_median]",
    "price-upper": f"{_SETTLED}[median_upper-claim_lower_median]",
}
"""Planted bugs of adapters, bundles and reports: no seed can catch what no simulated network does. Each is planted in
the test that is named here, which asks that its claim breaks with the bug and holds without."""
