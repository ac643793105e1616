"""Sending a bundle's chunks to several gateways at once: one run, as long as its time goes, behind the runs before.

What each gateway has taken, one bit per chunk, is what a run is given and what it answers: whoever saves that sends
after a crash what is missing only. To send a chunk twice is harmless.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from validator.net.arweave.gateway import Gateway
from validator.net.arweave.questions import MAX_INFO_BYTES, MAX_TEXT_BYTES
from validator.net.http.client import Answer
from validator.ports.storage import GatewaySeed, PreparedUpload
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


@dataclass(slots=True)
class _Tally:
    """What one gateway has taken while chunks are sent from several threads."""

    host: str
    total: int
    taken: int
    is_kept: bool = True
    error: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, index: int, kept: bool) -> None:
        with self.lock:
            self.taken |= 1 << index
            self.is_kept = self.is_kept and kept

    def stop(self, error: str) -> None:
        with self.lock:
            self.error = self.error or error

    def result(self) -> GatewaySeed:
        return GatewaySeed(self.host, self.taken, self.total, self.is_kept, self.error)


class Seeding:
    """One run: header and missing chunks of an open file, to every gateway."""

    def __init__(
        self,
        prepared: PreparedUpload,
        tree: ChunkTree,
        descriptor: int,
        *,
        limit_s: float,
        root_wait_s: float,
        sleep: Callable[[float], None],
        now: Callable[[], float],
    ) -> None:
        self._prepared = prepared
        self._tree = tree
        self._descriptor = descriptor
        self._now = now
        self._deadline = now() + limit_s
        self._root_wait_s = root_wait_s
        self._sleep = sleep

    def seed(self, gateways: Sequence[Gateway], parallel: int, taken: Mapping[str, int]) -> tuple[GatewaySeed, ...]:
        """What each gateway has taken; its failure is part of the answer. One that hangs holds no other up."""
        total = len(self._tree.chunks)
        every = (1 << total) - 1
        tallies = [_Tally(gateway.host, total, taken.get(gateway.host, 0) & every) for gateway in gateways]
        with ThreadPoolExecutor(len(tallies), thread_name_prefix="seed") as pool:
            runs = [pool.submit(self._seed_gateway, *to, parallel) for to in zip(gateways, tallies, strict=True)]
            for run in runs:
                run.result()
        return tuple(tally.result() for tally in tallies)

    def _seed_gateway(self, gateway: Gateway, tally: _Tally, parallel: int) -> None:
        if not tally.taken:
            self._seed_header(gateway, tally)
        missing = [index for index in range(tally.total) if not tally.taken >> index & 1]
        with ThreadPoolExecutor(parallel, thread_name_prefix="seed") as pool:
            for chunk in [pool.submit(self._seed_chunk, gateway, tally, index) for index in missing]:
                chunk.result()

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
        if self._now() > self._deadline:
            return  # the next run goes on
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
            tally.add(index, self._post_chunk(gateway, body))
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
