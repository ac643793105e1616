"""The quick look at common messages accepts nothing that the full check refuses."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.builders import GENESIS_MS, a_message
from validator.protocol.codec import message_rules
from validator.protocol.codec.limits import MAX_SEQUENCE, MAX_TIMESTAMP_MS
from validator.protocol.codec.message_rules import check_message
from validator.protocol.model import EncryptionType, MessageRef, MessageType, NewGroupKey, SignatureType

MESSAGE = a_message()
NUMBERS = st.sampled_from(
    [-1, 0, 1, GENESIS_MS - 1, GENESIS_MS, GENESIS_MS + 1, MAX_SEQUENCE, MAX_SEQUENCE + 1, MAX_TIMESTAMP_MS, 1 << 53]
)
TEXTS = st.sampled_from(["", "a", "0xAB/c", "a" * 256, "a" * 257, "ä", "\ud800"])
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "stream_id": TEXTS,
    "msg_chain_id": TEXTS,
    "partition": st.sampled_from([-1, 0, 99, 100]),
    "timestamp_ms": NUMBERS,
    "sequence_number": NUMBERS,
    "prev": st.none() | st.builds(MessageRef, NUMBERS, NUMBERS),
    "publisher_id": st.sampled_from([bytes(20), bytes(19), bytes(33)]),
    "content": st.sampled_from([b"", b"{}", b"\xef\xbb\xbf{}", b"\xff", "ü".encode(), bytes((1 << 20) + 1)]),
    "signature": st.sampled_from([b"", MESSAGE.signature, b"\xff" * 65, MESSAGE.signature + b"\0"]),
    "signature_type": st.sampled_from(list(SignatureType)),
    "message_type": st.sampled_from(list(MessageType)),
    "encryption_type": st.sampled_from(list(EncryptionType)),
    "group_key_id": st.sampled_from([None, "k"]),
    "new_group_key": st.sampled_from([None, NewGroupKey("k", b"x")]),
}


@given(st.data())
def test_what_looks_plain_passes_every_check(data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from(sorted(CHANGES)), max_size=4))
    changes: dict[str, Any] = {name: data.draw(CHANGES[name]) for name in sorted(names)}
    changed = replace(MESSAGE, **changes)
    if message_rules._is_plain(changed) and changed.signature_type is SignatureType.ECDSA_SECP256K1_LEGACY:
        with patch.object(message_rules, "_is_plain", lambda _: False):
            check_message(changed)


def test_a_common_message_looks_plain() -> None:
    assert message_rules._is_plain(MESSAGE)
