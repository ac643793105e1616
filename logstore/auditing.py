"""Whether a broker left out what a second one holds: the tail, which no certificate covers, is checked so.

The first broker's answer is read whole and checked; its leaves are compared with what the second holds, at a cost that
follows the difference (``net.mutual.audit``). What only the second has counts once its publisher's signature holds.
Between the two moments messages arrive: of a span that is over for a minute or more that plays no part.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from logstore.answers import QueryAnswer
from logstore.brokers import Brokers, Place, find_places
from logstore.errors import Refused
from logstore.output import count_of
from logstore.times import format_time
from validator.protocol.codec.answer import Request
from validator.protocol.codec.secp256k1 import Signer, SigningKey
from validator.protocol.codec.signatures import VALID, verify_batch
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import ConfigError
from validator.protocol.model import Address, Record

if TYPE_CHECKING:
    from logstore.answer_check import Verify
    from logstore.answer_proof import AnswerProof
    from logstore.store import LogStore
    from validator.net.mutual.audit import Ask


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """Nothing was left out. ``lacking``: messages that the second broker does not have, which says nothing."""

    proof: AnswerProof
    second: Address
    lacking: int
    sent_bytes: int
    received_bytes: int


def audit(answer: QueryAnswer, second: Place, address: Address, ask: Ask) -> AuditVerdict:
    """Read an answer whole, and compare it with a second broker's.

    Raises:
        Refused: the answer is false, or leaves messages out; names the first of them.
        TransientError, RemoteFault: a broker does not answer, or breaks a rule.
    """
    from validator.net.mutual.audit import audit_answer

    keys = [(row.message.timestamp_ms, row.record.leaf) for rows in answer.batches() for row in rows]
    proof, r = answer.proof, answer.request
    first = sorted({part.url for part in proof.parts})
    if address in {part.broker for part in proof.parts}:
        raise ConfigError("broker: the second broker is the one that answered: name another", field="broker")
    found = audit_answer(ask, r.stream_part, r.from_ms, r.until_ms, keys)
    omitted = _signed(found.omitted)
    if omitted:
        m = omitted[0].message
        raise Refused(
            ", ".join(first),
            "messages",
            f"{count_of(len(omitted), 'message')} left out that {second.url} holds, the first of"
            f" {format_time(m.timestamp_ms)}, number {m.sequence_number}",
        )
    return AuditVerdict(proof, address, len(found.extra), found.sent_bytes, found.received_bytes)


def audit_brokers(
    store: LogStore, request: Request, verify: Verify, named: Sequence[str], key: Signer | None
) -> AuditVerdict:
    """The first two that are named, or that the chain names. Raises as ``audit``; ConfigError: fewer than two."""
    from validator.net.mutual import wire
    from validator.net.mutual.client import HttpLine
    from validator.net.signed.signing import Channel, network_digest

    places, http = find_places(store, named)
    if len(places) < 2:
        raise ConfigError("broker: an audit needs two: name another with --broker", field="broker")
    network = store.network
    context = SigningContext(network.chain_id, network.contracts.report_manager)
    first, second = Brokers(places[:1], http, context, key), Brokers(places[1:2], http, context, key)
    address = second.head(places[1]).address
    line = HttpLine(
        Channel(wire.PURPOSE, context, network_digest(network)),
        key or SigningKey(secrets.token_bytes(32)),
        http,
        lambda: {address: str(places[1].url)},
        lambda _: places[1].url,
    )
    try:
        answer = QueryAnswer(request, verify, network, first, lambda: store.reports)
        return audit(answer, places[1], address, partial(line.ask_now, address))
    finally:
        line.close()


def _signed(records: Sequence[Record]) -> list[Record]:
    """Those that their publishers signed: the second broker may lie, too."""
    return [record for record, verdict in zip(records, verify_batch(records), strict=True) if verdict is VALID]


def describe(verdict: AuditVerdict) -> dict[str, Any]:
    """As JSON values."""
    from logstore.answer_proof import describe as describe_proof

    return {
        **describe_proof(verdict.proof),
        "audited_by": f"0x{verdict.second.hex()}",
        "lacking": verdict.lacking,
        "sent_bytes": verdict.sent_bytes,
        "received_bytes": verdict.received_bytes,
    }
