"""Advance: one instance, one look. Load its state, tell the core what is new, save, then speak.

Three callers, safe at any time: the listener after a peer's statement, the instance's own wake time, and beat. The
core's driver decides the order: state, own votes, quorums and decision are saved in one transaction on condition of the
state's version, then others hear of it, then peers and our own data are asked. A worker that was overtaken starts again
from what is stored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from validator.log import get_logger
from validator.ports.peers import Gossip, HeldVotes
from validator.ports.queue import NotYet, StepResult, Task
from validator.ports.store import PRUNED, StaleState, StoredInstance
from validator.protocol.codec.outcome import (
    body_digest,
    decode_observation,
    decode_outcome,
    encode_outcome,
    part_order,
    set_root,
)
from validator.protocol.codec.statement import sign_statement
from validator.protocol.codec.variants import choose_variant, ranks_worse
from validator.protocol.columns import ERC_1271, MessageSet, Page, RecordSet, Row, all_pages
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
    ProposalValidated,
    ProposeValue,
    Received,
    ReceivedQuorum,
    RecoverOwnVotes,
    Resume,
    SetsHeld,
    Start,
    SyncVotes,
    Tick,
    ValidateProposal,
)
from validator.protocol.consensus.proposal import (
    Answer,
    Draft,
    Scope,
    Span,
    Verdict,
    contract_signed,
    judge_acceptability,
    judge_validity,
    not_yet,
)
from validator.protocol.consensus.state import InstanceState, Rules, Step, Timeouts, encode_progress, why_foreign
from validator.protocol.consensus.views import describe_wait, summarise, why_ignored
from validator.protocol.errors import MalformedInput, TransientError, ValidatorError
from validator.protocol.joining import unite_pages
from validator.protocol.model import (
    Address,
    Digest,
    Identity,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    Root,
    Statement,
    StatementKind,
    StreamPart,
)
from validator.protocol.parameters import ParameterSet
from validator.steps.apply_decision import apply_decision
from validator.steps.asking import Wanted
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig, require_bundle
from validator.steps.eligibility import may_vote
from validator.steps.late_candidates import behind_full_entry
from validator.steps.permissions import admission_to, admitted, late_scope
from validator.steps.serve_counts import CountsByLeaf
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
        return StepResult("in hand")
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
        return StepResult("not opened yet")
    if head.queued:
        instances.clear_queued(instance)  # before the state is loaded: what comes from here on is queued anew
    if head.decided:
        return apply_decision(context, instance)
    if wake_ms is not None and head.wake_ms is not None and wake_ms < head.wake_ms:
        return StepResult("superseded")
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
        return StepResult("overtaken", "another worker was first")
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
    return StepResult("waiting its turn", reason)


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


class _Instance:
    """One instance while a task works on it."""

    def __init__(self, context: Context, stored: StoredInstance) -> None:
        self.context = context
        self.stored = stored
        self.instance = stored.instance
        self.config: EpochConfig = context.cut_points.instance_config(stored.instance)
        own = context.identity.address if may_vote(context, stored.instance) else None
        rules = Rules.of(
            stored.instance, stored.config_digest, self.config.committee, own, timeouts_of(self.config.parameters)
        )
        self.rules = rules
        self.state: InstanceState = restore_state(rules, stored)
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

    def _own_observation(self) -> Digest | None:
        """Digest of what was frozen at the cut-off; its body is stored already."""
        if self.instance.kind is InstanceKind.WINDOW:
            window = self.context.store.windows.load_window(self.instance.number)
            return window.observation if window is not None else None
        return self.context.store.windows.load_late_observation(self.instance.number)

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
        self.context.store.instances.save_instance(
            self.stored,
            encode_progress(self.state),
            said=ready.said,
            quorums=ready.quorums,
            certificate=None if decision is None else decision.certificate,
            evidence=[(pair.first, pair.second) for pair in ready.evidence],
            wake_ms=self.state.wake_ms,
            round=self.state.round,
            step=self.state.step.name.lower(),
            leader=self.state.leader,
            waits_for=self.waits_for(),
            now_ms=now_ms,
        )
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
        """Tell every peer which votes we hold and take what we lack; their knowledge of our own words comes with it."""
        held = HeldVotes(self.rules.config_digest, self.instance, summarise(self.state))
        events: list[Event] = []

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
                events.append(OwnVotesRecovered(member))
        return events

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

    # --- leading ---

    def _leads(self) -> bool:
        a = self.state
        return self.rules.own is not None and a.step in (Step.WAITING, Step.PROPOSE) and a.leader == self.rules.own

    def _observations(self) -> dict[Address, tuple[Digest, Observation]]:
        """The first observation of every member whose body is here."""
        held: dict[Address, tuple[Digest, Observation]] = {}
        for statement in self._observed():
            if statement.signer not in held:
                observation = self._load_observation(statement)
                if observation is not None:
                    held[statement.signer] = (statement.value, observation)
        return held

    def _observed(self) -> list[Statement]:
        return [s for s in self.state.votes.statements() if s.kind is StatementKind.OBSERVATION]

    def _used_observations(self) -> dict[Address, tuple[Digest, Observation]]:
        """What a proposal is built from: without members that are known to have signed two, where a quorum remains."""
        held = self._observations()
        times = Counter(s.signer for s in self._observed())
        single = {member: found for member, found in held.items() if times[member] == 1}
        return single if len(single) >= self.rules.quorum else held

    def _sets_held(self) -> SetsHeld:
        """Whose set is here; what is not is fetched, from each observer independently."""
        observations = self._observations()
        for statement in self._observed():
            if statement.signer not in observations and self.context.store.instances.load_body(statement.value) is None:
                others = [m for m in self.context.identity.others(self.rules.committee) if m != statement.signer]
                self.context.asking.fetch_soon(
                    self.instance, Wanted.OBSERVATION, statement.value, [statement.signer, *others]
                )
        reproduced = set()
        for member, (_, observation) in observations.items():
            if self.context.store.sets.has_set(observation.set_root):
                reproduced.add(member)
            elif member != self.context.identity.address:
                self.context.asking.fetch_soon(self.instance, Wanted.SET, observation.set_root, [member])
        return SetsHeld(frozenset(observations), frozenset(reproduced))

    def _build(self, effect: GetValue) -> list[Event]:
        observations = self._used_observations()
        if len(observations) < self.rules.quorum:
            return []
        held = [o for _, o in observations.values() if self.context.store.sets.has_set(o.set_root)]
        try:
            union = self._unite(held)
            draft = Draft(
                self.instance,
                self._scope([part for part, _ in union]),
                dict(observations.values()),
                len(self.rules.committee),
                self.config.parameters,
            )
            entries = self.context.store.sets.save_ordered(draft.pages(union))
        except TransientError as error:
            log.info("proposal.not_yet", instance=str(self.instance), reason=str(error))
            return []
        outcome = draft.outcome(entries)
        body = encode_outcome(outcome)
        digest = self.context.store.instances.save_body(body)
        log.info(
            "round.proposed",
            instance=str(self.instance),
            round=effect.round,
            messages=outcome.count,
            observations=len(observations),
        )
        return [ProposeValue(effect.round, digest)]

    def _unite(self, observed: Sequence[Observation]) -> list[tuple[StreamPart, Iterator[tuple[Page, bool]]]]:
        """What the instance may hold of observed sets, partition by partition; equal partitions are read once."""
        times = Counter(observation.set_root for observation in observed)
        sets = [(self.context.store.sets.open_set(root), count) for root, count in times.items()]
        holders: dict[StreamPart, dict[Root, tuple[int, MessageSet]]] = defaultdict(dict)
        for messages, count in sets:
            for entry in messages.entries:
                before, _ = holders[entry.stream_part].get(entry.root, (0, messages))
                holders[entry.stream_part][entry.root] = (before + count, messages)
        storable = self._storable()
        serve_counts = CountsByLeaf.of_instance(self.context, self.instance)

        def choose(variants: Sequence[tuple[Row, int]]) -> Row:
            return choose_variant([(row, serve_counts.of(row.leaf, observers)) for row, observers in variants])

        def sources(part: StreamPart) -> list[tuple[int, Iterator[Page]]]:
            return [(count, _kept(held.pages(part), storable)) for count, held in holders[part].values()]

        return [(part, unite_pages(sources(part), choose)) for part in sorted(holders, key=part_order)]

    # --- judging ---

    def _judge(self, effect: ValidateProposal) -> ProposalValidated:
        outcome, validity = self._judge_validity(effect.value)
        acceptable = not_yet("validity is not known")
        if effect.fresh and validity.answer is Answer.YES and outcome is not None:
            try:
                acceptable = self._judge_acceptability(outcome, effect.round)
            except TransientError as error:  # our own set is damaged: until it is here again we cannot tell
                acceptable = not_yet(str(error))
        for verdict, what in ((validity, "invalid"), (acceptable, "unacceptable")):
            if verdict.answer is Answer.NO:
                log.warning(f"proposal.{what}", instance=str(self.instance), round=effect.round, reason=verdict.reason)
        return ProposalValidated(effect.value, effect.round, validity.answer, acceptable.answer)

    def _judge_validity(self, value: Digest) -> tuple[Outcome | None, Verdict]:
        body = self.context.store.instances.load_body(value)
        if body is None:
            return None, not_yet("the outcome is not here")
        try:
            outcome = decode_outcome(body)
        except MalformedInput as error:
            return None, Verdict(Answer.NO, str(error))
        if outcome.instance != self.instance:
            return None, Verdict(Answer.NO, "an outcome of another instance")
        root = set_root(outcome.entries)
        if not self.context.store.sets.has_set(root):
            return outcome, not_yet("messages are missing")
        verdict = judge_validity(
            outcome,
            self._named_observations(outcome),
            self.context.store.sets.open_set(root),
            self._span(),
            len(self.rules.committee),
            self.config.parameters,
        )
        return outcome, verdict

    def _named_observations(self, outcome: Outcome) -> dict[Digest, Observation]:
        """The observations that an outcome names, as far as they are here and genuine.

        Each is judged by its own signature and body, whether or not it is among the two that are kept of its signer.
        """
        named: dict[Digest, Observation] = {}
        for statement in (*self._observed(), *self.stored.statements):
            if statement.kind is not StatementKind.OBSERVATION or statement.value in named:
                continue
            if statement.value in outcome.observations and not why_foreign(self.rules, statement):
                observation = self._load_observation(statement)
                if observation is not None:
                    named[statement.value] = observation
        return named

    def _load_observation(self, statement: Statement) -> Observation | None:
        """The body of an observation statement if it is here, well-formed and its signer's own."""
        body = self.context.store.instances.load_body(statement.value)
        if body is None:
            return None
        try:
            observation = decode_observation(body)
        except MalformedInput as error:
            log.debug("observation.malformed", signer=statement.signer, reason=str(error))
            return None
        fits = observation.instance == self.instance and observation.observer == statement.signer
        return observation if fits else None

    def _judge_acceptability(self, outcome: Outcome, round: int) -> Verdict:
        try:
            return self._ask_chain(outcome, round)
        except TransientError as error:
            return not_yet(f"the chain cannot tell now: {error}")

    def _ask_chain(self, outcome: Outcome, round: int) -> Verdict:
        own = self._own_set()
        parts = [e.stream_part for e in (*outcome.entries, *own.entries)]
        scope = self._scope(parts)
        admits = admission_to(self.context, self.instance)
        messages = self.context.store.sets.open_set(set_root(outcome.entries))
        serve_counts = CountsByLeaf.of_instance(self.context, self.instance)
        used = self._named_observations(outcome)
        allowed = contract_signed(list(used.values()), len(self.rules.committee))
        late = self.instance.kind is InstanceKind.LATE

        def worse(theirs: Row, ours: Row) -> bool:
            return ranks_worse((theirs, serve_counts.of(theirs.leaf)), (ours, serve_counts.of(ours.leaf)))

        def counts(row: Row) -> bool:
            """Of contract signatures those that enough observations list."""
            return row.kind != ERC_1271 or row.signed_digest in allowed

        def seen(part: StreamPart) -> tuple[Iterable[Row], bool]:
            pages, complete = self._seen(used, part)
            return (row for page in pages for row in page.rows() if counts(row)), complete

        return judge_acceptability(
            outcome,
            messages,
            scope,
            own,
            worse_variant=worse if round < len(self.rules.committee) else None,
            counts=counts,
            stored=self._stored_among(all_pages(messages)) if late else None,
            behind_full=behind_full_entry(self.context) if late else None,
            admits=lambda page: all(admitted(self.instance, admits, page)),
            seen=seen,
        )

    def _seen(self, used: Mapping[Digest, Observation], part: StreamPart) -> tuple[Iterator[Page], bool]:
        """What used observations hold of a partition; sets that are not here are fetched, from the leader too."""
        held: list[MessageSet] = []
        complete = True
        for observation in used.values():
            root = observation.set_root
            if self.context.store.sets.has_set(root):
                held.append(self.context.store.sets.open_set(root))
            else:
                complete = False
                leader = [] if self.state.leader is None else [self.state.leader]
                sources = self.context.identity.others(dict.fromkeys([*leader, observation.observer]))
                self.context.asking.fetch_soon(self.instance, Wanted.SET, root, sources)
        storable = self._storable()
        return chain.from_iterable(_kept(messages.pages(part), storable) for messages in held), complete

    def _storable(self) -> Callable[[Page], list[bool]]:
        """Which messages the instance may hold: what the chain admits, in a late set none that is stored, none that
        was cut."""
        admits = admission_to(self.context, self.instance)
        if self.instance.kind is InstanceKind.WINDOW:
            return lambda page: admitted(self.instance, admits, page)
        behind = behind_full_entry(self.context)

        def storable(page: Page) -> list[bool]:
            stored = self._stored_among([page])
            allowed = admitted(self.instance, admits, page)
            rows = zip(allowed, page.rows(), strict=True)
            return [may and row.identity not in stored and not behind(row) for may, row in rows]

        return storable

    def _stored_among(self, pages: Iterable[Page]) -> set[Identity]:
        """Identities that an agreed set holds."""
        return self.context.store.archive.stored_identities(row.identity for page in pages for row in page.rows())

    def _scope(self, parts: Sequence[StreamPart]) -> Scope:
        if self.instance.kind is InstanceKind.LATE:
            return late_scope(self.context, self.instance, parts)
        return self.context.cut_points.scope_of(self.instance)

    def _own_set(self) -> MessageSet:
        """What we observed, frozen at the cut-off."""
        digest = self._own_observation()
        if digest is None:
            return RecordSet(())
        body = self.context.store.instances.load_body(digest)
        if body is None:  # saved in the transaction that froze it, and damaged since
            sources = self.context.identity.others(self.rules.committee)
            self.context.asking.fetch_soon(self.instance, Wanted.OBSERVATION, digest, sources)
            raise NotYet("our own observation is damaged")
        return self.context.store.sets.open_set(decode_observation(body).set_root)

    def _span(self) -> Span:
        if self.instance.kind is InstanceKind.WINDOW:
            window = self.context.network.window(self.instance.number)
            assert window is not None
            return Span.of_window(window)
        return Span.of_late_set(require_bundle(self.context.store, self.instance.number).end_ms, self.config.parameters)

    def _ask_for(self, effect: FetchValue) -> None:
        self.context.asking.fetch_soon(self.instance, Wanted.VALUE, effect.value, list(effect.sources))


def _kept(pages: Iterable[Page], storable: Callable[[Page], list[bool]]) -> Iterator[Page]:
    """The messages that may be stored."""
    for page in pages:
        kept = page.keep(storable(page))
        if kept is not None:
            yield kept
