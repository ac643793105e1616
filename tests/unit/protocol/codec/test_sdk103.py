"""Messages that @streamr/sdk 103.3.1 signed with keys that are no Ethereum accounts, as it published them.

P-256 keys are compressed by default; a client may publish under the uncompressed form as well, and then that is its
user id: the two are two publishers, as the registry and the signed text have it.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests import paths
from validator.protocol.codec.message import decode_message, make_record
from validator.protocol.codec.protobuf import read_protobuf, write_protobuf
from validator.protocol.codec.signatures import VALID, verify_batch, verify_message
from validator.protocol.model import Message, Reason, SignatureType

VECTORS = paths.VECTORS
P256, ML_DSA = SignatureType.ECDSA_SECP256R1, SignatureType.ML_DSA_87


def load(name: str) -> Message:
    return read_protobuf(bytes.fromhex((VECTORS / f"sdk103-{name}.hex").read_text()))


@pytest.mark.parametrize(
    ("name", "kind", "size"), [("p256", P256, 33), ("p256-uncompressed", P256, 65), ("mldsa87", ML_DSA, 2592)]
)
def test_what_the_client_signed_is_valid_and_has_one_canonical_form(name: str, kind: SignatureType, size: int) -> None:
    message = load(name)
    assert (message.signature_type, len(message.publisher_id)) == (kind, size)
    record = make_record(message)
    assert verify_batch([record]) == [VALID]
    assert decode_message(record.canonical) == record.message
    assert read_protobuf(write_protobuf(record.message)) == record.message
    assert verify_message(replace(message, content=message.content + b" ")) is Reason.BAD_SIGNATURE


def test_both_forms_of_a_p256_key_are_publishers_of_their_own() -> None:
    short, long = load("p256"), load("p256-uncompressed")
    assert verify_message(replace(short, publisher_id=long.publisher_id)) is Reason.BAD_SIGNATURE
    hybrid = bytes([6 + long.publisher_id[-1] % 2]) + long.publisher_id[1:]
    assert verify_message(replace(long, publisher_id=hybrid)) is Reason.BAD_SIGNATURE
