"""The promises that are examined, by name, and what nobody who looks from outside can know.

Every failure begins with the name of its claim, and a run ends with the list of all of them and how often each was
checked: a claim that was checked zero times says so. The names are data in ``--json`` too.
"""

from __future__ import annotations

from enum import StrEnum


class Claim(StrEnum):
    """One kind of promise; in the order in which a run is read."""

    NETWORK = "network"
    """Folder, network file and chain speak of one network."""
    BUNDLES = "bundle files"
    """Each accepted report's file is there, whole, and has exactly the rows, roots and tags that it claims."""
    ORDER = "bundle order"
    """Each bundle is the next one: its number, its predecessor's root, consecutive windows."""
    WINDOWS = "windows decided once"
    """Every window of the network has exactly one outcome."""
    BOUNDARIES = "bundle boundaries"
    """Each bundle ends where count, bytes or the epoch's border say, not earlier and not later."""
    CONFIGS = "configs"
    """What was agreed under is the network file's, the contract's and the chain's own."""
    COMMITTEES = "committees"
    """Members are the nodes that were staked with a validator URL when the epoch began."""
    CERTIFICATES = "certificates"
    """A quorum of the committee signed the outcome in one round."""
    BLOCKS = "blocks of outcomes"
    """An outcome's block is the highest one the lag before its window."""
    OBSERVATIONS = "observations used"
    """Each observation that an outcome used is a member's own word about that instance."""
    QUORUMS = "quorums of observers"
    """An outcome used the observations of a quorum of distinct members."""
    PRICES = "prices"
    """A price is the lower median of the observed ones within its bounds, a late set has none."""
    SHARES = "broker shares"
    """Served and missed bytes are the lower medians of the observed ones, at most the window's bytes."""
    SERVED = "served bytes by delivery logs"
    """No broker is paid for more than ever reached it."""
    SCOPE = "entries in scope"
    """A window has an entry for every partition that its block has in scope, and no other."""
    BUDGETS = "budgets and full entries"
    """No entry holds more than its budget; one is marked full only where a largest message would not fit."""
    INCOMPLETE = "incomplete entries"
    """An entry is marked incomplete exactly where too few of the observers had it complete."""
    EQUIVOCATIONS = "equivocations and their evidence"
    """Flags, leaves and count follow from the messages."""
    VARIANTS = "variants"
    """An entry is marked so only where brokers had two forms of one message."""
    TIMES = "message times"
    """Each message lies in its window, or within the reach of its late set."""
    SIGNATURES = "message signatures"
    """Each stored message is signed by its publisher, a contract's where enough observers found it valid."""
    SIGNATURE_TYPES = "signature types"
    """A network of some hundred messages stores some of each of the five ways to sign."""
    PERMISSIONS = "publish permissions"
    """Each stored message is of somebody who might publish at its block."""
    COMPLETE = "messages complete"
    """Each valid message that reached a broker is stored."""
    ONCE = "messages stored once"
    """No message is in two sets."""
    EXACT = "messages as published"
    """What is stored is what somebody published, field by field, and reached a broker."""
    IN_TIME = "messages in time"
    """What was at brokers before the cut-off is in its window, what came later in the first late set it could reach."""
    UPLOADS = "uploads paid once"
    """Each bundle was paid for once, by the validator that announced it."""
    FEES = "upload fees"
    """Each transaction cost what the gateway asks for its size."""
    BOOKS = "gateway's books"
    """Payments, headers and wallets agree."""
    ACCEPTED = "reports accepted"
    """The contract holds every report, in order, as it was sent."""
    PROVABLE = "messages proven to the contract"
    """The contract takes proofs of stored messages, and not with another content."""
    REPORT_SIGNATURES = "report signatures"
    """A quorum of the committee signed each report."""
    CONTENT = "report contents"
    """A report says of its bundle and the chain what they are."""
    ROTATIONS = "committee rotations"
    """The last report of an epoch, and no other, names the next committee."""
    STREAMS = "stream payments"
    """Streams pay what their bytes and partitions cost, by the network's prices."""
    CONSUMERS = "consumer payments"
    """Consumers pay what they signed receipts for, and no more."""
    NODES = "rewards and penalties"
    """Brokers earn and lose by what they served and missed, the uploader its part."""
    TREASURY = "treasury"
    """The treasury gets its part, and no other money goes there."""
    LEDGER = "ledgers"
    """What reports leave to the next ones is what the account gives."""
    MOVED = "money moved"
    """Captures are node changes and treasury, in the report and in what the contract moved."""
    BALANCES = "balances left"
    """What is left in the contracts is what was put in, less what reports took."""
    REFUSALS = "refused messages"
    """Brokers refused the forged messages that reached them, each by its reason, and no valid one."""
    KILLED = "killed validator"
    """The validator that was killed came back and voted."""


UNKNOWABLE = (
    "a message that reached no log: dropped by its publisher, by every broker, or from all of their logs alike",
    "what a broker answered to an observer: shares, incomplete partitions and prices are each observer's signed word, "
    "and only their medians count",
    "the sets behind observations: roots are signed, sets are not published",
    "whether something was cut from an entry that is marked full: only that it may have been",
    "which of two valid forms of one message most brokers served, and that two forms went unmarked",
    "when a late message first reached a validator: only when it reached brokers",
    "that a member voted twice where no two of its votes were kept",
    "what a broker refused that was not put in its way on purpose: it says so itself",
    "what the treasury's owner has withdrawn: the contract keeps no record of it",
)
"""What is wrong without leaving a trace that others can check."""
