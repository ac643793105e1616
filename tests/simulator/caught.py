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
        "working",
        "WorkingCopy.finish",
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
        "inputs",
        "Inputs.on_proposal_validated",
        ("Judgement(validity, acceptable, known.round)", "Judgement(known.validity, acceptable, known.round)"),
        ("Judgement(validity, acceptable, known.round)", "Judgement(validity, known.acceptable, known.round)"),
        ("Judgement(validity, acceptable, known.round)", "Judgement(validity, acceptable, -1)"),
    ),
    *_edits(
        "working",
        "WorkingCopy.floor",
        ("round - BEHIND", "round - BEHIND + 1"),
        ("round - BEHIND", "round - BEHIND - 1"),
    ),
    *_edits(
        "working", "WorkingCopy.ceiling", ("round + AHEAD", "round + AHEAD + 1"), ("round + AHEAD", "round + AHEAD - 1")
    ),
    *_edits("round", "Transitions.include", ("round + AHEAD", "round + AHEAD - 1")),
    *_edits(
        "views",
        "why_ignored",
        ("a.round - BEHIND", "a.round - BEHIND + 1"),
        ("a.round + AHEAD", "a.round + AHEAD - 1"),
    ),
    *_edits(
        "round",
        "Transitions.await_prevotes",
        (
            "len(self.votes.of(PREVOTE, rs.round)) >= self.rules.quorum",
            "len(self.votes.of(PREVOTE, rs.round)) >= self.rules.one_honest",
        ),
    ),
    *_edits(
        "round",
        "Transitions.await_precommits",
        ("len(slots) < self.rules.quorum", "len(slots) < self.rules.one_honest"),
        ("self.rules.timeouts.precommit_ms", "self.rules.timeouts.prevote_ms * 2"),
    ),
    *_edits(
        "driver",
        "drive",
        ("shell.persist(ready)\n    shell.send(ready)", "shell.send(ready)\n    shell.persist(ready)"),
        (
            "shell.send(ready)\n    return ready.state, shell.ask(ready)",
            "answers = shell.ask(ready)\n    shell.send(ready)\n    return ready.state, answers",
        ),
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
        "inputs.Inputs.on_resume: self.touched = True -> (left out)",
        "inputs.Inputs.on_resume: True -> False",
        "working.WorkingCopy.recover: self.touched = True -> (left out)",
        "working.WorkingCopy.recover: True -> False",
    ),
    "no two records of different identity share an order, and the first missing one fits: it is not its own reason": (
        "proposal._judge_cut: first.order < last.order -> first.order <= last.order",
        "proposal._judge_cut: row.order < first.order -> row.order <= first.order",
    ),
    "it is set again at once, or nobody looks at it once peers have told": (
        "inputs.Inputs.on_resume: recover_at=None -> (left out)",
        "inputs.Inputs.on_start: not self.eligibility.recovered -> True",
    ),
    "own words that come back are counted right after, and that touches": (
        "working.WorkingCopy.recognise: self.touched = True -> (left out)",
        "working.WorkingCopy.recognise: True -> False",
    ),
    "where a decision changes the state, the step has changed with it; what is computed again is the same": (
        "working.WorkingCopy.finish: self.decided is not None -> False",
        "working.WorkingCopy.finish: self.decided is not None -> self.decided is None",
    ),
    "one look at an instance speaks in one round only": (
        "working.WorkingCopy.own_statements: u.round == round -> True",
    ),
    "nobody is no signer": ("working.WorkingCopy.has_said: own is not None -> True",),
    "once decided nothing is said any more: no rule looks at that step, and no timer is waited for": (
        "round.Transitions.run_rules: self.decided is None -> True",
        "round.Transitions.run_rules: self.decided is None -> True (2)",
        "working.WorkingCopy.is_running: self.decided is None -> True",
    ),
    "to resume a decided instance ends before that": ("working.WorkingCopy.resend: self.decided is not None -> False",),
    "where nothing is held there is nothing to send": (
        "working.WorkingCopy.resend: not (self.votes.said or self.votes.quorums) -> False",
    ),
    "who was told is told still, who waits has a time for it, and what runs is touched next": (
        "working.WorkingCopy.wait_for_recovery: not eligibility.recovered -> True",
        "working.WorkingCopy.wait_for_recovery: eligibility.recover_at is not None -> True",
        "working.WorkingCopy.wait_for_recovery: self.touched = True -> (left out)",
        "working.WorkingCopy.wait_for_recovery: True -> False (2)",
    ),
    "the own word comes back signed at once, and with it the rules run again": (
        "round.Transitions.precommit: True -> False",
        "round.Transitions.apply_prevote: True -> False",
        "round.Transitions.apply_rules: True -> False (3)",
    ),
    "a value with a polka is proposed at once, so whoever may still propose has none": (
        "working.WorkingCopy.ask_again: self.polka_to_repeat() is None -> True",
    ),
    "whose round has its polka may not propose at all": (
        "working.WorkingCopy.polka_to_repeat: rs.valid_round < rs.round -> rs.valid_round <= rs.round",
    ),
    "an empty committee has no leader and nobody who speaks": (
        "working.WorkingCopy.may_propose: own is not None -> True",
    ),
    "two polkas of one round are of one value": (
        "round.Transitions.answer_repeated: rs.locked_round > valid_round -> rs.locked_round >= valid_round",
    ),
    "own rounds above none, and too few, give the own round too": (
        "round.Transitions.round_reached: round > at -> round >= at",
        "round.Transitions.round_reached: not above -> False",
    ),
    "who asks runs the rules, or has just kept a quorum: both touch": (
        "working.WorkingCopy.judge: self.touched = True -> (left out)",
        "working.WorkingCopy.judge: True -> False",
    ),
    "what the journal holds is held too, or long past: nothing is kept of it either way": (
        "working.WorkingCopy.recognise: True -> False (3)",
    ),
    "the rows below are tried in the same look": ("round.Transitions.skip_round: True -> False",),
    "the time of a wait is set with it": (
        "round.Transitions.await_precommits: False -> True",
        "round.Transitions.next_round_at_timeout: at is None -> False",
    ),
    "nought is false": ("working.WorkingCopy.heed_clock: 0 -> False", "working.WorkingCopy.heed_clock: 0 -> False (2)"),
    "what is bounded by itself stays": (
        "working.WorkingCopy.heed_clock: rs.started_ms > self.now_ms -> rs.started_ms >= self.now_ms",
    ),
    "the same words are said once": ("round.Transitions.run_rules: not self.has_said(OBSERVATION, 0) -> True",),
    "of a round far ahead nothing is counted yet": ("round.Transitions.include: s.round <= ceiling -> True",),
    "a quorum notes its signers' rounds first, so votes of it that lie far ahead are not newer than those": (
        "round.Transitions.accept_quorum: s.signer == self.rules.own -> True",
        "round.Transitions.accept_quorum: s.signer == self.rules.own -> s.signer != self.rules.own",
        "round.Transitions.accept_quorum: not ours_ahead -> True",
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
    "an id and a padded prefix are of one length, so what stands behind an id decides nothing": (
        "reconcile.Records.find: middle + 1 -> middle + 2",
    ),
    "only saves comparing what is equal": ("proposal.judge_acceptability: ours[part].root != entry.root -> True",),
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
