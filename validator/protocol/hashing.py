"""Domain-separated digests. The only module that names a hash function.

Trees follow RFC 9162 section 2.1 over SHA-256: leaf = H(0x00 || data), node = H(0x01 || left || right),
empty = H(). Labelled digests put a u64 length before each part, the label first, so two lists of parts never
share bytes. Objects are hashed as their canonical CBOR, whose first element names kind and version.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from operator import add
from typing import cast

from tiny_keccak import keccak256 as _keccak256

from validator.protocol.model import Address, Digest, InstanceId, Root

EMPTY_ROOT = Root(hashlib.sha256(b"").digest())

sha256 = hashlib.sha256
"""For loops over messages and for leaves, where a call around it would show."""


def hash_node(left: bytes, right: bytes) -> Digest:
    return Digest(sha256(b"\x01" + left + right).digest())


def hash_each(items: Iterable[bytes]) -> list[bytes]:
    """SHA-256 of each; of what runs once for every message, nothing takes as long."""
    return _hash_behind(b"", items)


def hash_pairs(level: Sequence[bytes]) -> list[bytes]:
    """Nodes over neighbours, from the left; a last one without a neighbour moves up unchanged."""
    nodes = _hash_behind(b"\x01", map(add, level[::2], level[1::2]))
    if len(level) & 1:
        nodes.append(level[-1])
    return nodes


def _hash_behind(front: bytes, items: Iterable[bytes]) -> list[bytes]:
    """SHA-256 of ``front`` and each. A copy of one hasher begins faster than a new one, for which OpenSSL looks up what
    SHA-256 is."""
    new = sha256(front).copy
    hashes: list[bytes] = []
    keep = hashes.append
    for item in items:
        hasher = new()
        hasher.update(item)
        keep(hasher.digest())
    return hashes


def hash_object(canonical: bytes) -> Digest:
    """Digest of a canonical object: SHA-256 of its bytes."""
    return Digest(sha256(canonical).digest())


def hash_body(body: bytes) -> Digest:
    """Digest of an HTTP body or file: SHA-256."""
    return Digest(sha256(body).digest())


def hash_labelled(label: str, *parts: bytes) -> Digest:
    """SHA-256 over u64 length || bytes of the label and of each part, big-endian."""
    hasher = sha256()
    for part in (label.encode(), *parts):
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return Digest(hasher.digest())


def draw_bytes(seed: bytes, count: int) -> bytes:
    """So many bytes that nobody can know before the seed: SHAKE-256."""
    return hashlib.shake_256(seed).digest(count)


keccak256 = cast(Callable[[bytes], Digest], _keccak256)
"""The library's own function: a call around it would show."""


def order_committee(committee: Sequence[Address], config_digest: Digest, subject: bytes) -> tuple[Address, ...]:
    """Permutation of the committee keyed by HMAC-SHA256(config_digest, subject).

    Each member is ranked by HMAC-SHA256(key, address), so everybody leads equally often and nobody can choose:
    the config digest is fixed before the subject's window begins.
    """
    key = hmac.digest(config_digest, subject, "sha256")
    return tuple(sorted(committee, key=lambda member: hmac.digest(key, member, "sha256")))


def instance_subject(instance: InstanceId) -> bytes:
    """Bytes that name an instance in keyed permutations: kind (1 byte), number (8 bytes), big-endian."""
    return int(instance.kind).to_bytes(1, "big") + instance.number.to_bytes(8, "big")
