"""Arweave's own formats: signed bytes, chunk trees with their proofs, and the JSON of transactions.

Everything here is pure: callers hand in bytes, or a function that reads them. Hash functions are named here,
beside ``hashing``, because the network fixes them: SHA-384 for the deep hash, SHA-256 for ids, addresses and trees.
Only transactions of format 2 with an RSA-4096 owner exist for us; format 1 and secp256k1 owners are refused.

Data is cut as arweave-js cuts it, which every node keeps: 256 KiB pieces, the last two evened out when the last
would be tiny, and a leaf of no bytes behind an exact multiple. Vectors: tests/vectors/arweave.json. The rules
are those of the reference node (ar_tx, ar_merkle, ar_poa, ar_deep_hash).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import StorageId

CHUNK_BYTES = 256 * 1024
"""Largest chunk, and the step of prices and of places in the weave."""
SMALLEST_LAST_CHUNK_BYTES = 32 * 1024
"""A rest below this is evened out with the chunk before it."""
NOTE_BYTES = 32
HASH_BYTES = 32
BRANCH_BYTES = 2 * HASH_BYTES + NOTE_BYTES
LEAF_BYTES = HASH_BYTES + NOTE_BYTES
MAX_PATH_BYTES = CHUNK_BYTES

OWNER_BYTES = 512
SIGNATURE_BYTES = 512
ADDRESS_BYTES = 32
ANCHOR_BYTES = 48
MAX_TAG_BYTES = 2048
MAX_TAGS = 2048
MAX_HEADER_JSON_BYTES = 64 * 1024
"""A header without data: two 512-byte fields, 2 KiB of tags, names and base64 around them, with room."""
PUBLIC_EXPONENT = 65537

DeepHashable: TypeAlias = "bytes | Sequence[DeepHashable]"


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()


# --- text -----------------------------------------------------------------------------------------


def encode_base64url(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: object, field: str, *, max_bytes: int) -> bytes:
    """Bytes of canonical unpadded base64url.

    Raises:
        MalformedInput: no text, too long, padded, a strange character, or bits that encode nothing.
    """
    if not isinstance(text, str):
        raise MalformedInput(field, f"{type(text).__name__} where base64url text belongs")
    if len(text) > (max_bytes * 4 + 2) // 3:
        raise MalformedInput(field, f"{len(text)} characters, at most {max_bytes} bytes belong here")
    try:
        raw = text.encode("ascii")
        data = base64.b64decode(raw.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(raw) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise MalformedInput(field, "not base64url") from error
    if encode_base64url(data) != text:
        raise MalformedInput(field, "base64url is not in its one canonical form")
    return data


def decode_integer(text: object, field: str, *, max_digits: int = 30) -> int:
    """Non-negative decimal text, as the network writes numbers. Raises MalformedInput."""
    if not isinstance(text, str):
        raise MalformedInput(field, f"{type(text).__name__} where decimal text belongs")
    if not 0 < len(text) <= max_digits:
        raise MalformedInput(field, f"{len(text)} characters where 1 to {max_digits} digits belong")
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
        raise MalformedInput(field, "not a plain decimal number")
    return int(text)


def encode_storage_id(storage_id: bytes) -> str:
    """Text of a transaction id."""
    return encode_base64url(storage_id)


def decode_storage_id(text: object, field: str = "id") -> StorageId:
    """Inverse of ``encode_storage_id``. Raises MalformedInput."""
    data = decode_base64url(text, field, max_bytes=HASH_BYTES)
    if len(data) != HASH_BYTES:
        raise MalformedInput(field, f"{len(data)} bytes where {HASH_BYTES} belong")
    return StorageId(data)


def compute_address(owner: bytes) -> bytes:
    """Address of an owner: SHA-256 of its modulus, 32 bytes."""
    return _sha256(owner)


# --- deep hash ------------------------------------------------------------------------------------


def deep_hash(value: DeepHashable) -> bytes:
    """SHA-384 over a nested list of byte strings: 48 bytes.

    Kind and length of each element are hashed before its content, so two structures never share bytes.
    Depth is the caller's own: three in a transaction.
    """
    if isinstance(value, bytes):
        tagged = hashlib.sha384(b"blob%d" % len(value)).digest() + hashlib.sha384(value).digest()
        return hashlib.sha384(tagged).digest()
    state = hashlib.sha384(b"list%d" % len(value)).digest()
    for element in value:
        state = hashlib.sha384(state + deep_hash(element)).digest()
    return state


# --- chunks ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """Half-open range of bytes of one chunk."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def cut_chunks(size: int) -> tuple[ChunkRange, ...]:
    """Ranges of the chunks of ``size`` bytes, in order; none for no bytes.

    Pieces of 256 KiB; where the rest after the next piece would be 1 .. 32767 bytes, what is left is halved
    instead, the larger half first. Source: arweave-js 1.15 (lib/merkle).
    """
    if size < 0:
        raise InvariantError(f"negative size {size}")
    ranges: list[ChunkRange] = []
    start = 0
    while size - start > CHUNK_BYTES:
        left = size - start
        step = (left + 1) // 2 if 0 < left - CHUNK_BYTES < SMALLEST_LAST_CHUNK_BYTES else CHUNK_BYTES
        ranges.append(ChunkRange(start, start + step))
        start += step
    if start < size:
        ranges.append(ChunkRange(start, size))
    return tuple(ranges)


def compute_paid_size(size: int) -> int:
    """Bytes that the network charges for: ``size`` rounded up to whole chunks."""
    return -(-size // CHUNK_BYTES) * CHUNK_BYTES


def _note(offset: int) -> bytes:
    return offset.to_bytes(NOTE_BYTES, "big")


def _leaf_id(data_hash: bytes, end: int) -> bytes:
    return _sha256(_sha256(data_hash) + _sha256(_note(end)))


def _branch_id(left: bytes, right: bytes, offset: int) -> bytes:
    return _sha256(_sha256(left) + _sha256(right) + _sha256(_note(offset)))


@dataclass(frozen=True, slots=True)
class ChunkTree:
    """Tree over the chunks of one file: 64 bytes per chunk, never the data.

    ``rows`` are the levels from the leaves up, each node as (id, end of its last byte). A last leaf of zero
    bytes is in the rows but not in ``chunks``: it is never uploaded.
    """

    data_size: int
    chunks: tuple[ChunkRange, ...]
    data_hashes: tuple[bytes, ...]
    rows: tuple[tuple[tuple[bytes, int], ...], ...]

    @property
    def data_root(self) -> bytes:
        """32 bytes; no bytes at all for an empty file."""
        return self.rows[-1][0][0] if self.rows else b""

    def compute_data_path(self, index: int) -> bytes:
        """Proof of chunk ``index``: (left, right, note) from the root down, then data hash and end."""
        steps: list[bytes] = []
        position = index
        for row in self.rows[:-1]:
            pair = position & ~1
            if pair + 1 < len(row):
                (left, left_end), (right, _) = row[pair], row[pair + 1]
                steps.append(left + right + _note(left_end))
            position //= 2
        leaf = self.data_hashes[index] + _note(self.chunks[index].end)
        return b"".join(reversed(steps)) + leaf


def build_chunk_tree(size: int, read: Callable[[int, int], bytes]) -> ChunkTree:
    """Tree over ``size`` bytes, of which ``read(start, end)`` gives each range once, in order.

    Raises:
        InvariantError: ``read`` gave another number of bytes than asked for (a file that changed under us).
    """
    chunks = cut_chunks(size)
    data_hashes: list[bytes] = []
    for chunk in chunks:
        data = read(chunk.start, chunk.end)
        if len(data) != chunk.size:
            raise InvariantError(f"{len(data)} bytes read where {chunk.size} belong")
        data_hashes.append(_sha256(data))
    leaves = [(_leaf_id(h, c.end), c.end) for h, c in zip(data_hashes, chunks, strict=True)]
    if size and size % CHUNK_BYTES == 0:
        leaves.append((_leaf_id(_sha256(b""), size), size))
    return ChunkTree(size, chunks, tuple(data_hashes), _build_rows(leaves))


def _build_rows(leaves: Sequence[tuple[bytes, int]]) -> tuple[tuple[tuple[bytes, int], ...], ...]:
    if not leaves:
        return ()
    rows = [tuple(leaves)]
    while len(rows[-1]) > 1:
        row = rows[-1]
        above = [(_branch_id(row[i][0], row[i + 1][0], row[i][1]), row[i + 1][1]) for i in range(0, len(row) - 1, 2)]
        if len(row) % 2:
            above.append(row[-1])  # an odd node moves up as it is
        rows.append(tuple(above))
    return tuple(rows)


def build_inline_tree(data: bytes) -> ChunkTree:
    """Tree that a node makes of data inside POST /tx: 256 KiB pieces and the rest, even an empty one."""
    chunks = tuple(ChunkRange(at, min(at + CHUNK_BYTES, len(data))) for at in range(0, len(data), CHUNK_BYTES))
    hashes = tuple(_sha256(data[chunk.start : chunk.end]) for chunk in chunks)
    leaves = [(_leaf_id(h, c.end), c.end) for h, c in zip(hashes, chunks, strict=True)]
    if data and len(data) % CHUNK_BYTES == 0:
        leaves.append((_leaf_id(_sha256(b""), len(data)), len(data)))
    return ChunkTree(len(data), chunks, hashes, _build_rows(leaves))


def compute_inline_root(data: bytes) -> bytes:
    """Root that a node computes for data inside POST /tx."""
    return build_inline_tree(data).data_root


class PathRules(Enum):
    """The rule sets by which nodes have judged layouts; any of them admits a chunk, only CURRENT keeps it."""

    STRICT_BORDERS = "strict_borders"
    STRICT_SPLIT = "strict_data_split"
    CURRENT = "offset_rebase_support"


@dataclass(frozen=True, slots=True)
class ProvenChunk:
    """What a data path proves: the half-open range in the data, and SHA-256 of the bytes there."""

    start: int
    end: int
    data_hash: bytes


def validate_data_path(
    data_root: bytes, data_size: int, offset: int, data_path: bytes, rules: PathRules = PathRules.CURRENT
) -> ProvenChunk | None:
    """Follow ``data_path`` from ``data_root`` to the chunk that holds byte ``offset``; None where it proves nothing.

    An offset past the end names the last byte, as on a node. The caller compares hash and length of the chunk.
    Source: ar_merkle:validate_path/5.
    """
    if data_size <= 0 or len(data_path) > MAX_PATH_BYTES:
        return None
    offset = min(offset, data_size - 1)
    expected, left, right, shift = data_root, 0, data_size, 0
    rightmost: bool | None = None
    position = 0
    while len(data_path) - position > LEAF_BYTES:
        rebased = (
            rules is PathRules.CURRENT
            and data_path[position : position + HASH_BYTES] == bytes(HASH_BYTES)
            and len(data_path) - position >= HASH_BYTES + BRANCH_BYTES
        )
        if rebased:
            position += HASH_BYTES
        if len(data_path) - position < BRANCH_BYTES:
            return None
        left_id = data_path[position : position + HASH_BYTES]
        right_id = data_path[position + HASH_BYTES : position + 2 * HASH_BYTES]
        note = int.from_bytes(data_path[position + 2 * HASH_BYTES : position + BRANCH_BYTES], "big")
        position += BRANCH_BYTES
        if _branch_id(left_id, right_id, note) != expected:
            return None
        goes_left = offset < note
        expected = left_id if goes_left else right_id
        border = min(right, note) if goes_left else max(left, note)
        if rebased and goes_left:
            shift, offset, left, right, rightmost = shift + left, offset - left, 0, border - left, None
        elif rebased:
            shift, offset, left, right, rightmost = shift + border, offset - border, 0, right - border, None
        elif goes_left:
            right, rightmost = border, False
        else:
            left, rightmost = border, rightmost is not False
    if len(data_path) - position != LEAF_BYTES:
        return None
    data_hash = data_path[position : position + HASH_BYTES]
    end = int.from_bytes(data_path[position + HASH_BYTES :], "big")
    if _leaf_id(data_hash, end) != expected:
        return None
    if (
        end - left > CHUNK_BYTES
        or right - left > CHUNK_BYTES
        or not _is_split_allowed(rules, left, right, end, data_size, shift, rightmost is True)
    ):
        return None
    return ProvenChunk(shift + left, shift + max(min(right, end), left + 1), data_hash)


def _is_split_allowed(
    rules: PathRules, left: int, right: int, end: int, data_size: int, shift: int, rightmost: bool
) -> bool:
    if rules is PathRules.STRICT_BORDERS:
        return True
    if rules is PathRules.STRICT_SPLIT:
        if end - left == CHUNK_BYTES:
            return left % CHUNK_BYTES == 0
        if end == data_size:
            return right % CHUNK_BYTES > 0 and left <= right - right % CHUNK_BYTES
        return left % CHUNK_BYTES == 0 and CHUNK_BYTES < data_size - left < 2 * CHUNK_BYTES
    start, stop = shift + left, shift + end
    if start % CHUNK_BYTES == 0:
        return True
    return rightmost and start // CHUNK_BYTES + 1 == stop // CHUNK_BYTES and stop % CHUNK_BYTES != 0


@dataclass(frozen=True, slots=True)
class ChunkVerdict:
    """What a node answers to a chunk: its error code or None, the proven range, and whether it will keep it."""

    error: str | None
    proven: ProvenChunk | None = None
    is_kept: bool = False


def judge_chunk(data_root: bytes, data_size: int, offset: int, data_path: bytes, chunk: bytes) -> ChunkVerdict:
    """Judge a posted chunk as a node does, apart from whether (data_root, data_size) is known.

    Source: ar_http_iface_middleware and ar_disk_pool; cases: chunk_checks of the vectors.
    """
    if len(chunk) > CHUNK_BYTES:
        return ChunkVerdict("chunk_too_big")
    if len(data_path) > MAX_PATH_BYTES:
        return ChunkVerdict("data_path_too_big")
    if not _is_ratio_attractive(len(chunk), data_size, data_path):
        return ChunkVerdict("chunk_proof_ratio_not_attractive")
    for rules in (PathRules.CURRENT, PathRules.STRICT_SPLIT, PathRules.STRICT_BORDERS):
        proven = validate_data_path(data_root, data_size, offset, data_path, rules)
        if proven is not None:
            if proven.end - proven.start != len(chunk) or proven.data_hash != _sha256(chunk):
                return ChunkVerdict("invalid_proof")
            return ChunkVerdict(None, proven, rules is PathRules.CURRENT)
    return ChunkVerdict("invalid_proof")


def _is_ratio_attractive(chunk_bytes: int, data_size: int, data_path: bytes) -> bool:
    if len(data_path) < NOTE_BYTES:
        return False
    ends_data = int.from_bytes(data_path[-NOTE_BYTES:], "big") == data_size
    return ends_data or len(data_path) <= chunk_bytes


@dataclass(frozen=True, slots=True)
class ChunkUpload:
    """Content of one POST /chunk."""

    data_root: bytes
    data_size: int
    data_path: bytes
    offset: int
    chunk: bytes


def encode_chunk(upload: ChunkUpload) -> bytes:
    """JSON of one POST /chunk: strings only, numbers too."""
    return json.dumps(
        {
            "data_root": encode_base64url(upload.data_root),
            "data_size": str(upload.data_size),
            "data_path": encode_base64url(upload.data_path),
            "offset": str(upload.offset),
            "chunk": encode_base64url(upload.chunk),
        },
        separators=(",", ":"),
    ).encode("ascii")


def decode_chunk(body: Mapping[str, Any]) -> ChunkUpload:
    """Inverse of ``encode_chunk``, from parsed JSON. Raises MalformedInput."""
    return ChunkUpload(
        decode_base64url(body.get("data_root"), "data_root", max_bytes=HASH_BYTES),
        decode_integer(body.get("data_size"), "data_size"),
        decode_base64url(body.get("data_path"), "data_path", max_bytes=2 * MAX_PATH_BYTES),
        decode_integer(body.get("offset"), "offset", max_digits=78),
        decode_base64url(body.get("chunk"), "chunk", max_bytes=2 * CHUNK_BYTES),
    )


# --- transactions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction of format 2. Amounts in winston; ``signature`` and ``id`` are empty while unsigned.

    ``data`` is only what travels inside POST /tx; data in chunks is named by root and size.
    """

    owner: bytes
    last_tx: bytes
    reward: int
    tags: tuple[tuple[bytes, bytes], ...] = ()
    data_size: int = 0
    data_root: bytes = b""
    target: bytes = b""
    quantity: int = 0
    data: bytes = b""
    signature: bytes = b""
    id: StorageId = StorageId(b"")

    @property
    def address(self) -> bytes:
        return compute_address(self.owner)

    @property
    def tag_texts(self) -> tuple[tuple[str, str], ...]:
        """Tags as text. Raises MalformedInput where a tag is no UTF-8."""
        try:
            return tuple((name.decode(), value.decode()) for name, value in self.tags)
        except UnicodeDecodeError as error:
            raise MalformedInput("tags", "not UTF-8") from error


def encode_tags(tags: Sequence[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    """Text tags as bytes, within the limits of one transaction.

    Raises:
        MalformedInput: more than 2048 bytes of names and values, or an empty name or value.
    """
    encoded = tuple((name.encode(), value.encode()) for name, value in tags)
    if any(not name or not value for name, value in encoded):
        raise MalformedInput("tags", "a name or value is empty")
    total = sum(len(name) + len(value) for name, value in encoded)
    if total > MAX_TAG_BYTES:
        raise MalformedInput("tags", f"{total} bytes, at most {MAX_TAG_BYTES} fit")
    return encoded


def compute_signature_data(tx: Transaction) -> bytes:
    """The 48 bytes that the owner signs: deep hash over the fields, numbers as decimal ASCII."""
    return deep_hash(
        [
            b"2",
            tx.owner,
            tx.target,
            b"%d" % tx.quantity,
            b"%d" % tx.reward,
            tx.last_tx,
            [[name, value] for name, value in tx.tags],
            b"%d" % tx.data_size,
            tx.data_root,
        ]
    )


def attach_signature(tx: Transaction, signature: bytes) -> Transaction:
    """The signed transaction; its id is SHA-256 of the signature."""
    return replace(tx, signature=signature, id=StorageId(_sha256(signature)))


def is_signature_valid(owner: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is RSA-PSS over SHA-256 of ``message``, with a salt of any length."""
    if len(owner) != OWNER_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.AUTO)
    try:
        key = rsa.RSAPublicNumbers(PUBLIC_EXPONENT, int.from_bytes(owner, "big")).public_key()
        key.verify(signature, message, scheme, hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def compute_fault(tx: Transaction) -> str | None:
    """The node's code for the first rule that a transaction breaks, or None. Price and anchor's age are not judged.

    Source: ar_tx:do_verify; cases: invalid_transactions of the vectors.
    """
    if _are_fields_too_large(tx):
        return "tx_fields_too_large"
    if tx.target == tx.address:
        return "same_owner_as_target"
    if len(tx.target) != ADDRESS_BYTES and (tx.quantity > 0 or tx.target):
        return "invalid_target_length"
    if (tx.data_size == 0) != (tx.data_root == b""):
        return "tx_data_size_data_root_mismatch"
    if tx.id != _sha256(tx.signature):
        return "tx_id_not_valid"
    if not is_signature_valid(tx.owner, compute_signature_data(tx), tx.signature):
        return "tx_signature_not_valid"
    if tx.data and (len(tx.data) != tx.data_size or compute_inline_root(tx.data) != tx.data_root):
        return "unknown_split"
    return None


def _are_fields_too_large(tx: Transaction) -> bool:
    return (
        len(tx.owner) > OWNER_BYTES
        or len(tx.signature) > SIGNATURE_BYTES
        or len(tx.last_tx) > ANCHOR_BYTES
        or len(tx.data_root) > HASH_BYTES
        or len(tx.target) > ADDRESS_BYTES
        or len(tx.tags) > MAX_TAGS
        or sum(len(name) + len(value) for name, value in tx.tags) > MAX_TAG_BYTES
    )


def verify_transaction(tx: Transaction, storage_id: StorageId | None = None) -> None:
    """Check all that ``compute_fault`` judges and, where given, that it is the transaction asked for.

    Raises:
        MalformedInput: names the node's code, or the id that was asked for.
    """
    if storage_id is not None and tx.id != storage_id:
        raise MalformedInput("id", f"another transaction than {encode_storage_id(storage_id)}")
    fault = compute_fault(tx)
    if fault is not None:
        raise MalformedInput("transaction", fault, code=fault)


def encode_transaction(tx: Transaction) -> dict[str, Any]:
    """The wire's JSON object: byte fields in base64url, numbers as text, tags as {name, value} in this order."""
    return {
        "format": 2,
        "id": encode_base64url(tx.id),
        "last_tx": encode_base64url(tx.last_tx),
        "owner": encode_base64url(tx.owner),
        "tags": [{"name": encode_base64url(name), "value": encode_base64url(value)} for name, value in tx.tags],
        "target": encode_base64url(tx.target),
        "quantity": str(tx.quantity),
        "data_size": str(tx.data_size),
        "data_root": encode_base64url(tx.data_root),
        "data": encode_base64url(tx.data),
        "reward": str(tx.reward),
        "signature": encode_base64url(tx.signature),
    }


def encode_transaction_json(tx: Transaction) -> str:
    """Text of POST /tx. Built once, saved, and only ever sent again as it is."""
    return json.dumps(encode_transaction(tx), separators=(",", ":"))


def decode_transaction(body: Mapping[str, Any], *, max_data_bytes: int = 0) -> Transaction:
    """Transaction of parsed wire JSON; unknown fields are ignored, signature and rules are not judged here.

    Lengths are bounded to twice what the rules allow, so that ``compute_fault`` can name a field that is too large.

    Raises:
        MalformedInput: another format, a field of the wrong kind, or a denomination (it would change what is signed).
    """
    if body.get("format") not in (2, "2") or isinstance(body.get("format"), bool):
        raise MalformedInput("format", "not 2")
    if body.get("denomination", "0") not in (0, "0"):
        raise MalformedInput("denomination", "not supported")
    return Transaction(
        owner=decode_base64url(body.get("owner"), "owner", max_bytes=2 * OWNER_BYTES),
        last_tx=decode_base64url(body.get("last_tx"), "last_tx", max_bytes=2 * ANCHOR_BYTES),
        reward=decode_integer(body.get("reward"), "reward"),
        tags=tuple(_decode_tags(body.get("tags"))),
        data_size=decode_integer(body.get("data_size"), "data_size"),
        data_root=decode_base64url(body.get("data_root"), "data_root", max_bytes=2 * HASH_BYTES),
        target=decode_base64url(body.get("target"), "target", max_bytes=2 * ADDRESS_BYTES),
        quantity=decode_integer(body.get("quantity"), "quantity"),
        data=decode_base64url(body.get("data", ""), "data", max_bytes=max_data_bytes) if max_data_bytes else b"",
        signature=decode_base64url(body.get("signature"), "signature", max_bytes=2 * SIGNATURE_BYTES),
        id=decode_storage_id(body.get("id")),
    )


def _decode_tags(tags: object) -> Iterator[tuple[bytes, bytes]]:
    if not isinstance(tags, list) or len(tags) > 2 * MAX_TAGS:
        raise MalformedInput("tags", "not a list, or a too long one")
    for index, tag in enumerate(tags):
        field = f"tags[{index}]"
        if not isinstance(tag, dict) or list(tag) != ["name", "value"]:
            raise MalformedInput(field, "not exactly {name, value}, in this order")
        yield (
            decode_base64url(tag["name"], f"{field}.name", max_bytes=2 * MAX_TAG_BYTES),
            decode_base64url(tag["value"], f"{field}.value", max_bytes=2 * MAX_TAG_BYTES),
        )


def decode_json_object(text: bytes | str, what: str, *, max_bytes: int) -> dict[str, Any]:
    """One JSON object from outside, bounded. Raises MalformedInput."""
    if len(text) > max_bytes:
        raise MalformedInput(what, f"{len(text)} bytes exceed the limit of {max_bytes}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedInput(what, "not JSON") from error
    if not isinstance(value, dict):
        raise MalformedInput(what, f"a JSON {type(value).__name__} where an object belongs")
    return value


def decode_transaction_json(
    text: bytes | str, *, max_bytes: int = MAX_HEADER_JSON_BYTES, max_data_bytes: int = 0
) -> Transaction:
    """``decode_transaction`` from text. Raises MalformedInput."""
    return decode_transaction(
        decode_json_object(text, "transaction", max_bytes=max_bytes), max_data_bytes=max_data_bytes
    )
