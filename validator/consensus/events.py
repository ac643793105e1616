"""What the state machine of an instance is told, and what it asks to be done.

Events come from the shell with the time. Effects are in order: what is persisted comes before what others can see.
Performing an effect twice is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass

from validator.consensus.evidence import Evidence
from validator.consensus.proposal import Answer
from validator.model import Address, Digest, Statement, VoteQuorum

# --- events -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resume:
    """The instance is met for the first time, or by a new process: what is owed is asked for again."""


@dataclass(frozen=True, slots=True)
class Start:
    """The cut-off has passed."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The own observation is frozen: its digest."""

    value: Digest


@dataclass(frozen=True, slots=True)
class Recalled:
    """``member`` answered which statements of ours it knows, and all of them were received before."""

    member: Address


@dataclass(frozen=True, slots=True)
class Received:
    """A statement whose signature is verified."""

    statement: Statement


@dataclass(frozen=True, slots=True)
class ReceivedQuorum:
    """A proof or certificate whose signatures are verified."""

    quorum: VoteQuorum


@dataclass(frozen=True, slots=True)
class SetsHeld:
    """Whose observation is here, and whose set reproduces its digests; ourselves included."""

    observed: frozenset[Address]
    reproduced: frozenset[Address]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Answer to ``Build``: the outcome built for this round; durable."""

    round: int
    value: Digest


@dataclass(frozen=True, slots=True)
class Judged:
    """Answer to ``Judge``. YES of validity means too that all data behind the value is durable here."""

    value: Digest
    round: int
    validity: Answer
    acceptable: Answer


@dataclass(frozen=True, slots=True)
class Arrived:
    """Data came in (bodies, sets, chain state): what was "not yet" is asked again."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Resume | Start | Observed | Recalled | Received | ReceivedQuorum | SetsHeld | Candidate | Judged | Arrived | Tick
)


# --- effects: persisted ones first ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    """Sign, journal in the state's transaction, then broadcast. A proposal travels with its body."""

    statement: Statement


@dataclass(frozen=True, slots=True)
class Keep:
    """Persist a statement of another member."""

    statement: Statement


@dataclass(frozen=True, slots=True)
class KeepQuorum:
    """Persist a proof or certificate."""

    quorum: VoteQuorum


@dataclass(frozen=True, slots=True)
class KeepEvidence:
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Bar:
    """Alarm: a statement of ours that our journal does not know. We say nothing more in this instance."""

    statement: Statement


@dataclass(frozen=True, slots=True)
class Decide:
    """Persist the decision; the value itself may be missing and is with ``sources``."""

    certificate: VoteQuorum
    sources: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class SendQuorum:
    """Send to all members."""

    quorum: VoteQuorum


@dataclass(frozen=True, slots=True)
class Resend:
    """Broadcast own statements again, as signed then."""

    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class AskOwn:
    """Ask all peers for our own newest statements of this instance; each answer is a ``Recalled``."""


@dataclass(frozen=True, slots=True)
class Build:
    """Build a candidate from what is held now and answer with ``Candidate``; nothing, if that is not possible yet."""

    round: int


@dataclass(frozen=True, slots=True)
class Judge:
    """Answer with ``Judged``. ``fresh``: acceptability is asked too, in the terms of this round."""

    value: Digest
    round: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class Obtain:
    """Fetch the value's body and set from these members, likeliest first; then ``Arrived``."""

    value: Digest
    sources: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """Exchange summaries of votes with all peers and receive what is missing."""


@dataclass(frozen=True, slots=True)
class WakeAt:
    ms: int


@dataclass(frozen=True, slots=True)
class Ignore:
    what: Event
    reason: str


Effect = (
    Say
    | Keep
    | KeepQuorum
    | KeepEvidence
    | Bar
    | Decide
    | SendQuorum
    | Resend
    | AskOwn
    | Build
    | Judge
    | Obtain
    | Compare
    | WakeAt
    | Ignore
)
