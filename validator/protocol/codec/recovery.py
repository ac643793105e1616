"""Recovery of secp256k1 signers, one after another: the rule that every other way of checking has to agree with.

libsecp256k1 through coincurve's binding, with its structs allocated once per call. Source: reference of Streamr,
section 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coincurve._libsecp256k1 import ffi, lib

from validator.protocol.hashing import keccak256
from validator.protocol.model import Digest

Signed = tuple[bytes, Digest, bytes]
"""(signature, digest that it signs, address of 20 bytes)."""

KeyStruct = bytes
"""A public key as the library holds it: equal structs are equal points."""

MAX_REMEMBERED = 4096


def check_recovered(signed: Iterable[Signed], keys: dict[bytes, KeyStruct] | None = None) -> Iterator[bool | None]:
    """Whether the address that each signature recovers to is the one given; None: it recovers to nobody.

    Every signature is recovered. Structs are made once: allocation per message would cost as much as parsing the
    signature. Only the address of a recovered key is remembered meanwhile, which saves hashing the same key again.
    ``keys`` learns the key of each address that was the one given.
    """
    context = lib.secp256k1_context_static
    parse = lib.secp256k1_ecdsa_recoverable_signature_parse_compact
    recover = lib.secp256k1_ecdsa_recover
    serialize = lib.secp256k1_ec_pubkey_serialize
    signature_struct = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    key_struct = ffi.new("secp256k1_pubkey *")
    key_bytes = ffi.new("unsigned char[65]")
    point = ffi.buffer(key_bytes)
    length = ffi.new("size_t *")
    uncompressed = lib.SECP256K1_EC_UNCOMPRESSED
    raw_key = ffi.buffer(key_struct)
    remembered: dict[bytes, bytes] = {}
    for signature, digest, expected in signed:
        if (
            len(signature) != 65
            or not 27 <= signature[64] <= 28
            or not parse(context, signature_struct, signature, signature[64] - 27)
            or not recover(context, key_struct, signature_struct, digest)
        ):
            yield None
            continue
        recovered = raw_key[:]
        address = remembered.get(recovered)
        if address is None:
            length[0] = 65
            serialize(context, key_bytes, length, key_struct, uncompressed)
            address = keccak256(point[1:])[12:]
            if len(remembered) < MAX_REMEMBERED:
                remembered[recovered] = address
        if keys is not None and address == expected and len(keys) < MAX_REMEMBERED:
            keys[address] = recovered
        yield address == expected
