"""What notices each mistake at each place of the core (``sites``): the record, and what nothing can notice, with why.

The record is ``caught.json``: per site the test, or the seed, that fails with the mistake planted. It is checked, not
believed: CI plants every one and asks that its test or seed fails, and that every place of the source as it is has an
entry or a reason. An entry may be null: nothing that notices is known yet, and the program says how many are so. After
a change of the core, ``python -m tests.simulator --mutations --record`` looks again for what is new or not noticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.simulator.sites import MODULES, Site, find_sites

RECORD = Path(__file__).with_name("caught.json")
SEED = "seed "
"""What is recorded of a site that a run of the simulator notices begins so."""


def _edits(module: str, function: str, *pairs: tuple[str, str]) -> tuple[Site, ...]:
    return tuple(Site(module, function, old, new) for old, new in pairs)


WRITTEN: tuple[Site, ...] = (
    *_edits(
        "state",
        "encode_progress",
        ("[p.round,", "[0,"),
        ("int(p.step)", "1"),
        ("p.locked_value,", "NIL,"),
        ("p.locked_round,", "-1,"),
        ("p.valid_value,", "NIL,"),
        ("p.valid_round]", "-1]"),
        ("p.started_ms,", "0,"),
        ("p.prevote_at,", "None,"),
        ("p.precommit_at,", "None,"),
        ("s.recover_at,", "None,"),
        ("s.relay_at,", "None,"),
        ("a.wake_ms]", "None]"),
        ("s.started,", "False,"),
        ("s.recovered,", "False,"),
        ("s.halted,", "False,"),
        ("s.observation,", "None,"),
        ("s.value_asked]", "-1]"),
        ("sorted(s.answers)", "[]"),
        ("sorted(s.observed)", "[]"),
        ("sorted(s.reproduced)", "[]"),
        ("_ANSWERS.index(j.validity)", "2"),
        ("_ANSWERS.index(j.acceptable)", "2"),
        ("j.round]", "-1]"),
        ("in sorted(judgements.items())", "in ()"),
        ("in sorted(a.votes.ahead)", "in ()"),
    ),
    *_edits(
        "state",
        "restore",
        ("        votes,\n", "        EMPTY,\n"),
        ("        rs,\n", "        RoundState(),\n"),
        ("        eligibility,\n", "        Eligibility(),\n"),
        ("        judgements,\n", "        {},\n"),
        ("        decision,\n", "        None,\n"),
        ("        wake_ms,\n", "        None,\n"),
        ("journal=said,", ""),
        ("foreign=tuple(foreign.values()),", ""),
        ("rs.round - BEHIND,", "rs.round - BEHIND + 1,"),
        ("rs.round + AHEAD\n", "rs.round + AHEAD - 1\n"),
    ),
    *_edits(
        "state",
        "Rules.of",
        ("quorum=quorum(len(members))", "quorum=one_honest(len(members))"),
        ("one_honest=one_honest(len(members))", "one_honest=quorum(len(members))"),
    ),
    *_edits(
        "state",
        "Timeouts.of",
        ("p.timeout_propose_ms, p.timeout_prevote_ms", "p.timeout_prevote_ms, p.timeout_propose_ms"),
        ("p.timeout_delta_ms, p.timeout_max_ms", "p.timeout_max_ms, p.timeout_delta_ms"),
        ("p.timeout_precommit_ms, p.timeout_delta_ms", "p.timeout_delta_ms, p.timeout_precommit_ms"),
    ),
    *_edits(
        "round",
        "_Turn.finish",
        ("self.votes,", "before.votes,"),
        ("self.round_state,", "before.round_state,"),
        ("self.eligibility,", "before.eligibility,"),
        ("self.judgements,", "before.judgements,"),
        ("self.decided,", "before.decided,"),
        (" wake,\n", " before.wake_ms,\n"),
        ("self.unsigned,", "before.unsigned,"),
        ("self.loaded,", "before.loaded,"),
        ("self.journal,", "before.journal,"),
    ),
    *_edits(
        "round",
        "_Turn.take_judgement",
        ("Judgement(validity, acceptable, known.round)", "Judgement(known.validity, acceptable, known.round)"),
        ("Judgement(validity, acceptable, known.round)", "Judgement(validity, known.acceptable, known.round)"),
        ("Judgement(validity, acceptable, known.round)", "Judgement(validity, acceptable, -1)"),
    ),
    *_edits("round", "_Turn.floor", ("round - BEHIND", "round - BEHIND + 1"), ("round - BEHIND", "round - BEHIND - 1")),
    *_edits("round", "_Turn.ceiling", ("round + AHEAD", "round + AHEAD + 1"), ("round + AHEAD", "round + AHEAD - 1")),
    *_edits("round", "_Turn.include", ("round + AHEAD", "round + AHEAD - 1")),
    *_edits(
        "round",
        "why_ignored",
        ("a.round - BEHIND", "a.round - BEHIND + 1"),
        ("a.round + AHEAD", "a.round + AHEAD - 1"),
    ),
    *_edits(
        "round",
        "_Turn.apply_prevote",
        (
            "len(self.votes.of(PREVOTE, rs.round)) < self.rules.quorum",
            "len(self.votes.of(PREVOTE, rs.round)) < self.rules.one_honest",
        ),
    ),
    *_edits(
        "round",
        "_Turn.apply_precommit",
        ("len(slots) < self.rules.quorum", "len(slots) < self.rules.one_honest"),
        ("self.rules.timeouts.precommit_ms", "self.rules.timeouts.prevote_ms * 2"),
    ),
    *_edits(
        "votes",
        "add",
        ("{**votes.ahead, s.signer: s}", "votes.ahead"),
        ("{**newest, s.signer: s.round}", "newest"),
        ("{**votes.said, key: slots}", "votes.said"),
        ("(*slots.get(s.signer, ()), s)", "(s,)"),
    ),
    *_edits(
        "votes",
        "add_quorum",
        ("{**votes.quorums, (q.kind, q.round, q.value): q}", "votes.quorums"),
        ("votes.ahead, newest)", "votes.ahead, votes.newest)"),
    ),
)
"""Changes that no rule of ``sites`` makes: fields that are not saved or not restored, bounds and quorums of another
kind. A text stands for one place: one that is not there exactly once is refused."""

EQUIVALENT: dict[str, tuple[str, ...]] = {
    "a decided instance is answered with the same state, and what is undecided is touched by recalling": (
        "round._Turn.take_resume: self.touched = True -> (left out)",
        "round._Turn.take_resume: True -> False",
        "round._Turn.recover: self.touched = True -> (left out)",
        "round._Turn.recover: True -> False",
    ),
    "no two records of different identity share an order, and the first missing one fits: it is not its own reason": (
        "proposal._judge_cut: first.order < kept[-1].order -> first.order <= kept[-1].order",
        "proposal._judge_cut: r.order < first.order -> r.order <= first.order",
    ),
    "it is set again at once, or nobody looks at it once peers have told": (
        "round._Turn.take_resume: recover_at=None -> (left out)",
        "round._Turn.take_start: not self.eligibility.recovered -> True",
    ),
    "own words that come back are counted right after, and that touches": (
        "round._Turn.recognise: self.touched = True -> (left out)",
        "round._Turn.recognise: True -> False",
    ),
    "where a decision changes the state, the step has changed with it; what is computed again is the same": (
        "round._Turn.finish: self.decided is not None -> False",
        "round._Turn.finish: self.decided is not None -> self.decided is None",
    ),
    "one look at an instance speaks in one round only": ("round._Turn.own_statements: u.round == round -> True",),
    "nobody is no signer": ("round._Turn.has_said: own is not None -> True",),
    "once decided nothing is said any more: no rule looks at that step, and no timer is waited for": (
        "round._Turn.run_rules: self.decided is None -> True",
        "round._Turn.run_rules: self.decided is None -> True (2)",
        "round._Turn.is_running: self.decided is None -> True",
    ),
    "to resume a decided instance ends before that": ("round._Turn.resend: self.decided is not None -> False",),
    "where nothing is held there is nothing to send": (
        "round._Turn.resend: not (self.votes.said or self.votes.quorums) -> False",
    ),
    "who was told is told still, who waits has a time for it, and what runs is touched next": (
        "round._Turn.wait_for_recovery: not eligibility.recovered -> True",
        "round._Turn.wait_for_recovery: eligibility.recover_at is not None -> True",
        "round._Turn.wait_for_recovery: self.touched = True -> (left out)",
        "round._Turn.wait_for_recovery: True -> False (2)",
    ),
    "the own word comes back signed at once, and with it the rules run again": (
        "round._Turn.precommit_nil: True -> False",
        "round._Turn.apply_prevote: True -> False",
        "round._Turn.apply_rules: True -> False (3)",
    ),
    "a value with a polka is proposed at once, so whoever may still propose has none": (
        "round._Turn.ask_again: self.polka_to_repeat() is None -> True",
    ),
    "whose round has its polka may not propose at all": (
        "round._Turn.polka_to_repeat: rs.valid_round < rs.round -> rs.valid_round <= rs.round",
    ),
    "an empty committee has no leader and nobody who speaks": ("round._Turn.may_propose: own is not None -> True",),
    "two polkas of one round are of one value": (
        "round._Turn.answer_proposal: rs.locked_round > valid_round -> rs.locked_round >= valid_round",
    ),
    "own rounds above none, and too few, give the own round too": (
        "round._Turn.round_reached: round > at -> round >= at",
        "round._Turn.round_reached: not above -> False",
    ),
    "who asks runs the rules, or has just kept a quorum: both touch": (
        "round._Turn.judge: self.touched = True -> (left out)",
        "round._Turn.judge: True -> False",
    ),
    "what the journal holds is held too, or long past: nothing is kept of it either way": (
        "round._Turn.recognise: True -> False (3)",
    ),
    "it is set just above": (
        "round._Turn.apply_prevote: rs.prevote_at is not None -> True",
        "round._Turn.apply_precommit: rs.precommit_at is not None -> True",
    ),
    "nought is false": ("round._Turn.heed_clock: 0 -> False", "round._Turn.heed_clock: 0 -> False (2)"),
    "what is bounded by itself stays": (
        "round._Turn.heed_clock: rs.started_ms > self.now_ms -> rs.started_ms >= self.now_ms",
    ),
    "the same words are said once": ("round._Turn.run_rules: not self.has_said(OBSERVATION, 0) -> True",),
    "of a round far ahead nothing is counted yet": ("round._Turn.include: s.round <= ceiling -> True",),
    "a quorum notes its signers' rounds first, so votes of it that lie far ahead are not newer than those": (
        "round._Turn.accept_quorum: s.signer == self.rules.own -> True",
        "round._Turn.accept_quorum: s.signer == self.rules.own -> s.signer != self.rules.own",
        "round._Turn.accept_quorum: not ours_ahead -> True",
    ),
    "the same round is noted again": (
        "votes.add: s.round > newest.get(s.signer, -1) -> s.round >= newest.get(s.signer, -1)",
        "votes.add_quorum: q.round > newest.get(signer, -1) -> q.round >= newest.get(signer, -1)",
    ),
    "only saves counting": ("votes.unformed: len(slots) < needed -> False",),
    "what stays ahead is its signer's newest already": ("votes.trim: statement.round <= ceiling -> True",),
    "only saves comparing": ("state.why_foreign: s.instance is not rules.instance -> True",),
    "equal contents are refused by the pair itself": (
        "evidence.Evidence.of: a.content < b.content -> a.content <= b.content",
    ),
    "what returns nothing is no boolean either": (
        "proposal.Verdict.__bool__: raise TypeError('compare .answer: a verdict has three values') -> (left out)",
    ),
    "only partitions in scope get entries": ("proposal.build_outcome: r.message.stream_part in scope.budgets -> True",),
    "a window names all partitions in scope, so nothing is left": ("proposal.judge_acceptability: late -> True (2)",),
}
"""By reason the sites whose mistake changes nothing that anybody could see."""


def all_sites(modules: Iterable[str] = MODULES) -> tuple[Site, ...]:
    chosen = tuple(modules)
    found = [site for module in chosen for site in find_sites(module)]
    return (*found, *(site for site in WRITTEN if site.module in chosen))


def load_record() -> dict[str, str | None]:
    """By site's name the test or seed; None where nothing that notices is known yet."""
    record: dict[str, str | None] = json.loads(RECORD.read_text())
    return record


def save_record(record: Mapping[str, str | None]) -> None:
    RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")


def waived() -> dict[str, str]:
    """By site's name why nothing can notice it."""
    return {name: reason for reason, names in EQUIVALENT.items() for name in names}
