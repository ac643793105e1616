"""Statements of committee members as EIP-712 typed data, and how they travel.

Each kind has its own domain name, so a signature over one can never be shown as another; all carry the config
digest and the instance. Domain: (name, "1", chain id, ReportManager).

    LogStoreObservation   Observation(bytes32 configDigest,uint8 kind,uint64 number,bytes32 value)
    LogStoreProposal      Proposal(bytes32 configDigest,uint8 kind,uint64 number,uint32 round,uint32 validRound,
                                   bytes32 value)
    LogStorePrevote       Prevote(bytes32 configDigest,uint8 kind,uint64 number,uint32 round,bytes32 value)
    LogStorePrecommit     Precommit(…)
    LogStoreUpload        Upload(bytes32 configDigest,uint64 number,bytes32 bundleRoot,bytes32 storageId,bytes32 owner)

``validRound`` is the round plus one, so 0 stands for the paper's -1. Wire forms are canonical CBOR:
["statement/1", …], ["quorum/1", …], ["upload/1", …], and ["upload/2", …] with header and certificates.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_bytes, read_u63
from validator.protocol.codec.secp256k1 import Signer, verify_signature
from validator.protocol.codec.typed_data import Domain, Struct, payload
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import (
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Root,
    Statement,
    StatementKind,
    StorageId,
    UploadAnnouncement,
    VoteQuorum,
)

MAX_STATEMENT_BYTES = 512
MAX_QUORUM_BYTES = 16 << 10
MAX_HEADER_BYTES = 8 << 10
"""Of a transaction's header as wire JSON: two values of 512 bytes in base64, our tags, and the rest."""
MAX_UPLOAD_BYTES = 1 << 20
"""Header and the certificates of a bundle: of 60 windows and 32 members they take 130 KiB."""
MAX_CERTIFICATES = 4096
MAX_ROUND = (1 << 31) - 1

_HEAD = (("bytes32", "configDigest"), ("uint8", "kind"), ("uint64", "number"))
_VOTE = (*_HEAD, ("uint32", "round"), ("bytes32", "value"))
_STRUCTS = {
    StatementKind.OBSERVATION: Struct("Observation", (*_HEAD, ("bytes32", "value"))),
    StatementKind.PROPOSAL: Struct(
        "Proposal", (*_HEAD, ("uint32", "round"), ("uint32", "validRound"), ("bytes32", "value"))
    ),
    StatementKind.PREVOTE: Struct("Prevote", _VOTE),
    StatementKind.PRECOMMIT: Struct("Precommit", _VOTE),
}
_UPLOAD = Struct(
    "Upload",
    (
        ("bytes32", "configDigest"),
        ("uint64", "number"),
        ("bytes32", "bundleRoot"),
        ("bytes32", "storageId"),
        ("bytes32", "owner"),
    ),
)


@dataclass(frozen=True, slots=True)
class SigningContext:
    """Where signatures count: chain id and ReportManager, the verifying contract of every domain."""

    chain_id: int
    report_manager: Address

    def domain(self, purpose: str) -> Domain:
        return Domain(f"LogStore{purpose}", "1", self.chain_id, self.report_manager)


def statement_payload(statement: Statement, context: SigningContext) -> bytes:
    """What is signed of a statement's content, as EIP-712."""
    struct = _STRUCTS[statement.kind]
    return payload(
        _domain(context, struct.name),
        struct,
        {
            "configDigest": statement.config_digest,
            "kind": statement.instance.kind,
            "number": statement.instance.number,
            "round": statement.round,
            "validRound": statement.valid_round + 1,
            "value": statement.value,
        },
    )


def statement_digest(statement: Statement, context: SigningContext) -> Digest:
    """EIP-712 digest of the statement's content."""
    return keccak256(statement_payload(statement, context))


def sign_statement(statement: Statement, key: Signer, context: SigningContext) -> Statement:
    if key.address != statement.signer:
        raise InvariantError("the key is not the statement's signer")
    return replace(statement, signature=key.sign_payload(statement_payload(statement, context)))


def verify_statement(statement: Statement, context: SigningContext) -> None:
    """Check the signature; low s only.

    Raises:
        MalformedInput: field "signature".
    """
    verify_signature(statement_digest(statement, context), statement.signature, statement.signer)


def verify_signatures(votes: VoteQuorum, context: SigningContext) -> None:
    """Check each signature over the one content; whose and how many they must be, ``certificate.verify_quorum`` knows.

    Raises:
        MalformedInput: field "signature".
    """
    for statement in votes.statements():
        verify_statement(statement, context)


# --- wire -----------------------------------------------------------------------------------------


def encode_statement(s: Statement) -> bytes:
    return cbor.encode_object(
        "statement/1",
        int(s.kind),
        s.config_digest,
        int(s.instance.kind),
        s.instance.number,
        s.round,
        s.valid_round + 1,
        s.value,
        s.signer,
        s.signature,
    )


def decode_statement(data: bytes) -> Statement:
    """Inverse of ``encode_statement``; the signature is not checked here. Raises MalformedInput."""
    f = cbor.decode_object(data, "statement/1", 9, max_bytes=MAX_STATEMENT_BYTES)
    kind = _kind(f[0], tuple(StatementKind))
    statement = Statement(
        kind=kind,
        config_digest=Digest(read_bytes(f[1], 32, "config_digest")),
        instance=_instance(f[2], f[3]),
        round=_round(f[4], "round"),
        valid_round=_round(f[5], "valid_round") - 1,
        value=Digest(read_bytes(f[6], 32, "value")),
        signer=Address(read_bytes(f[7], 20, "signer")),
        signature=read_bytes(f[8], 65, "signature"),
    )
    if kind is StatementKind.OBSERVATION and statement.round:
        raise MalformedInput("round", "an observation has no round")
    if kind is not StatementKind.PROPOSAL and statement.valid_round != -1:
        raise MalformedInput("valid_round", "only a proposal has one")
    if statement.valid_round >= statement.round and statement.valid_round != -1:
        raise MalformedInput("valid_round", "not below the round")
    return statement


def encode_quorum(q: VoteQuorum) -> bytes:
    return cbor.encode_object(
        "quorum/1",
        int(q.kind),
        q.config_digest,
        int(q.instance.kind),
        q.instance.number,
        q.round,
        q.value,
        [[signer, signature] for signer, signature in sorted(q.signatures)],
    )


def decode_quorum(data: bytes) -> VoteQuorum:
    """Inverse of ``encode_quorum``; signatures are not checked here. Raises MalformedInput."""
    f = cbor.decode_object(data, "quorum/1", 7, max_bytes=MAX_QUORUM_BYTES)
    if not isinstance(f[6], list):
        raise MalformedInput("quorum.signatures", "not a list")
    signatures = []
    for item in f[6]:
        if not isinstance(item, list) or len(item) != 2:
            raise MalformedInput("quorum.signatures", "not pairs")
        signatures.append((Address(read_bytes(item[0], 20, "signer")), read_bytes(item[1], 65, "signature")))
    if any(not a[0] < b[0] for a, b in itertools.pairwise(signatures)):
        raise MalformedInput("quorum.signatures", "signers not distinct and ascending")
    return VoteQuorum(
        kind=_kind(f[0], (StatementKind.PREVOTE, StatementKind.PRECOMMIT)),
        config_digest=Digest(read_bytes(f[1], 32, "config_digest")),
        instance=_instance(f[2], f[3]),
        round=_round(f[4], "round"),
        value=Digest(read_bytes(f[5], 32, "value")),
        signatures=tuple(signatures),
    )


# --- upload announcements -------------------------------------------------------------------------


def upload_payload(upload: UploadAnnouncement, context: SigningContext) -> bytes:
    return payload(
        _domain(context, "Upload"),
        _UPLOAD,
        {
            "configDigest": upload.config_digest,
            "number": upload.number,
            "bundleRoot": upload.bundle_root,
            "storageId": upload.storage_id,
            "owner": upload.owner,
        },
    )


def sign_upload(upload: UploadAnnouncement, key: Signer, context: SigningContext) -> UploadAnnouncement:
    if key.address != upload.signer:
        raise InvariantError("the key is not the announcement's signer")
    return replace(upload, signature=key.sign_payload(upload_payload(upload, context)))


def verify_upload(upload: UploadAnnouncement, context: SigningContext) -> None:
    """Raises MalformedInput unless the named signer signed it."""
    verify_signature(keccak256(upload_payload(upload, context)), upload.signature, upload.signer)


def encode_upload(u: UploadAnnouncement) -> bytes:
    """What is signed and by whom; with the header and the certificates of the file where it carries them."""
    signed = (u.config_digest, u.number, u.bundle_root, u.storage_id, u.owner, u.signer, u.signature)
    if not u.header and not u.certificates:
        return cbor.encode_object("upload/1", *signed)
    return cbor.encode_object("upload/2", *signed, u.header, [encode_quorum(q) for q in u.certificates])


def decode_upload(data: bytes) -> UploadAnnouncement:
    """Inverse of ``encode_upload``; signature, header and certificates are not checked here. Raises MalformedInput."""
    value = cbor.decode(data, max_bytes=MAX_UPLOAD_BYTES, what="upload")
    kind = "upload/2" if isinstance(value, list) and value[:1] == ["upload/2"] else "upload/1"
    f = cbor.decode_object(data, kind, 9 if kind == "upload/2" else 7, max_bytes=MAX_UPLOAD_BYTES)
    header, certificates = (b"", []) if kind == "upload/1" else (f[7], f[8])
    if not isinstance(header, bytes) or len(header) > MAX_HEADER_BYTES:
        raise MalformedInput("header", f"not at most {MAX_HEADER_BYTES} bytes")
    if not isinstance(certificates, list) or len(certificates) > MAX_CERTIFICATES:
        raise MalformedInput("certificates", f"not a list of at most {MAX_CERTIFICATES}")
    if any(not isinstance(item, bytes) for item in certificates):
        raise MalformedInput("certificates", "not bytes")
    if kind == "upload/2" and not header and not certificates:
        raise MalformedInput("upload", "the longer form, and nothing in it")
    return UploadAnnouncement(
        config_digest=Digest(read_bytes(f[0], 32, "config_digest")),
        number=read_u63(f[1], "number"),
        bundle_root=Root(read_bytes(f[2], 32, "bundle_root")),
        storage_id=StorageId(read_bytes(f[3], 32, "storage_id")),
        owner=read_bytes(f[4], 32, "owner"),
        signer=Address(read_bytes(f[5], 20, "signer")),
        signature=read_bytes(f[6], 65, "signature"),
        header=header,
        certificates=tuple(decode_quorum(item) for item in certificates),
    )


@lru_cache(maxsize=64)
def _domain(context: SigningContext, purpose: str) -> Domain:
    return context.domain(purpose)


def _kind(value: Any, allowed: Sequence[StatementKind]) -> StatementKind:
    if type(value) is not int or value not in [int(k) for k in allowed]:
        raise MalformedInput("kind", f"{value!r} is unknown here")
    return StatementKind(value)


def _instance(kind: Any, number: Any) -> InstanceId:
    if type(kind) is not int or kind not in (1, 2):
        raise MalformedInput("instance.kind", f"{kind!r} is unknown")
    return InstanceId(InstanceKind(kind), read_u63(number, "instance.number"))


def _round(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value <= MAX_ROUND:
        raise MalformedInput(what, "not a round")
    return value
