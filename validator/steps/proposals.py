"""Proposals of an instance: what our own is built from, and what we think of another's.

An outcome is built from the observations of a quorum, and judged by the very observations that it names, our own set,
and the chain at the instance's block. Where something is not here or cannot be told now, the answer is "not yet".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

from validator.log import get_logger
from validator.ports.queue import NotYet
from validator.ports.stored import StoredInstance
from validator.protocol.codec.outcome import (
    decode_observation,
    decode_outcome,
    encode_outcome,
    part_order,
    set_root,
)
from validator.protocol.codec.variants import choose_variant, ranks_worse
from validator.protocol.columns import ERC_1271, MessageSet, Page, RecordSet, Row, all_pages
from validator.protocol.consensus.events import (
    Event,
    GetValue,
    ProposalValidated,
    ProposeValue,
    SetsHeld,
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
from validator.protocol.consensus.state import InstanceState, Rules, why_foreign
from validator.protocol.errors import MalformedInput, TransientError
from validator.protocol.joining import unite_pages
from validator.protocol.model import (
    Address,
    Digest,
    Identity,
    InstanceKind,
    Observation,
    Outcome,
    Root,
    Statement,
    StatementKind,
    StreamPart,
)
from validator.steps.asking import Wanted
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig, require_bundle
from validator.steps.late_candidates import behind_full_entry
from validator.steps.permissions import admission_to, admitted, late_scope
from validator.steps.scopes import scope_of
from validator.steps.serve_counts import CountsByLeaf

log = get_logger(__name__)


class Proposals:
    """One instance with all that is known of it here; ``state`` moves on while it is worked on."""

    def __init__(
        self, context: Context, stored: StoredInstance, config: EpochConfig, rules: Rules, state: InstanceState
    ) -> None:
        self.context = context
        self.stored = stored
        self.instance = stored.instance
        self.config = config
        self.rules = rules
        self.state = state

    # --- observations ---

    def _own_observation(self) -> Digest | None:
        """Digest of what was frozen at the cut-off; its body is stored already."""
        if self.instance.kind is InstanceKind.WINDOW:
            window = self.context.store.windows.load_window(self.instance.number)
            return window.observation if window is not None else None
        return self.context.store.windows.load_late_observation(self.instance.number)

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

    # --- building ---

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
        return scope_of(self.context, self.instance)

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


def _kept(pages: Iterable[Page], storable: Callable[[Page], list[bool]]) -> Iterator[Page]:
    """The messages that may be stored."""
    for page in pages:
        kept = page.keep(storable(page))
        if kept is not None:
            yield kept
