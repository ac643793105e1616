"""Whatever decodes as a valid message is judged by every later step without an error, whatever its stream is called.

Two validators, one on each engine and each with a broker of its own, go from there to an accepted report over drawn
streams and messages. An error out of a step ends the test; nothing is left that is neither stored nor refused with a
reason of its own, alone.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import servers
from tests.builders import a_key, a_p256_message, an_ml_dsa_message
from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import GENESIS_MS, WINDOW_MS, Delivery, some_parameters
from validator.net.chain.abi import interface
from validator.protocol.codec.legacy_array import read_legacy_array, write_legacy_array
from validator.protocol.codec.limits import MAX_ID_BYTES, MAX_SEQUENCE
from validator.protocol.codec.message import make_record, record_of_read
from validator.protocol.codec.protobuf import read_protobuf, write_protobuf
from validator.protocol.codec.report import report_values
from validator.protocol.codec.signatures import VALID, publish_message, verify_message
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageRef,
    NewGroupKey,
    Reason,
    Record,
    SignatureType,
    Store,
    StreamPart,
)
from validator.store.database import migrate

AMPLE = 10**15
LATE_MS = 4_500
"""Since genesis: after the first window's cut-off, before the pull for the late set."""
EXAMPLES = 4
MESSAGE_LIMIT = 10_000

odd_characters = st.sampled_from("\x00\n\x7f\x85\u2028\ufeff\ufffe\U0010ffff😀ä/#.")
texts = st.one_of(
    st.text(max_size=12),
    st.text(odd_characters, max_size=12),
    st.text(max_size=3).map(lambda t: (t * MAX_ID_BYTES).encode()[:MAX_ID_BYTES].decode(errors="ignore")),
)
stream_ids = st.one_of(
    texts.filter(bool),
    texts.map(lambda path: f"0x{'ab' * 20}/{path}"),
    texts.map(lambda path: f"ab.eth/{path}"),
).filter(lambda s: len(s.encode()) <= MAX_ID_BYTES)
balances = st.sampled_from([AMPLE, 2**96 - 1, 2**256 - 1])
sequences = st.one_of(st.integers(0, 3), st.just(MAX_SEQUENCE))
contents = st.one_of(
    st.binary(max_size=60),
    texts.map(str.encode),
    st.sampled_from([b"", b"{}", b"\xff\xfe\x00", b'"\\ud800"', b"\xef\xbb\xbf{}", b"x" * 9_000]),
)


@dataclass(frozen=True)
class Drawn:
    """A message as brokers serve it: which bytes for which part in which form, how late, and what the chain permits."""

    message: Message
    form: str
    data: bytes
    part: StreamPart
    late: bool
    at: tuple[int, ...]
    permitted: bool
    by_contract: bool

    @property
    def record(self) -> Record:
        """As a reader makes it of the bytes: an array may convert."""
        read = read_legacy_array if self.form == "array" else read_protobuf
        return record_of_read(read(self.data))


def sign(kind: SignatureType, who: int, fields: dict[str, Any]) -> Message:
    if kind is SignatureType.ECDSA_SECP256R1:
        return a_p256_message(who, compressed=who % 2 == 0, **fields)
    if kind is SignatureType.ML_DSA_87:
        return an_ml_dsa_message(who, **fields)
    return publish_message(a_key(who), signature_type=kind, **fields)


@st.composite
def drawn_messages(draw: st.DrawFn, stores: list[Store]) -> Drawn | None:
    """None where the codec refuses what was drawn: it names a reason then, which is tested elsewhere."""
    store = draw(st.sampled_from(stores))
    kind = draw(st.sampled_from(SignatureType))
    encrypted = draw(st.booleans())
    arrays = kind in (SignatureType.ARRAY_ETH, SignatureType.ARRAY_ETH_LEGACY)
    content, key = draw(contents), draw(st.none() | st.builds(NewGroupKey, texts, st.binary(max_size=50)))
    if kind is SignatureType.ARRAY_ETH and key is not None:
        key = NewGroupKey("", b'["%b","%b"]' % (key.id.encode().hex().encode(), key.data.hex().encode()))
    timestamp_ms, sequence = GENESIS_MS + draw(st.integers(0, 2 * WINDOW_MS - 1)), draw(sequences)
    fields = {
        "stream_id": store.stream_id,
        "partition": draw(st.integers(0, min(store.partitions, 2) - 1)),
        "timestamp_ms": timestamp_ms,
        "sequence_number": sequence,
        "msg_chain_id": draw(st.one_of(st.just("c" * 20), texts)),
        "prev": draw(st.sampled_from([None, MessageRef(0, MAX_SEQUENCE), MessageRef(timestamp_ms - 1, 0)])),
        "content": content,
        "content_type": ContentType.JSON if arrays else draw(st.sampled_from(ContentType)),
        "encryption_type": EncryptionType.AES if encrypted else EncryptionType.NONE,
        "group_key_id": draw(texts) if encrypted else draw(st.none() | texts),
        "new_group_key": key,
    }
    form = "array" if arrays or draw(st.booleans()) else "protobuf"
    try:
        message = make_record(sign(kind, draw(st.integers(1, 3)), fields)).message
        data = write_legacy_array(message) if form == "array" else write_protobuf(message)
    except (MalformedInput, UnicodeDecodeError):
        return None
    part = message.stream_part
    if draw(st.integers(0, 9)) == 0:
        part = (draw(st.sampled_from(stores)).stream_id, 0)
    if draw(st.integers(0, 9)) == 0:
        data = draw(st.sampled_from([b"", b"\x00", data[:-3], data[::-1], b'["\x00\\ud800"]', b"[32,[" + data]))
    return Drawn(
        message,
        form,
        data,
        part,
        draw(st.booleans()),
        draw(st.sampled_from([(0,), (1,), (0, 1)])),
        draw(st.integers(0, 3)) > 0,
        draw(st.booleans()),
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Store], list[Drawn]]:
    ids = draw(st.lists(stream_ids, min_size=1, max_size=5, unique=True))
    stores = [Store(stream_id, draw(balances), draw(st.sampled_from([1, 2, 100]))) for stream_id in sorted(ids)]
    stores += [Store("plain.eth/with\x00nul", AMPLE, 2)] if "plain.eth/with\x00nul" not in ids else []
    found = draw(st.lists(drawn_messages(stores), min_size=12, max_size=30))
    return stores, [drawn for drawn in found if drawn is not None]


@pytest.fixture(scope="module")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """A migrated database to copy."""
    with servers.fresh_database(postgres_server, "any_message") as url:
        migrate(url)
        yield "any_message"


_runs = itertools.count()


@given(world=worlds())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a run takes seconds: a failure is shown as it was found
    suppress_health_check=list(HealthCheck),
)
def test_any_message_on_any_stream_ends_stored_or_refused_with_a_reason(
    world: tuple[list[Store], list[Drawn]],
    empty_database: Path,
    postgres_server: str,
    postgres_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    stores, messages = world
    folder = tmp_path_factory.mktemp("any")
    name = f"any_{next(_runs)}"
    with servers.fresh_database(postgres_server, name, template=postgres_template) as url:
        parameters = [some_parameters(message_limit=MESSAGE_LIMIT)]
        network = SmallNetwork(folder, empty_database, 2, databases={1: url}, parameters=parameters)
        try:
            fill(network, stores, messages)
            network.run_to_final()
            for number, member in enumerate(network.members):
                check(member, number, messages)
            assert len(network.world.paid()) == 1
            (report,) = network.world.reports.values()
            interface("ReportManager").function("submitReport").encode((report_values(report), 0, b""))
        finally:
            network.close()


def fill(network: SmallNetwork, stores: list[Store], messages: list[Drawn]) -> None:
    world = network.world
    world.stores = tuple(stores)
    world.nodes = (*world.nodes[:-1], replace(world.nodes[-1], stake=2**256 - 1))
    for drawn in messages:
        if drawn.permitted:
            world.publishers.add((drawn.message.stream_id, drawn.message.publisher_id))
        if drawn.by_contract and drawn.message.signature_type is SignatureType.ERC_1271:
            world.valid_for.add((drawn.message.publisher_id, make_record(drawn.message).signed_digest))
        timestamp_ms = drawn.message.timestamp_ms
        at_ms = max(timestamp_ms, GENESIS_MS + LATE_MS) if drawn.late else timestamp_ms
        delivery = Delivery(at_ms, drawn.part, timestamp_ms, drawn.data, drawn.form)
        for number in drawn.at:
            world.deliveries[world.brokers[number]].append(delivery)
    for number, member in enumerate(network.members):
        member.source.down.add(world.brokers[1 - number])


def check(member: Member, broker: int, messages: list[Drawn]) -> None:
    """Each is in a window or a late set, or, where the member's broker served it, has a row that says why not."""
    stored = {record.identity for record in [*member.windows(), *member.late()]}
    refused: dict[bytes, set[str]] = {}
    for sha, reason in member.rows("SELECT record_sha256, reason FROM rejections"):
        refused.setdefault(bytes(sha), set()).add(reason)
    world = member.network.world
    for drawn in messages:
        reasons = refused.get(hashlib.sha256(drawn.data).digest(), set())
        try:
            record = drawn.record
        except MalformedInput:
            assert reasons or broker not in drawn.at, drawn
            continue
        m = record.message
        verdict = verify_message(m)
        by_contract = (m.publisher_id, record.signed_digest) in world.valid_for
        good = verdict is VALID or (verdict is Reason.ERC1271_UNKNOWN and by_contract)
        fits = max(len(record.canonical), record.signed_bytes) <= MESSAGE_LIMIT and len(drawn.data) <= 2 * MESSAGE_LIMIT
        if good and fits and m.stream_part == drawn.part and (m.stream_id, m.publisher_id) in world.publishers:
            assert record.identity in stored, (drawn, reasons)
        else:
            assert reasons or broker not in drawn.at, drawn
