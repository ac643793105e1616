"""The data of a transaction, read back from one gateway: in whichever way it has, and checked whatever it says.

    /raw/ID                       the bytes as they are stored: what gateways have, and nodes and arlocal have not
    /ID                           the same by name; some gateways send it elsewhere, which is refused
    /tx/ID/offset, /chunk/BYTE    what every node has: chunk by chunk, each by its own proof

The next way is tried where a gateway works and has nothing in this one. One that hangs, breaks off or gives other bytes
than were signed is not asked in another way: the next gateway is.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from validator.net.arweave.gateway import Gateway
from validator.ports.storage import StoredTransaction
from validator.protocol.codec import arweave_chunks, arweave_text
from validator.protocol.codec.arweave_chunks import ChunkTree
from validator.protocol.codec.arweave_text import decode_base64url
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Digest

MAX_PLACE_BYTES = 4096
MAX_CHUNK_JSON_BYTES = 512 * 1024
MAX_DATA_PATH_BYTES = 256 * 1024
OnPart = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Download:
    """Size and SHA-256 of what was read back."""

    size: int
    sha256: Digest


def hash_file(path: Path) -> tuple[ChunkTree, Digest]:
    """Chunk tree and SHA-256 of a file, read once, one chunk in memory at a time."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:

        def read(start: int, end: int) -> bytes:
            data = file.read(end - start)
            hasher.update(data)
            return data

        tree = arweave_chunks.build_chunk_tree(os.fstat(file.fileno()).st_size, read)
    return tree, Digest(hasher.digest())


def download_from(
    gateway: Gateway, transaction: StoredTransaction, destination: Path, on_progress: Callable[[int, int], None]
) -> Download:
    """All of a transaction's data in ``destination``, or an error and nothing there.

    Raises:
        TransientError: the gateway has not all of it in any way, or does not answer.
        RemoteFault: what it gave is not what was signed.
    """
    partial = destination.with_name(f"{destination.name}.{os.getpid()}-{threading.get_ident()}.part")
    errors: list[TransientError | RemoteFault] = []
    try:
        for read in (_read_raw, _read_by_name, _read_chunks):
            try:
                with partial.open("wb") as file:
                    digest = _read_counted(read, gateway, transaction, file, on_progress)
            except (TransientError, RemoteFault) as error:
                if isinstance(error, TransientError) and not error.fields.get("gateway_works"):
                    raise
                errors.append(error)
                continue
            if hash_file(partial)[0].data_root != transaction.data_root:
                raise RemoteFault(f"{gateway.host}: bytes differ from the signed data root", host=gateway.host)
            os.replace(partial, destination)
            return Download(transaction.data_size, digest)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    errors[0].message = "; ".join(error.message for error in errors)
    raise errors[0]


def _read_counted(
    read: Callable[[Gateway, StoredTransaction, BinaryIO, OnPart], int],
    gateway: Gateway,
    transaction: StoredTransaction,
    file: BinaryIO,
    on_progress: Callable[[int, int], None],
) -> Digest:
    """Read in one way; SHA-256 of what came. Raises RemoteFault where that is not as long as what was signed."""
    hasher = hashlib.sha256()
    done = 0

    def on_part(part: bytes) -> None:
        nonlocal done
        hasher.update(part)
        done += len(part)
        on_progress(done, transaction.data_size)

    size = read(gateway, transaction, file, on_part)
    if size != transaction.data_size:
        raise RemoteFault(f"{gateway.host}: {size} bytes where {transaction.data_size} were signed", host=gateway.host)
    return Digest(hasher.digest())


def _read_raw(gateway: Gateway, transaction: StoredTransaction, file: BinaryIO, on_part: OnPart) -> int:
    path = f"/raw/{arweave_text.encode_storage_id(transaction.storage_id)}"
    return gateway.download(path, file, transaction.data_size, on_part)


def _read_by_name(gateway: Gateway, transaction: StoredTransaction, file: BinaryIO, on_part: OnPart) -> int:
    path = f"/{arweave_text.encode_storage_id(transaction.storage_id)}"
    return gateway.download(path, file, transaction.data_size, on_part)


def _read_chunks(gateway: Gateway, transaction: StoredTransaction, file: BinaryIO, on_part: OnPart) -> int:
    first = find_first_byte(gateway, transaction)
    end_s = time.monotonic() + gateway.limits.download_s
    done = 0
    while done < transaction.data_size:
        if time.monotonic() > end_s:
            raise TransientError(f"{gateway.host}: chunks come too slowly", host=gateway.host)
        start, piece = fetch_chunk_at(gateway, transaction, first, done)
        if start != done:
            raise RemoteFault(f"{gateway.host}: a chunk that is not proven", host=gateway.host, offset=done)
        file.write(piece)
        on_part(piece)
        done += len(piece)
    return done


def find_first_byte(gateway: Gateway, transaction: StoredTransaction) -> int:
    """Where the data begins in the weave."""
    path = f"/tx/{arweave_text.encode_storage_id(transaction.storage_id)}/offset"
    body = _get_object(gateway, path, "offset", MAX_PLACE_BYTES)
    size = arweave_text.decode_integer(body.get("size"), "offset.size")
    if size != transaction.data_size:
        raise RemoteFault(f"{gateway.host}: {size} bytes where {transaction.data_size} were signed", host=gateway.host)
    last = arweave_text.decode_integer(body.get("offset"), "offset.offset")
    if last < size:
        raise RemoteFault(f"{gateway.host}: offset {last} ends before {size} bytes began", host=gateway.host)
    return last - size + 1


def fetch_chunk_at(gateway: Gateway, transaction: StoredTransaction, first: int, at: int) -> tuple[int, bytes]:
    """The chunk that holds byte ``at`` of the data, proven to stand there, and where it begins.

    ``first``: where the gateway says that the data begins in the weave.
    """
    body = _get_object(gateway, f"/chunk/{first + at}", "chunk", MAX_CHUNK_JSON_BYTES)
    piece = decode_base64url(body.get("chunk"), "chunk.chunk", max_bytes=arweave_chunks.CHUNK_BYTES)
    path = decode_base64url(body.get("data_path"), "chunk.data_path", max_bytes=MAX_DATA_PATH_BYTES)
    proven = arweave_chunks.validate_data_path(transaction.data_root, transaction.data_size, at, path)
    if (
        proven is None
        or not proven.start <= at < proven.end == proven.start + len(piece)
        or proven.data_hash != hashlib.sha256(piece).digest()
    ):
        raise RemoteFault(f"{gateway.host}: a chunk that is not proven", host=gateway.host, offset=at)
    return proven.start, piece


def _get_object(gateway: Gateway, path: str, what: str, max_bytes: int) -> dict[str, object]:
    answer = gateway.get(path, max_bytes=max_bytes, accept=(200, 202, 204, 404, 410), json=True)
    if answer.status != 200:
        raise TransientError(
            f"{gateway.host}: HTTP {answer.status} for the {what}, not readable yet",
            host=gateway.host,
            gateway_works=True,
        )
    return arweave_text.decode_json_object(answer.body, what, max_bytes=max_bytes)
