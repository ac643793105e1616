"""Sending a bundle's chunks to several gateways at once; what each of them took is the answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from validator.net.arweave.gateway import Gateway
from validator.net.arweave.questions import MAX_INFO_BYTES, MAX_TEXT_BYTES
from validator.net.http.client import Answer
from validator.ports.storage import PreparedUpload
from validator.protocol.codec import arweave_chunks, arweave_text
from validator.protocol.codec.arweave_chunks import ChunkTree, ChunkUpload
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError, UnknownOutcome, ValidatorError

ROOT_WAIT_S = 5.0
_KNOWN_TEXTS = ("already on the weave", "already in the mempool")
_LASTING_CHUNK_ERRORS = frozenset(
    (
        "invalid_json",
        "chunk_too_big",
        "data_path_too_big",
        "offset_too_big",
        "data_size_too_big",
        "chunk_proof_ratio_not_attractive",
        "invalid_proof",
    )
)


@dataclass(frozen=True, slots=True)
class GatewaySeed:
    """What one gateway took of a bundle's chunks.

    ``is_kept``: it also expects to keep them all. ``error``: why it did not take all.
    """

    host: str
    taken: int
    total: int
    is_kept: bool
    error: str = ""

    @property
    def is_complete(self) -> bool:
        return self.taken == self.total and not self.error


@dataclass(slots=True)
class _Tally:
    """Counts of one gateway while chunks are sent from several threads."""

    host: str
    total: int
    taken: int = 0
    is_kept: bool = True
    error: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kept: bool) -> None:
        with self.lock:
            self.taken += 1
            self.is_kept = self.is_kept and kept

    def stop(self, error: str) -> None:
        with self.lock:
            self.error = self.error or error

    def result(self) -> GatewaySeed:
        return GatewaySeed(self.host, self.taken, self.total, self.is_kept and self.taken == self.total, self.error)


class Seeding:
    """One run: the header and every chunk of an open file, to every gateway. Safe to repeat."""

    def __init__(
        self,
        prepared: PreparedUpload,
        tree: ChunkTree,
        descriptor: int,
        limit_s: float,
        root_wait_s: float,
        sleep: Callable[[float], None],
    ) -> None:
        self._prepared = prepared
        self._tree = tree
        self._descriptor = descriptor
        self._deadline = time.monotonic() + limit_s
        self._root_wait_s = root_wait_s
        self._sleep = sleep

    def seed(self, gateways: Iterable[Gateway], parallel: int) -> tuple[GatewaySeed, ...]:
        """What each gateway took; its failure is part of the answer."""
        receivers = [(gateway, _Tally(gateway.host, len(self._tree.chunks))) for gateway in gateways]
        with ThreadPoolExecutor(parallel, thread_name_prefix="seed") as pool:
            for future in [pool.submit(self._seed_header, *receiver) for receiver in receivers]:
                future.result()
            chunks = range(len(self._tree.chunks))
            for future in [pool.submit(self._seed_chunk, *to, index) for index in chunks for to in receivers]:
                future.result()
        return tuple(tally.result() for _, tally in receivers)

    def _seed_header(self, gateway: Gateway, tally: _Tally) -> None:
        try:
            post_header(gateway, self._prepared)
        except RemoteFault:
            return  # mined long ago elsewhere, perhaps: the chunks' answers tell
        except (TransientError, UnknownOutcome) as error:
            tally.stop(error.message)

    def _seed_chunk(self, gateway: Gateway, tally: _Tally, index: int) -> None:
        if tally.error:
            return  # this gateway has failed for good in this run
        if time.monotonic() > self._deadline:
            tally.stop("out of time")
            return
        tree = self._tree
        chunk = tree.chunks[index]
        body = arweave_chunks.encode_chunk(
            ChunkUpload(
                tree.data_root,
                tree.data_size,
                tree.compute_data_path(index),
                chunk.end - 1,
                os.pread(self._descriptor, chunk.size, chunk.start),
            )
        )
        try:
            tally.add(self._post_chunk(gateway, body))
        except ValidatorError as error:
            tally.stop(error.message)

    def _post_chunk(self, gateway: Gateway, body: bytes) -> bool:
        """Send one chunk; whether the gateway keeps it (200) or only takes it (303)."""
        for is_last in (False, False, True):
            answer = gateway.post("/chunk", body, max_bytes=MAX_INFO_BYTES, accept=(200, 202, 208, 303, 400, 413))
            if answer.status < 400:
                return answer.status != 303
            code = _chunk_error(answer)
            if answer.status == 413 or code in _LASTING_CHUNK_ERRORS:
                raise RemoteFault(f"{gateway.host}: chunk refused: {code}", host=gateway.host, code=code)
            if not is_last:
                self._sleep(self._root_wait_s)
                post_header(gateway, self._prepared)
        raise TransientError(f"{gateway.host}: chunk not taken yet: {code}", host=gateway.host, code=code)


def post_header(gateway: Gateway, prepared: PreparedUpload) -> None:
    """Send the saved header to one gateway: taken now, or known already.

    Raises:
        RemoteFault: refused; the text is the node's.
        TransientError, UnknownOutcome: not sent, or no answer.
    """
    answer = gateway.post("/tx", prepared.header.encode(), max_bytes=MAX_TEXT_BYTES, accept=(200, 202, 208, 400, 413))
    if answer.status in (400, 413) and not any(text in answer.text for text in _KNOWN_TEXTS):
        raise RemoteFault(f"{gateway.host}: header refused: {answer.text}", host=gateway.host, text=answer.text)


def _chunk_error(answer: Answer) -> str:
    try:
        code = arweave_text.decode_json_object(answer.body, "chunk", max_bytes=MAX_INFO_BYTES).get("error")
    except MalformedInput:
        return answer.text or f"HTTP {answer.status}"
    return str(code)[:100]
