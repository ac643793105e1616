"""Who performs what the machine asks for, and in which order: persist, then send, then ask. One place for everybody.

A shell (the validator's task, the simulator, the benchmark) has a handler for each; ``drive`` calls them in that order,
as raft's Ready prescribes it:

    persist   state, statements, quorums, evidence and decision, in one transaction on condition of the state's
              version. A shell that was overtaken, or cannot save, raises: then nothing was sent and nothing asked
    send      what others can see
    ask       questions that take time; their answers are the next events

A new vote is signed before it is saved, and counted by the machine at once; nobody sees it earlier than its row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from validator.protocol.consensus.events import (
    Decide,
    Effect,
    Event,
    FetchValue,
    GetValue,
    Ignore,
    Received,
    RecoverOwnVotes,
    Resend,
    SendQuorum,
    SignAndBroadcast,
    StoreEvidence,
    StoreQuorum,
    StoreStatement,
    SyncVotes,
    ValidateProposal,
    WakeAt,
)
from validator.protocol.consensus.evidence import Evidence
from validator.protocol.consensus.round import on_event
from validator.protocol.consensus.state import InstanceState
from validator.protocol.model import Statement, VoteQuorum

Question = ValidateProposal | GetValue | FetchValue | RecoverOwnVotes | SyncVotes
Sign = Callable[[Statement], Statement]


@dataclass(frozen=True, slots=True)
class Ready:
    """What events have led to: the state before and now, and all effects in order, by what is to be done with them."""

    before: InstanceState
    state: InstanceState
    effects: tuple[Effect, ...]

    @property
    def is_idle(self) -> bool:
        """Nothing has changed, and there is nothing to do."""
        return self.state is self.before and all(isinstance(e, Ignore) for e in self.effects)

    # --- persisted ---

    @property
    def said(self) -> tuple[Statement, ...]:
        """Own new statements, signed: for the journal."""
        return tuple(e.statement for e in self.effects if isinstance(e, SignAndBroadcast))

    @property
    def kept(self) -> tuple[Statement, ...]:
        return tuple(e.statement for e in self.effects if isinstance(e, StoreStatement))

    @property
    def quorums(self) -> tuple[VoteQuorum, ...]:
        return tuple(e.quorum for e in self.effects if isinstance(e, StoreQuorum))

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        return tuple(e.evidence for e in self.effects if isinstance(e, StoreEvidence))

    @property
    def decision(self) -> Decide | None:
        return next((e for e in self.effects if isinstance(e, Decide)), None)

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to persist."""
        kinds = (SignAndBroadcast, StoreStatement, StoreQuorum, StoreEvidence, Decide)
        return self.state is not self.before or any(isinstance(e, kinds) for e in self.effects)

    # --- sent ---

    @property
    def statements_to_send(self) -> tuple[Statement, ...]:
        """Own statements, new ones and those said again."""
        sent: list[Statement] = []
        for effect in self.effects:
            if isinstance(effect, SignAndBroadcast):
                sent.append(effect.statement)
            elif isinstance(effect, Resend):
                sent += effect.statements
        return tuple(sent)

    @property
    def quorums_to_send(self) -> tuple[VoteQuorum, ...]:
        return tuple(e.quorum for e in self.effects if isinstance(e, SendQuorum))

    # --- asked ---

    @property
    def questions(self) -> tuple[Question, ...]:
        """Each once: several events of one look may ask the same, and one answer serves them all."""
        return tuple(dict.fromkeys(e for e in self.effects if isinstance(e, Question)))


class Shell(Protocol):
    """What the world does for an instance. An error of ``persist`` or ``send`` ends the look."""

    def sign(self, statement: Statement) -> Statement: ...

    def persist(self, ready: Ready) -> None:
        """Durable when it returns; nothing to do where nothing has changed."""

    def send(self, ready: Ready) -> None: ...

    def ask(self, ready: Ready) -> Sequence[Event]:
        """The answers that are there at once; others come as events of a later look."""


def drive(
    state: InstanceState, events: Iterable[Event], now_ms: int, shell: Shell
) -> tuple[InstanceState, Sequence[Event]]:
    """Tell the machine, and have done what it asks for. The new state, and the answers: the next events."""
    ready = prepare(state, events, now_ms, shell.sign)
    shell.persist(ready)
    shell.send(ready)
    return ready.state, shell.ask(ready)


def prepare(state: InstanceState, events: Iterable[Event], now_ms: int, sign: Sign) -> Ready:
    """All events, one after the other."""
    before, effects = state, list[Effect]()
    for event in events:
        state, more = advance(state, event, now_ms, sign)
        effects += more
    return Ready(before, state, tuple(effects))


def advance(a: InstanceState, event: Event, now_ms: int, sign: Sign) -> tuple[InstanceState, tuple[Effect, ...]]:
    """``on_event`` until nothing is left to say; what is said is signed then, and the last wake time stands."""
    effects: list[Effect] = []
    wake: WakeAt | None = None
    pending: list[Event] = [event]
    for one in pending:
        a, more = on_event(a, one, now_ms)
        for effect in more:
            if isinstance(effect, SignAndBroadcast):
                signed = sign(effect.statement)
                effects.append(SignAndBroadcast(signed))
                pending.append(Received(signed))
            elif isinstance(effect, WakeAt):
                wake = effect
            else:
                effects.append(effect)
    if wake is not None:
        effects.append(wake)
    return a, tuple(effects)
