"""One stored message with its proof, as a small file (``codec.stored_message``), and what it proves.

Checking takes a few milliseconds and no library but the protocol's, so this module imports neither pyarrow nor an
adapter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from logstore.errors import Refused, require
from logstore.times import format_time
from validator.protocol.codec.publisher_text import format_publisher
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.codec.stored_message import StoredMessage, decode_stored
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address, Message, SignatureType
from validator.protocol.parameters import Network
from validator.protocol.proof import verify_message as verify_place

if TYPE_CHECKING:
    from logstore.reports import Reports
    from validator.net.chain.bundles import AcceptedBundle


def is_of_kind(data: bytes, kind: str) -> bool:
    """Whether a file's first bytes say that it is one."""
    return kind.encode() in data[:32]


@dataclass(frozen=True, slots=True)
class MessageVerdict:
    """A message that is where its proof says. ``accepted`` is None where the contract was not asked."""

    stored: StoredMessage
    message: Message
    is_of_network: bool
    is_root_known: bool = False
    """The caller knew the bundle root."""
    accepted: AcceptedBundle | None = None

    @property
    def is_signature_checked(self) -> bool:
        """A contract's signature says nothing without the contract."""
        return self.message.signature_type is not SignatureType.ERC_1271

    @property
    def proves(self) -> str:
        signed = " and its publisher signed it" if self.is_signature_checked else ""
        place = f"this message is in bundle {self.stored.number}"
        if self.accepted is not None:
            return f"{place}, whose root the contract holds,{signed}".rstrip(",")
        return f"{place} if the root 0x{self.stored.root.hex()} is that bundle's,{signed}".rstrip(",")

    @property
    def leaves_open(self) -> str:
        """What it does not prove, or nothing."""
        if self.accepted is not None:
            return self.accepted.leaves_open
        if self.is_root_known:
            return ""
        return "whether the contract holds this root: ask it (without --offline), or name the one you trust with --root"


def verify_stored(subject: str, data: bytes, network: Network | None, root: bytes | None = None) -> MessageVerdict:
    """What follows from the file's bytes, and from a root that the caller knows; ``subject``: what errors call it.

    Raises:
        Refused: names the field that does not fit.
    """
    try:
        stored = decode_stored(data)
        message = verify_place(stored.proof, stored.canonical, stored.root if root is None else root)
    except MalformedInput as error:
        raise Refused(subject, error.field, error.reason) from error
    if network is not None:
        require_network(subject, network, stored.chain_id, stored.report_manager)
    verdict = MessageVerdict(stored, message, network is not None, root is not None)
    said = verify_message(message)
    if verdict.is_signature_checked:
        require(said is VALID, subject, "message.signature", f"not the publisher's: {said.value}")
    return verdict


def ask_contract(subject: str, verdict: MessageVerdict, reports: Reports) -> MessageVerdict:
    """The verdict with the contract's word.

    Raises:
        Refused: the contract holds another root, or none yet, for the bundle.
    """
    stored = verdict.stored
    accepted = reports.fetch(stored.number)
    if accepted is None:
        raise Refused(subject, "number", f"{stored.number}, where the contract has accepted {reports.count} bundles")
    ours = f"0x{accepted.root.hex()}"
    require(accepted.root == stored.root, subject, "root", f"0x{stored.root.hex()}, where the contract holds {ours}")
    return replace(verdict, accepted=accepted)


def require_network(subject: str, network: Network, chain_id: int, report_manager: Address) -> None:
    """Raises Refused: a file of another chain, or another contract."""
    require(chain_id == network.chain_id, subject, "chain_id", "not that of the network")
    is_ours = report_manager == network.contracts.report_manager
    require(is_ours, subject, "report_manager", "not that of the network")


def describe(verdict: MessageVerdict) -> dict[str, Any]:
    """The verdict as JSON values, the message among them."""
    stored, accepted = verdict.stored, verdict.accepted
    return {
        "verdict": "verified",
        "message": describe_message(verdict.message),
        "bundle": stored.number,
        "root": f"0x{stored.root.hex()}",
        "instance": str(stored.proof.window.instance),
        "signature_checked": verdict.is_signature_checked,
        "network": verdict.is_of_network,
        "contract": None if accepted is None else {"block": accepted.block_number, "final": accepted.is_final},
        "proves": verdict.proves,
        "leaves_open": verdict.leaves_open,
    }


def describe_message(message: Message) -> dict[str, Any]:
    """A message's fields as JSON values: content as text where it is text, else null and its bytes in hex."""
    text = decode_text(message.content)
    return {
        "stream": message.stream_id,
        "partition": message.partition,
        "timestamp_ms": message.timestamp_ms,
        "time": format_time(message.timestamp_ms),
        "sequence_number": message.sequence_number,
        "publisher": format_publisher(message.publisher_id),
        "msg_chain_id": message.msg_chain_id,
        "content": text,
        "content_hex": None if text is not None else message.content.hex(),
        "signature_type": message.signature_type.name,
    }


def decode_text(content: bytes) -> str | None:
    """A content as text, or None where it is none."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
