"""What the state machine of an instance is told, and what it asks to be done.

Events come from the shell with the time. Effects are in order: what is persisted comes before what others can see.
Performing an effect twice is harmless. These and the state are frozen msgspec structs, not dataclasses: a dozen are
made per vote, and making a frozen dataclass takes ten times as long.
"""

from __future__ import annotations

from msgspec import Struct

from validator.protocol.consensus.evidence import Evidence
from validator.protocol.consensus.proposal import Answer
from validator.protocol.model import Address, Digest, Statement, VoteQuorum

# --- events -----------------------------------------------------------------------------------------


class Resume(Struct, frozen=True, gc=False):
    """The instance is met for the first time, or by a new process: what is owed is asked for again."""


class Start(Struct, frozen=True, gc=False):
    """The cut-off has passed."""


class Observed(Struct, frozen=True, gc=False):
    """The own observation is frozen: its digest."""

    value: Digest


class OwnVotesRecovered(Struct, frozen=True, gc=False):
    """``member`` answered which statements of ours it knows, and all of them were received before."""

    member: Address


class Received(Struct, frozen=True, gc=False):
    """A statement whose signature is verified."""

    statement: Statement


class ReceivedQuorum(Struct, frozen=True, gc=False):
    """A polka or certificate whose signatures are verified."""

    quorum: VoteQuorum


class SetsHeld(Struct, frozen=True, gc=False):
    """Whose observation is here, and whose set reproduces its digests; ourselves included."""

    observed: frozenset[Address]
    reproduced: frozenset[Address]


class ProposeValue(Struct, frozen=True, gc=False):
    """Answer to ``GetValue``: the outcome built for this round; durable."""

    round: int
    value: Digest


class ProposalValidated(Struct, frozen=True, gc=False):
    """Answer to ``ValidateProposal``. YES of validity means too that all data behind the value is durable here."""

    value: Digest
    round: int
    validity: Answer
    acceptable: Answer


class DataArrived(Struct, frozen=True, gc=False):
    """Data came in (bodies, sets, chain state): what was "not yet" is asked again."""


class Tick(Struct, frozen=True, gc=False):
    """Time has passed."""


Event = (
    Resume
    | Start
    | Observed
    | OwnVotesRecovered
    | Received
    | ReceivedQuorum
    | SetsHeld
    | ProposeValue
    | ProposalValidated
    | DataArrived
    | Tick
)


# --- effects: persisted ones first ------------------------------------------------------------------


class SignAndBroadcast(Struct, frozen=True, gc=False):
    """Sign, journal in the state's transaction, then broadcast. A proposal travels with its body."""

    statement: Statement


class StoreStatement(Struct, frozen=True, gc=False):
    """Persist a statement of another member."""

    statement: Statement


class StoreQuorum(Struct, frozen=True, gc=False):
    """Persist a polka or certificate."""

    quorum: VoteQuorum


class StoreEvidence(Struct, frozen=True, gc=False):
    evidence: Evidence


class Halt(Struct, frozen=True, gc=False):
    """Alarm: a statement of ours that our journal does not know. We say nothing more in this instance."""

    statement: Statement


class Decide(Struct, frozen=True, gc=False):
    """Persist the decision; the value itself may be missing and is with ``sources``."""

    certificate: VoteQuorum
    sources: tuple[Address, ...]


class SendQuorum(Struct, frozen=True, gc=False):
    """Send to all members."""

    quorum: VoteQuorum


class Resend(Struct, frozen=True, gc=False):
    """Broadcast own statements again, as signed then."""

    statements: tuple[Statement, ...]


class RecoverOwnVotes(Struct, frozen=True, gc=False):
    """Ask all peers for our own newest statements of this instance; each answer is a ``OwnVotesRecovered``."""


class GetValue(Struct, frozen=True, gc=False):
    """Build a value from what is held now and answer with ``ProposeValue``; nothing, if that is not possible yet."""

    round: int


class ValidateProposal(Struct, frozen=True, gc=False):
    """Answer with ``ProposalValidated``. ``fresh``: acceptability is asked too, in the terms of this round."""

    value: Digest
    round: int
    fresh: bool


class FetchValue(Struct, frozen=True, gc=False):
    """Fetch the value's body and set from these members, likeliest first; then ``DataArrived``."""

    value: Digest
    sources: tuple[Address, ...]


class SyncVotes(Struct, frozen=True, gc=False):
    """Exchange summaries of votes with all peers and receive what is missing."""


class WakeAt(Struct, frozen=True, gc=False):
    ms: int


class Ignore(Struct, frozen=True, gc=False):
    what: Event
    reason: str


Effect = (
    SignAndBroadcast
    | StoreStatement
    | StoreQuorum
    | StoreEvidence
    | Halt
    | Decide
    | SendQuorum
    | Resend
    | RecoverOwnVotes
    | GetValue
    | ValidateProposal
    | FetchValue
    | SyncVotes
    | WakeAt
    | Ignore
)
