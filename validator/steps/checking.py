"""Checks on entry: bytes from brokers and peers become records, or a reason. Each check has its own name.

What a broker served is checked record by record (``read_record``, ``judge_record``; ``gathering`` does it for whole
windows), what a peer sent in one go (``check_canonical``). Signatures are checked in batches.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from validator.codec.legacy_array import read_legacy_array
from validator.codec.message import reason_of, record_from_canonical, record_of_read
from validator.codec.protobuf import read_protobuf
from validator.codec.signatures import VALID, Verdict, verify_batch
from validator.consensus.proposal import Span
from validator.errors import MalformedInput
from validator.model import (
    Address,
    Digest,
    MessageType,
    Reason,
    Record,
    StreamPart,
)
from validator.ports import PulledRecord

Permission = Callable[[str, bytes], bool]
"""(stream id, publisher) -> may publish at B."""
ContractCheck = Callable[[Record], bool]
"""ERC-1271: is the signature valid at B; raises TransientError if it could not be asked."""

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


def read_record(part: StreamPart, form: str, data: bytes, span: Span, message_limit: int) -> Record:
    """The record of what a broker served for a partition, signature unchecked. Raises Refused."""
    if len(data) > 2 * message_limit:
        raise Refused(Reason.TOO_LARGE, f"{len(data)} bytes")
    try:
        message = read_legacy_array(data) if form == "array" else read_protobuf(data)
        record = record_of_read(message)
    except MalformedInput as error:
        raise Refused(reason_of(error), error.message) from error
    if message.message_type is not MessageType.MESSAGE:
        raise Refused(Reason.UNSUPPORTED_MESSAGE_TYPE, message.message_type.name)
    if message.stream_id != part[0] or message.partition != part[1]:
        raise Refused(Reason.WRONG_STREAM, f"{message.stream_id}#{message.partition}")
    if message.timestamp_ms not in span:
        raise Refused(Reason.OUTSIDE_WINDOW, str(message.timestamp_ms))
    _check_size(record, message_limit)
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
        contract_signed = verdict is Reason.ERC1271_UNKNOWN and contract_check(record)
        if not contract_signed:
            reason = Reason.BAD_SIGNATURE if verdict is Reason.ERC1271_UNKNOWN else verdict
            raise Refused(reason, f"publisher 0x{record.message.publisher_id.hex()[:80]}")
    if not permitted(record.message.stream_id, record.message.publisher_id):
        raise Refused(Reason.NOT_PERMITTED, f"publisher 0x{record.message.publisher_id.hex()[:80]}")
    return contract_signed


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
