"""Advance: one instance, one look. Load its state, tell the core what is new, save, then speak.

Three callers, safe at any time: the listener after a peer's statement, the instance's own wake time, and beat. The
core's driver decides the order: state, own votes, quorums and decision are saved in one transaction on condition of the
state's version, then others hear of it, then peers and our own data are asked. A worker that was overtaken starts again
from what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from validator.log import get_logger
from validator.ports.peers import Gossip, HeldVotes
from validator.ports.queue import Ending, StepResult, Task
from validator.ports.store import PRUNED, StaleState
from validator.ports.stored import InstanceChange, StoredInstance
from validator.protocol.codec.outcome import (
    body_digest,
)
from validator.protocol.codec.statement import sign_statement
from validator.protocol.consensus.driver import Ready, drive
from validator.protocol.consensus.events import (
    DataArrived,
    Event,
    FetchValue,
    GetValue,
    Halt,
    Ignore,
    Observed,
    OwnVotesRecovered,
    Received,
    ReceivedQuorum,
    RecoverOwnVotes,
    Resume,
    Start,
    SyncVotes,
    Tick,
    ValidateProposal,
)
from validator.protocol.consensus.state import Rules, Step, Timeouts, encode_progress
from validator.protocol.consensus.views import describe_wait, summarise, why_ignored
from validator.protocol.errors import MalformedInput, ValidatorError
from validator.protocol.model import (
    Address,
    InstanceId,
    Statement,
)
from validator.protocol.parameters import ParameterSet
from validator.steps.apply_decision import apply_decision
from validator.steps.asking import Wanted
from validator.steps.context import Context
from validator.steps.eligibility import may_vote
from validator.steps.proposals import Proposals
from validator.steps.statements import WITH_BODY, load_bodies, restore_state, verify_gossip

log = get_logger(__name__)

TURN_MS = 15_000
"""How soon an instance that waits its turn is looked at again, if no decision before it wakes it."""
MAX_TURNS = 12
"""Times one task looks at one instance before it lets others go first; the wake time brings it back."""


def advance(context: Context, instance: InstanceId, wake_ms: int | None = None) -> StepResult:
    """Move one instance as far as it goes now. ``wake_ms``: the wake time that this call was queued for.

    Threads of one process do not race for an instance: who comes second leaves word, and the first looks once more.
    """
    key = str(instance)
    if not context.claims.acquire(key):
        return StepResult(Ending.IN_HAND)
    try:
        result = _look(context, instance, wake_ms)
        while context.claims.release_or_rerun(key):
            result = _look(context, instance, None)
    except BaseException:
        context.claims.abandon(key)
        raise
    return result


def _look(context: Context, instance: InstanceId, wake_ms: int | None) -> StepResult:
    instances = context.store.instances
    head = instances.load_head(instance)
    if head is None:
        return StepResult(Ending.NOT_OPENED_YET)
    if head.queued:
        instances.clear_queued(instance)  # before the state is loaded: what comes from here on is queued anew
    if head.decided:
        return apply_decision(context, instance)
    if wake_ms is not None and head.wake_ms is not None and wake_ms < head.wake_ms:
        return StepResult(Ending.SUPERSEDED)
    if head.older and not head.certified and head.older >= _windows_active(context, instance):
        return _wait_for_turn(context, instance, head.older)
    stored = instances.load_instance(instance)
    if stored is None or stored.certificate is not None:
        return apply_decision(context, instance)
    turn = _Instance(context, stored)
    try:
        turn.run()
    except StaleState:
        context.tasks.enqueue(Task.ROUND_ADVANCE, str(instance))
        return StepResult(Ending.OVERTAKEN, "another worker was first")
    if turn.decided:
        _let_next_begin(context, instance)
        return apply_decision(context, instance)
    return StepResult(turn.state.step.name.lower(), turn.waits_for(), {"round": turn.state.round})


def _windows_active(context: Context, instance: InstanceId) -> int:
    return max(1, context.cut_points.instance_config(instance).parameters.windows_active)


def _wait_for_turn(context: Context, instance: InstanceId, older: int) -> StepResult:
    """Not among the oldest undecided: what peers say is kept, nothing is said, and a certificate is always taken."""
    reason = f"its turn: {older} older instances are undecided"
    context.store.instances.save_wait(instance, "its turn: older instances are undecided")
    context.store.due.postpone(Task.ROUND_ADVANCE, str(instance), context.clock.now_ms() + TURN_MS)
    return StepResult(Ending.WAITING_ITS_TURN, reason)


def _let_next_begin(context: Context, instance: InstanceId) -> None:
    """A decision makes room: whoever is among the oldest now, and was not looked at, begins."""
    for waiting in context.store.instances.untouched(_windows_active(context, instance)):
        if context.store.instances.mark_queued(waiting):
            context.tasks.enqueue(Task.ROUND_ADVANCE, str(waiting))


def timeouts_of(parameters: ParameterSet) -> Timeouts:
    """The network's timeouts; votes are compared with peers once per shortest wait for a proposal.

    In health an instance is decided before that. On a machine that is too slow, comparing more often would feed the
    overload that it tries to mend: every open instance asks every peer.
    """
    timeouts = Timeouts.of(parameters)
    return replace(timeouts, relay_ms=max(timeouts.relay_ms, parameters.timeout_propose_ms))


class _Instance(Proposals):
    """One instance while a task works on it; what the driver asks of it is in ``Proposals``."""

    def __init__(self, context: Context, stored: StoredInstance) -> None:
        config = context.cut_points.instance_config(stored.instance)
        own = context.identity.address if may_vote(context, stored.instance) else None
        timeouts = timeouts_of(config.parameters)
        rules = Rules.of(stored.instance, stored.config_digest, config.committee, own, timeouts)
        super().__init__(context, stored, config, rules, restore_state(rules, stored))
        self.decided = False

    def waits_for(self) -> str:
        """For the status page. State that no source has remains the reason until we have observed after all."""
        if self.stored.waits_for.startswith(PRUNED) and self.state.eligibility.observation is None:
            return self.stored.waits_for
        return describe_wait(self.state)

    def run(self) -> None:
        events: Sequence[Event] = self._first_events()
        for _ in range(MAX_TURNS):
            self.state, events = drive(self.state, events, self.context.clock.now_ms(), self)
            if not events or self.decided:
                return

    def _first_events(self) -> list[Event]:
        events: list[Event] = []
        key = (self.instance, self.rules.config_digest)
        if self.rules.own is None:
            self.context.resumed.discard(key)  # once we may vote again, our own words are asked for first
        elif key not in self.context.resumed:
            self.context.resumed.add(key)
            events.append(Resume())
        eligibility = self.state.eligibility
        if not eligibility.started:
            events.append(Start())
        if eligibility.observation is None:
            digest = self._own_observation()
            if digest is not None:
                events.append(Observed(digest))
        events += [ReceivedQuorum(q) for q in self.stored.quorums]
        if self._leads():
            events.append(self._sets_held())
        events += [DataArrived(), Tick()]
        return events

    # --- what the driver calls, in its order ---

    def sign(self, statement: Statement) -> Statement:
        key = self.context.identity.voting_key
        assert key is not None  # rules.own is None without a key, and then nothing is said
        return sign_statement(statement, key, self.context.identity.signing)

    def persist(self, ready: Ready) -> None:
        """In one transaction. Raises StaleState: another worker was first."""
        self.state = ready.state
        if ready.is_changed:
            self._save(ready)
        for evidence in ready.evidence:
            log.warning("evidence.kept", instance=str(self.instance), signer=evidence.first.signer)
        for effect in ready.effects:
            if isinstance(effect, Halt):
                log.error("journal.unknown_statement", instance=str(self.instance), round=effect.statement.round)
            elif isinstance(effect, Ignore):
                log.debug("event.ignored", instance=str(self.instance), reason=effect.reason)

    def _save(self, ready: Ready) -> None:
        kept, decision = ready.kept, ready.decision
        if kept:
            self.context.store.instances.save_statements(kept)
        now_ms = self.context.clock.now_ms()
        change = InstanceChange(
            encode_progress(self.state),
            self.state.wake_ms,
            said=ready.said,
            quorums=ready.quorums,
            certificate=None if decision is None else decision.certificate,
            evidence=[(pair.first, pair.second) for pair in ready.evidence],
            round=self.state.round,
            step=self.state.step.name.lower(),
            leader=self.state.leader,
            waits_for=self.waits_for(),
        )
        self.context.store.instances.save_instance(self.stored, change, now_ms)
        woken_ms = self.stored.wake_ms
        self.stored = replace(self.stored, version=self.stored.version + 1, wake_ms=self.state.wake_ms)
        if self.state.wake_ms is not None and self.state.wake_ms != woken_ms:
            self.context.tasks.enqueue(Task.ROUND_ADVANCE, str(self.instance), self.state.wake_ms)
        if decision is not None:
            self.decided = True
            log.info(
                "round.agreed",
                instance=str(self.instance),
                round=decision.certificate.round,
                votes=len(decision.certificate.signatures),
                took_ms=now_ms - self.stored.opened_ms,
            )

    def send(self, ready: Ready) -> None:
        """Broadcast without waiting: what is lost is relayed."""
        statements, quorums = ready.statements_to_send, ready.quorums_to_send
        if not statements and not quorums:
            return
        gossip = Gossip(statements=statements, quorums=quorums, bodies=load_bodies(self.context, statements))
        self.context.asking.in_background(
            self.context.peers.broadcast, gossip, self.context.identity.others(self.rules.committee)
        )

    def ask(self, ready: Ready) -> list[Event]:
        """What we judge, build and fetch ourselves, then peers, all at once."""
        answers: list[Event] = []
        for question in ready.questions:
            if isinstance(question, ValidateProposal):
                answers.append(self._judge(question))
            elif isinstance(question, GetValue):
                answers += self._build(question)
            elif isinstance(question, FetchValue):
                self._ask_for(question)
        if RecoverOwnVotes() in ready.questions:
            answers += self._compare(recall=True)
        elif SyncVotes() in ready.questions:
            answers += self._compare(recall=False)
        return answers

    def _compare(self, *, recall: bool) -> list[Event]:
        """Tell every peer which votes we hold and take what we lack; their knowledge of our own words comes with it.

        All that was heard comes before the word that a peer has answered: enough answers end the wait for our own
        words, and what another knew of them must not come behind our next statement.
        """
        held = HeldVotes(self.rules.config_digest, self.instance, summarise(self.state))
        events: list[Event] = []
        answered: list[Event] = []

        def ask(member: Address) -> Gossip:
            return self.context.peers.fetch_missing(member, held)

        subject = f"{'recall' if recall else 'compare'} {self.instance}"
        for member, answer in self.context.asking.gather(
            subject, ask, self.context.identity.others(self.rules.committee)
        ):
            if isinstance(answer, ValidatorError):
                log.debug("peer.silent", member=member, reason=str(answer))
                continue
            news = replace(answer, statements=tuple(s for s in answer.statements if self._is_news(s)))
            statements, quorums = verify_gossip(self.context, self.config, news, self.instance)
            self._keep_bodies(statements, answer.bodies)
            events += [Received(s) for s in statements]
            events += [ReceivedQuorum(q) for q in quorums]
            if recall:
                answered.append(OwnVotesRecovered(member))
        return events + answered

    def _is_news(self, statement: Statement) -> bool:
        """Before its signature is checked; own words are always heard, they may be unknown to our journal."""
        return statement.signer == self.rules.own or not why_ignored(self.state, statement)

    def _keep_bodies(self, statements: Sequence[Statement], bodies: Sequence[bytes]) -> None:
        """Observations and outcomes that come with statements naming them."""
        named = {s.value for s in statements if s.kind in WITH_BODY}
        for body in bodies:
            if body_digest(body) in named:
                try:
                    self.context.store.instances.save_body(body)
                except MalformedInput as error:
                    log.debug("body.malformed", instance=str(self.instance), reason=str(error))

    def _leads(self) -> bool:
        a = self.state
        return self.rules.own is not None and a.step in (Step.WAITING, Step.PROPOSE) and a.leader == self.rules.own

    def _ask_for(self, effect: FetchValue) -> None:
        self.context.asking.fetch_soon(self.instance, Wanted.VALUE, effect.value, list(effect.sources))
