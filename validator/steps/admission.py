"""Checks on entry: bytes from brokers and peers become records, or a reason. Each check has its own name.

What brokers served is checked batch by batch (``WindowCheck``; ``window_buffer`` does it for whole windows), what a
peer sent in one go (``check_canonical``). Signatures are checked in batches.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress, repeat

from validator.ports.sources import PulledRecord
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.codec.message_rules import reason_of
from validator.protocol.codec.plain_arrays import PlainBatch, read_plain
from validator.protocol.codec.received import read_received
from validator.protocol.codec.signatures import VALID, Verdict, check_recovered, verify_batch
from validator.protocol.consensus.proposal import Span
from validator.protocol.errors import MalformedInput, TransientError
from validator.protocol.model import Address, Digest, Reason, Record, SignatureType, StreamPart

Permission = Callable[[str, bytes], bool]
"""(stream id, publisher) -> may publish at B."""
ContractCheck = Callable[[Record], bool]
"""ERC-1271: is the signature valid at B; raises TransientError if it could not be asked (``UNTELLABLE``: ever)."""
UNTELLABLE = ("disagreement", "foreign")
"""Reasons why a contract has no one answer though sources are there: asking again would be of no use."""

_PLAIN = int(SignatureType.ECDSA_SECP256K1_LEGACY)
"""How a plain message is signed once it is canonical."""

Rejection = tuple[bytes, str, Address, str]
"""(SHA-256 of the record, reason, broker or peer, detail)."""


@dataclass(slots=True)
class Checked:
    """What is left of messages from outside: records by leaf, who served which, and what was refused."""

    records: dict[Digest, Record] = field(default_factory=dict)
    served: dict[Digest, set[Address]] = field(default_factory=lambda: defaultdict(set))
    rejections: list[Rejection] = field(default_factory=list)
    contract_signed: set[Digest] = field(default_factory=set)


def check_canonical(
    items: Sequence[bytes],
    sender: Address,
    accepts: Callable[[Record], bool],
    permitted: Permission,
    contract_check: ContractCheck,
    *,
    message_limit: int,
) -> Checked:
    """Check canonical messages from a peer; ``accepts`` is the window or late-set rule for timestamps and scope."""
    checked = Checked()
    pending = []
    for position, data in enumerate(items):
        pulled = [PulledRecord(sender, position, data, "canonical")]
        try:
            if len(data) > message_limit:
                raise Refused(Reason.TOO_LARGE, f"{len(data)} bytes")
            record = record_from_canonical(data)
            _check_size(record, message_limit)
        except MalformedInput as error:
            _reject(checked, pulled, reason_of(error), error.message)
            continue
        except Refused as refusal:
            _reject(checked, pulled, refusal.reason, refusal.detail)
            continue
        if not accepts(record):
            _reject(checked, pulled, Reason.OUTSIDE_WINDOW, str(record.message.timestamp_ms))
            continue
        pending.append((record, pulled))
    _check_signatures(checked, pending, permitted, contract_check)
    return checked


class Refused(Exception):
    """A record is not taken."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


Row = tuple[int, int, int, bytes, bytes, bytes, Digest, int, bytes, int, int]
"""A checked record of a window.

(rank of the partition, timestamp ms, sequence number, publisher, chain id in UTF-8, leaf, signed digest, signed size
in bytes, canonical bytes, signature type, serial). Rows sort in canonical order. A bare tuple: it is made, and
compared, several times as fast as a named one.
"""


class WindowCheck:
    """Checks what brokers served for one window. Plain messages go a quick way, with the same result. One thread."""

    def __init__(self, span: Span, permitted: Permission, contract_check: ContractCheck, *, message_limit: int) -> None:
        self._span = span
        self._permitted = permitted
        self._contract_check = contract_check
        self._limit = message_limit
        self.contract_signed: set[Digest] = set()
        """Signed digests that a contract found valid."""

    def check(
        self, part: StreamPart, form: str, served: Sequence[bytes], rows: list[Row], rank: int, serial: int
    ) -> list[tuple[int, Refused]]:
        """Append the row of each good record to ``rows``; the others, each with its serial.

        ``rank`` and the ``serial`` of the first record are the caller's numbers.

        Raises:
            TransientError: the chain did not answer.
        """
        refused: list[tuple[int, Refused]] = []
        others: Iterable[int] = range(len(served))
        if form == "array":
            plain = read_plain(part, served, self._span.from_ms, self._span.until_ms, self._limit)
            self._check_plain(part, plain, rows, rank, serial, refused)
            if len(plain.numbers) == len(served):
                return refused
            others = sorted(set(others) - set(plain.numbers))
        self._check_others(part, form, served, others, rows, rank, serial, refused)
        return refused

    def _check_plain(
        self,
        part: StreamPart,
        plain: PlainBatch,
        rows: list[Row],
        rank: int,
        serial: int,
        refused: list[tuple[int, Refused]],
    ) -> None:
        publishers = [chain.publisher_id for chain in plain.chains]
        signed = list(check_recovered(zip(plain.signatures, plain.digests, publishers, strict=True)))
        known = set(compress(publishers, signed))  # the chain is not asked about names that anybody can invent
        permitted = {publisher for publisher in known if self._permitted(part[0], publisher)}
        good = [by_publisher and who in permitted for by_publisher, who in zip(signed, publishers, strict=True)]
        serials = [serial + number for number in plain.numbers]
        every = zip(
            repeat(rank, len(serials)),
            plain.timestamps_ms,
            plain.sequence_numbers,
            publishers,
            [chain.msg_chain_id for chain in plain.chains],
            plain.leaves,
            plain.digests,
            plain.signed_sizes,
            plain.canonical,
            repeat(_PLAIN, len(serials)),
            serials,
            strict=True,
        )
        rows.extend(compress(every, good))
        if not all(good):
            for own, accepted, by_publisher, publisher in zip(serials, good, signed, publishers, strict=True):
                if not accepted:
                    reason = Reason.NOT_PERMITTED if by_publisher else Reason.BAD_SIGNATURE
                    refused.append((own, _of_publisher(reason, publisher)))

    def _check_others(
        self,
        part: StreamPart,
        form: str,
        served: Sequence[bytes],
        numbers: Iterable[int],
        rows: list[Row],
        rank: int,
        serial: int,
        refused: list[tuple[int, Refused]],
    ) -> None:
        read: list[tuple[int, Record]] = []
        for number in numbers:
            try:
                read.append((serial + number, read_record(part, form, served[number], self._span, self._limit)))
            except Refused as refusal:
                refused.append((serial + number, refusal.with_traceback(None)))
        for (own, record), verdict in zip(read, verify_batch([record for _, record in read]), strict=True):
            try:
                if judge_record(record, verdict, self._permitted, self._contract_check):
                    self.contract_signed.add(record.signed_digest)
            except Refused as refusal:
                refused.append((own, refusal.with_traceback(None)))
                continue
            m = record.message
            rows.append(
                (
                    rank,
                    m.timestamp_ms,
                    m.sequence_number,
                    m.publisher_id,
                    m.msg_chain_id.encode(),
                    record.leaf,
                    record.signed_digest,
                    record.signed_bytes,
                    record.canonical,
                    int(m.signature_type),
                    own,
                )
            )


def read_record(part: StreamPart, form: str, data: bytes, span: Span, message_limit: int) -> Record:
    """The record of what a broker served for a partition, signature unchecked. Raises Refused."""
    try:
        record = read_received(form, data, message_limit)
    except MalformedInput as error:
        raise Refused(reason_of(error), error.message) from error
    message = record.message
    if message.stream_id != part[0] or message.partition != part[1]:
        raise Refused(Reason.WRONG_STREAM, f"{message.stream_id}#{message.partition}")
    if message.timestamp_ms not in span:
        raise Refused(Reason.OUTSIDE_WINDOW, str(message.timestamp_ms))
    return record


def _check_size(record: Record, message_limit: int) -> None:
    """Both sizes count: canonical bytes are stored, signed bytes are paid for and fill budgets."""
    size = max(len(record.canonical), record.signed_bytes)
    if size > message_limit:
        raise Refused(Reason.TOO_LARGE, f"{size} canonical or signed bytes")


def judge_record(record: Record, verdict: Verdict, permitted: Permission, contract_check: ContractCheck) -> bool:
    """What the chain says of a record whose signature was checked; True: a contract found it valid. Raises Refused."""
    contract_signed = False
    if verdict is not VALID:
        contract_signed = verdict is Reason.ERC1271_UNKNOWN and _ask_contract(record, contract_check)
        if not contract_signed:
            reason = Reason.BAD_SIGNATURE if verdict is Reason.ERC1271_UNKNOWN else verdict
            raise _of_publisher(reason, record.message.publisher_id)
    if not permitted(record.message.stream_id, record.message.publisher_id):
        raise _of_publisher(Reason.NOT_PERMITTED, record.message.publisher_id)
    return contract_signed


def _ask_contract(record: Record, contract_check: ContractCheck) -> bool:
    """The contract's word. Raises Refused if sources that ran it give different ones, or none can.

    It is foreign code: it may answer by its gas, by the fee or by the node that runs it, as often as it is asked. Then
    nobody can tell, and only its own message is refused; to wait for one answer would be to wait for ever.
    """
    try:
        return contract_check(record)
    except TransientError as error:
        if error.fields.get("reason") not in UNTELLABLE:
            raise
        detail = f"sources have no one answer of 0x{record.message.publisher_id.hex()}"
        raise Refused(Reason.ERC1271_UNKNOWN, detail) from error


def _of_publisher(reason: Reason, publisher_id: bytes) -> Refused:
    return Refused(reason, f"publisher 0x{publisher_id.hex()[:80]}")


def _check_signatures(
    checked: Checked,
    pending: Sequence[tuple[Record, list[PulledRecord]]],
    permitted: Permission,
    contract_check: ContractCheck,
) -> None:
    verdicts = verify_batch([record for record, _ in pending])
    for (record, served_as), verdict in zip(pending, verdicts, strict=True):
        try:
            contract_signed = judge_record(record, verdict, permitted, contract_check)
        except Refused as refusal:
            _reject(checked, served_as, refusal.reason, refusal.detail)
            continue
        if contract_signed:
            checked.contract_signed.add(record.signed_digest)
        checked.records[record.leaf] = record
        checked.served[record.leaf].update(pulled.broker for pulled in served_as)


def _reject(checked: Checked, served_as: Sequence[PulledRecord], reason: Reason, detail: str) -> None:
    sha = hashlib.sha256(served_as[0].data).digest()
    for pulled in served_as:
        checked.rejections.append((sha, reason.value, pulled.broker, f"position {pulled.position}: {detail}"[:300]))
