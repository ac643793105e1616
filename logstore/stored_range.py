"""All that the network stored of one stream partition in a span of time, as a file, and what it proves.

    ["stored-range/1", chain id, ReportManager, stream id, partition, from_ms, until_ms, parts]
    part: [bundle number, bundle root, kind, number, messages, proof]

canonical CBOR. A part is one window or one late set (kind and number name it): the canonical bytes of its messages in
[from_ms, until_ms), and the proof that these are all, or that there is no entry for the partition; it ends at the root
of the bundle (``protocol.proof``). Windows are those that overlap the span. Late sets are those of the bundles from the
first window's on, as far as the network lets them reach back; later ones may come after the file was made.

Whether the windows are all is a question of time alone, which the network's file answers; whether late sets are
missing, and whether the roots are the contract's, the contract answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from logstore.errors import Refused, require
from logstore.stored_message import describe_message, require_network
from logstore.times import format_time
from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_list, read_u64
from validator.protocol.codec.outcome import read_instance
from validator.protocol.codec.proof import decode_proof, encode_proof
from validator.protocol.codec.signatures import VALID, verify_batch
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address, InstanceId, InstanceKind, Message, Reason, Root, StreamPart
from validator.protocol.parameters import Network
from validator.protocol.proof import AbsenceProof, RangeProof, verify_absence, verify_range

if TYPE_CHECKING:
    from logstore.reports import Reports
    from validator.net.chain.bundles import AcceptedBundle

KIND = "stored-range/1"
MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RangePart:
    """One window, or one late set, with its messages of the span."""

    number: int
    root: Root
    instance: InstanceId
    messages: tuple[bytes, ...]
    proof: RangeProof | AbsenceProof


@dataclass(frozen=True, slots=True)
class StoredRange:
    """What the file holds. Roots are what it says of itself: the contract's are another matter."""

    chain_id: int
    report_manager: Address
    part: StreamPart
    from_ms: int
    until_ms: int
    parts: tuple[RangePart, ...]


def encode_range(stored: StoredRange) -> bytes:
    parts: list[Any] = [
        [p.number, p.root, int(p.instance.kind), p.instance.number, list(p.messages), encode_proof(p.proof)]
        for p in stored.parts
    ]
    return cbor.encode_object(
        KIND, stored.chain_id, stored.report_manager, *stored.part, stored.from_ms, stored.until_ms, parts
    )


def decode_range(data: bytes) -> StoredRange:
    """Inverse of ``encode_range``; nothing is proven yet. Raises MalformedInput."""
    f = cbor.decode_object(data, KIND, 7, max_bytes=MAX_FILE_BYTES)
    if not isinstance(f[2], str):
        raise MalformedInput("stream_id", "not a text")
    return StoredRange(
        read_u64(f[0], "chain_id"),
        Address(read_bytes(f[1], 20, "report_manager")),
        (f[2], read_u64(f[3], "partition")),
        read_u64(f[4], "from_ms"),
        read_u64(f[5], "until_ms"),
        tuple(_read_part(item) for item in read_list(f[6], "parts")),
    )


def _read_part(item: Any) -> RangePart:
    f = read_list(item, "part", 6)
    proof = decode_proof(read_blob(f[5], "proof"))
    if not isinstance(proof, RangeProof | AbsenceProof) or proof.bundle is None:
        raise MalformedInput("proof", "not that of a span in a bundle")
    messages = tuple(read_blob(message, "message") for message in read_list(f[4], "messages"))
    number, root = read_u64(f[0], "number"), Root(read_bytes(f[1], 32, "root"))
    return RangePart(number, root, read_instance(f[2], f[3]), messages, proof)


@dataclass(frozen=True, slots=True)
class RangeVerdict:
    """All messages of a span, as far as was asked."""

    stored: StoredRange
    messages: tuple[Message, ...]
    by_contracts: int
    """Messages whose signature only a contract can check."""
    has_windows: bool
    """The network's file says that no window is missing."""
    are_roots_known: bool = False
    """The caller knew the roots."""
    accepted: tuple[AcceptedBundle, ...] | None = None
    """What the contract holds of the bundles; None where it was not asked."""
    newer: str = ""
    """Late sets that the file cannot have, in words."""

    @property
    def numbers(self) -> list[int]:
        """Of the bundles."""
        return sorted({part.number for part in self.stored.parts})

    @property
    def proves(self) -> str:
        s = self.stored
        what = f"the {len(self.messages)} messages are all" if self.messages else "there is nothing"
        span = f"of {s.part[0]}/{s.part[1]} from {format_time(s.from_ms)} to {format_time(s.until_ms)}"
        where = (
            "in windows and late sets of" if self.has_windows else "in those windows and late sets that it names, of"
        )
        bundles = f"{where} {len(self.numbers)} bundles"
        if self.accepted is not None:
            return f"{what} {span} {bundles}, whose roots the contract holds"
        return f"{what} {span} {bundles}, if the roots are theirs"

    @property
    def leaves_open(self) -> str:
        """What it does not prove, or nothing."""
        said = []
        if not self.has_windows:
            said.append("whether a window is missing: name the network's file")
        if self.accepted is None:
            if not self.are_roots_known:
                said.append(
                    "whether the contract holds these roots: ask it (without --offline), or name those you trust with"
                    " --root"
                )
            said.append("whether a late set is missing: only the contract knows")
        elif not all(bundle.is_final for bundle in self.accepted):
            said.append("a report's block is not final yet; ask again in a while")
        if self.newer:
            said.append(self.newer)
        if self.by_contracts:
            said.append(f"{self.by_contracts} messages are signed by contracts, which only the chain can check")
        return "; ".join(said)


def verify_stored_range(
    subject: str, data: bytes, network: Network | None, roots: Iterable[bytes] | None = None
) -> RangeVerdict:
    """What follows from the file's bytes, from the network's file, and from roots that the caller knows.

    Raises:
        Refused: names the field that does not fit, and the window or late set.
    """
    try:
        stored = decode_range(data)
    except MalformedInput as error:
        raise Refused(subject, error.field, error.reason) from error
    messages: list[Message] = []
    for part in stored.parts:
        try:
            messages += _verify_part(stored, part)
        except MalformedInput as error:
            raise Refused(subject, error.field, f"{part.instance}: {error.reason}") from error
    _require_consistent(subject, stored.parts)
    if roots is not None:
        known = frozenset(roots)
        for part in stored.parts:
            require(part.root in known, subject, "root", f"that of bundle {part.number} is none that you named")
    if network is not None:
        require_network(subject, network, stored.chain_id, stored.report_manager)
        _require_windows(subject, stored, network)
    messages.sort(key=lambda m: (m.timestamp_ms, m.sequence_number))
    by_contracts = _check_signatures(subject, messages)
    return RangeVerdict(stored, tuple(messages), by_contracts, network is not None, roots is not None)


def _verify_part(stored: StoredRange, part: RangePart) -> list[Message]:
    if part.instance.kind is InstanceKind.LATE and part.instance.number != part.number:
        raise MalformedInput("number", f"bundle {part.number} holds no late set of another")
    if isinstance(part.proof, AbsenceProof):
        if part.messages:
            raise MalformedInput("messages", "some, where there is proven to be none")
        verify_absence(part.proof, part.instance, stored.part, part.root)
        return []
    return verify_range(
        part.proof, part.instance, stored.part, stored.from_ms, stored.until_ms, part.messages, part.root
    )


def _require_consistent(subject: str, parts: Sequence[RangePart]) -> None:
    roots: dict[int, Root] = {}
    instances: set[InstanceId] = set()
    for part in parts:
        require(part.instance not in instances, subject, "parts", f"{part.instance} comes twice")
        instances.add(part.instance)
        require(roots.setdefault(part.number, part.root) == part.root, subject, "root", f"two for bundle {part.number}")


def _require_windows(subject: str, stored: StoredRange, network: Network) -> None:
    """Raises Refused where a window of the span is missing."""
    held = {part.instance for part in stored.parts}
    for window in network.windows_between(stored.from_ms, stored.until_ms):
        instance = InstanceId(InstanceKind.WINDOW, window.start_ms)
        require(instance in held, subject, "parts", f"{instance} is left out")


def _check_signatures(subject: str, messages: Sequence[Message]) -> int:
    """How many only a contract can check. Raises Refused, which names the message that its publisher did not sign."""
    by_contracts = 0
    for message, verdict in zip(messages, verify_batch(messages), strict=True):
        where = f"at {format_time(message.timestamp_ms)}, number {message.sequence_number}"
        if verdict is Reason.ERC1271_UNKNOWN:
            by_contracts += 1
        else:
            require(verdict is VALID, subject, "message.signature", f"{where}: {verdict.value}")
    return by_contracts


def ask_contract(subject: str, verdict: RangeVerdict, reports: Reports) -> RangeVerdict:
    """The verdict with the contract's word.

    Raises:
        Refused: the contract holds another root, or none yet, for a bundle; or a late set is left out.
    """
    stored = verdict.stored
    roots = {part.number: part.root for part in stored.parts}
    accepted = []
    for number in verdict.numbers:
        bundle = reports.fetch(number)
        if bundle is None:
            raise Refused(subject, "number", f"{number}, where the contract has accepted {reports.count} bundles")
        ours = f"0x{bundle.root.hex()}"
        said = f"of bundle {number} 0x{roots[number].hex()}, where the contract holds {ours}"
        require(bundle.root == roots[number], subject, "root", said)
        accepted.append(bundle)
    held = {part.number for part in stored.parts if part.instance.kind is InstanceKind.LATE}
    wanted, is_over = reports.late_numbers(stored.from_ms, stored.until_ms)
    newest = max(held, default=-1)
    for number in wanted:
        is_here = number in held or number > newest >= 0
        require(is_here, subject, "parts", f"{InstanceId(InstanceKind.LATE, number)} is left out")
    missing = [number for number in wanted if number not in held]
    return replace(verdict, accepted=tuple(accepted), newer=_name_newer(missing, is_over))


def _name_newer(missing: Sequence[int], is_over: bool) -> str:
    if missing:
        return f"what came too late and lies in bundles {missing[0]} to {missing[-1]}, newer than this file"
    return "" if is_over else "what came too late and will lie in bundles to come"


def describe(verdict: RangeVerdict) -> dict[str, Any]:
    """The verdict as JSON values, the messages among them."""
    stored, accepted = verdict.stored, verdict.accepted
    return {
        "verdict": "verified",
        "stream": stored.part[0],
        "partition": stored.part[1],
        "from_ms": stored.from_ms,
        "until_ms": stored.until_ms,
        "messages": [describe_message(message) for message in verdict.messages],
        "bundles": verdict.numbers,
        "network": verdict.has_windows,
        "contract": None if accepted is None else {"final": all(bundle.is_final for bundle in accepted)},
        "proves": verdict.proves,
        "leaves_open": verdict.leaves_open,
    }
