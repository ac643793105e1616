"""Bundles on Arweave: the ``BundleStorage`` port over one or more gateways.

The order of things is what makes an upload cost once: ``prepare`` signs, the caller saves, ``post`` and ``seed`` only
ever send the saved bytes, however often. With salt-free signatures even a header that was signed and not saved
comes out the same again, as long as anchor and reward are the same.

What a gateway says is a hint; what is read back is checked: ``fetch_transaction`` verifies id and signature,
``fetch_data`` recomputes the data root from the bytes (``reading``) and asks the next gateway where it differs.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from validator.net.arweave.client import compute_client_signature_data
from validator.net.arweave.gateway import CircuitState, Gateway, Limits
from validator.net.arweave.reading import Download, download_from, hash_file
from validator.net.arweave.wallet import ArweaveWallet
from validator.net.http.client import Answer
from validator.ports.storage import PreparedUpload, StorageState, StorageStatus, StoredTransaction
from validator.protocol.codec import arweave, arweave_chunks, arweave_text
from validator.protocol.codec.arweave import Transaction
from validator.protocol.codec.arweave_chunks import ChunkTree, ChunkUpload
from validator.protocol.errors import (
    ConfigError,
    Disagreement,
    InvariantError,
    MalformedInput,
    RemoteFault,
    TransientError,
    UnknownOutcome,
    ValidatorError,
)
from validator.protocol.model import StorageId

T = TypeVar("T")

ANCHOR_LIFE_BLOCKS = 50
FORK_BLOCKS = 18
"""Reorganisations that the network handles; behind them nothing returns."""
ENOUGH_GATEWAYS = 2
"""So many gateways must agree, or as many as there are."""
PRICE_MARGIN_PERCENT = 5
MAX_PRICE_RATIO = 2
MAX_TEXT_BYTES = 4096
MAX_INFO_BYTES = 64 * 1024
MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_PAGES = 5
PAGE_ITEMS = 100
ROOT_WAIT_S = 5.0
MAX_HEIGHT = 1 << 40

_NO_INDEX = (404, 405)
"""What a node without an index answers to a question for it."""
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
_UPLOADS_QUERY = (
    "query($owners:[String!]!,$tags:[TagFilter!]!,$after:String){transactions(owners:$owners,tags:$tags,first:100,"
    "after:$after,sort:HEIGHT_ASC){pageInfo{hasNextPage} edges{cursor node{id owner{address} tags{name value} "
    "block{height}}}}}"
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


class ArweaveStorage:
    """Arweave through gateways. Thread-safe; built in the process that uses it, since it holds connections.

    ``reward_cap`` in winston: no header ever offers more. Without a wallet (an observer) only reading works.
    """

    def __init__(
        self,
        urls: Sequence[str],
        wallet: ArweaveWallet | None,
        *,
        reward_cap: int,
        limits: Limits | None = None,
        parallel: int = 4,
        root_wait_s: float = ROOT_WAIT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not urls:
            raise ConfigError("gateways: none configured; name at least one URL")
        self.limits = limits or Limits()
        self.gateways = tuple(Gateway(url, self.limits, connections=parallel + 4, sleep=sleep) for url in urls)
        if len({gateway.host for gateway in self.gateways}) != len(self.gateways):
            raise ConfigError("gateways: one host is named twice")
        self.wallet = wallet
        self.reward_cap = reward_cap
        self._parallel = parallel
        self._root_wait_s = root_wait_s
        self._sleep = sleep

    @property
    def circuits(self) -> tuple[CircuitState, ...]:
        """State of each gateway's circuit, for the status page and metrics."""
        return tuple(gateway.circuit.state for gateway in self.gateways)

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.close()

    # --- prepare ---

    def prepare(self, path: Path, tags: Sequence[tuple[str, str]], *, open_uploads: int = 0) -> PreparedUpload:
        """Sign the transaction that carries the file at ``path``. Sends nothing; the caller saves before ``post``.

        ``open_uploads``: headers of this wallet that are sent and not confirmed; the balance must cover them too.

        Raises:
            TransientError: the balance is too low, the price above the cap, or no gateway answers.
            RemoteFault: prices or anchors that can not be.
        """
        wallet = self._require_wallet()
        encoded_tags = arweave.encode_tags(tags)
        tree, digest = hash_file(path)
        if tree.data_size == 0:
            raise InvariantError(f"{path.name} is empty")
        reward = self._offer(self.fetch_price(tree.data_size))
        balance, needed = self.fetch_balance(), reward * (open_uploads + 1)
        if balance < needed:
            raise TransientError(
                f"wallet balance {balance} winston is below the {needed} needed", balance=balance, needed=needed
            )
        anchor = self._fetch_anchor()
        height = self._fetch_anchor_height()
        unsigned = Transaction(
            owner=wallet.owner,
            last_tx=anchor,
            reward=reward,
            tags=encoded_tags,
            data_size=tree.data_size,
            data_root=tree.data_root,
        )
        message = arweave.compute_signature_data(unsigned)
        if compute_client_signature_data(unsigned, wallet.public_jwk) != message:
            raise InvariantError("our signed bytes differ from arweave-python-client's")
        tx = arweave.attach_signature(unsigned, wallet.sign(message))
        _verify_own(tx, tree)
        return PreparedUpload(
            storage_id=tx.id,
            owner=tx.address,
            header=arweave.encode_transaction_json(tx),
            reward=reward,
            anchor_height=height,
            data_size=tree.data_size,
            data_sha256=digest,
        )

    def _require_wallet(self) -> ArweaveWallet:
        if self.wallet is None:
            raise ConfigError("wallet: none configured; an uploader needs one")
        return self.wallet

    def _offer(self, price: int) -> int:
        """Price with a margin, since it is charged at inclusion; never above the cap."""
        if price > self.reward_cap:
            raise TransientError(f"price {price} winston is above the cap of {self.reward_cap}", price=price)
        return min(-(-price * (100 + PRICE_MARGIN_PERCENT) // 100), self.reward_cap)

    def fetch_price(self, size: int) -> int:
        """Winston for ``size`` bytes: the larger answer of two gateways.

        Raises:
            RemoteFault: no number, zero, or two answers that differ more than twofold.
        """

        def ask(gateway: Gateway) -> int:
            answer = gateway.get(f"/price/{size}", max_bytes=MAX_TEXT_BYTES)
            return _parse_number(answer, "price", lowest=1)

        prices = self._gather(ask, ENOUGH_GATEWAYS)
        if max(prices) > MAX_PRICE_RATIO * min(prices):
            raise RemoteFault(f"gateways' prices differ: {min(prices)} and {max(prices)} winston")
        return max(prices)

    def fetch_balance(self) -> int:
        """Winston in the wallet: the largest answer, since one that is too large costs nothing."""
        address = arweave_text.encode_base64url(self._require_wallet().address)

        def ask(gateway: Gateway) -> int:
            answer = gateway.get(f"/wallet/{address}/balance", max_bytes=MAX_TEXT_BYTES)
            return _parse_number(answer, "balance")

        return max(self._gather(ask, ENOUGH_GATEWAYS))

    def fetch_height(self) -> int:
        """Height of the chain: the lowest answer, so that nothing is believed to be dropped too early."""
        return min(self._gather(_ask_height, len(self.gateways)))

    def _fetch_anchor_height(self) -> int:
        """No lower than the anchor's block: the largest height of two gateways."""
        return max(self._gather(_ask_height, ENOUGH_GATEWAYS))

    def _fetch_anchor(self) -> bytes:
        def ask(gateway: Gateway) -> bytes:
            text = gateway.get("/tx_anchor", max_bytes=MAX_TEXT_BYTES).text
            anchor = arweave_text.decode_base64url(text, "anchor", max_bytes=arweave.ANCHOR_BYTES)
            if len(anchor) != arweave.ANCHOR_BYTES:
                raise MalformedInput("anchor", f"{len(anchor)} bytes where {arweave.ANCHOR_BYTES} belong")
            return anchor

        return self._first(ask)

    def wallet_address(self) -> bytes | None:
        """Who pays for what is prepared here."""
        return None if self.wallet is None else self.wallet.address

    def read_header(self, storage_id: StorageId, header: bytes) -> StoredTransaction:
        """What a signed header says, id and signature verified; in the one form that is sent. Raises MalformedInput."""
        tx = arweave.decode_transaction_json(header)
        arweave.verify_transaction(tx, storage_id)
        if arweave.encode_transaction_json(tx).encode() != header:
            raise MalformedInput("header", "not in the form in which it is sent")
        return _stored(tx)

    def compute_data_root(self, path: Path) -> bytes:
        """The root of the file's chunk tree."""
        return hash_file(path)[0].data_root

    # --- post and seed ---

    def post(self, prepared: PreparedUpload) -> None:
        """Send the saved header until one gateway has it; to send it again costs nothing.

        Raises:
            UnknownOutcome: sent, and no gateway could tell what became of it.
            RemoteFault: refused for good; the text is the node's.
            TransientError: not sent.
        """
        errors: list[ValidatorError] = []
        for gateway in self.gateways:
            try:
                self._post_header(gateway, prepared)
                return
            except ValidatorError as error:
                errors.append(error)
        if self._is_known(prepared.storage_id):
            return  # the answer was lost, or the anchor is old because the header is long mined
        raise _worst(errors)

    def _post_header(self, gateway: Gateway, prepared: PreparedUpload) -> None:
        answer = gateway.post(
            "/tx", prepared.header.encode(), max_bytes=MAX_TEXT_BYTES, accept=(200, 202, 208, 400, 413)
        )
        if answer.status in (400, 413) and not any(text in answer.text for text in _KNOWN_TEXTS):
            raise RemoteFault(f"{gateway.host}: header refused: {answer.text}", host=gateway.host, text=answer.text)

    def _is_known(self, storage_id: StorageId) -> bool:
        return self.fetch_status(storage_id).state in (StorageState.CONFIRMED, StorageState.PENDING)

    def seed(self, prepared: PreparedUpload, path: Path) -> None:
        """Send header and all chunks to every gateway; safe to repeat.

        Raises:
            TransientError: fewer than two gateways (or than all, if there is one) took every chunk.
            Disagreement: the file is not the one that was prepared.
        """
        results = self.seed_all(prepared, path)
        complete = sum(result.is_complete for result in results)
        if complete < min(ENOUGH_GATEWAYS, len(self.gateways)):
            reasons = "; ".join(
                f"{r.host} took {r.taken} of {r.total} ({r.error})" for r in results if not r.is_complete
            )
            raise TransientError(f"chunks not taken: {reasons}", results=results)

    def seed_all(self, prepared: PreparedUpload, path: Path) -> tuple[GatewaySeed, ...]:
        """As ``seed``, telling what each gateway took; a gateway's failure is part of the answer."""
        tx = arweave.decode_transaction_json(prepared.header)
        tree, digest = hash_file(path)
        if tree.data_root != tx.data_root or digest != prepared.data_sha256:
            raise Disagreement(f"{path.name} is not the file that was prepared", sha256=digest)
        tallies = [_Tally(gateway.host, len(tree.chunks)) for gateway in self.gateways]
        deadline = time.monotonic() + self.limits.seed_s
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with ThreadPoolExecutor(self._parallel, thread_name_prefix="seed") as pool:
                headers = [
                    pool.submit(self._seed_header, g, t, prepared) for g, t in zip(self.gateways, tallies, strict=True)
                ]
                for future in headers:
                    future.result()
                jobs = [
                    pool.submit(self._seed_chunk, gateway, tally, prepared, tree, descriptor, index, deadline)
                    for index in range(len(tree.chunks))
                    for gateway, tally in zip(self.gateways, tallies, strict=True)
                ]
                for future in jobs:
                    future.result()
        finally:
            os.close(descriptor)
        return tuple(tally.result() for tally in tallies)

    def _seed_header(self, gateway: Gateway, tally: _Tally, prepared: PreparedUpload) -> None:
        try:
            self._post_header(gateway, prepared)
        except RemoteFault:
            return  # mined long ago elsewhere, perhaps: the chunks' answers tell
        except (TransientError, UnknownOutcome) as error:
            tally.stop(error.message)

    def _seed_chunk(
        self,
        gateway: Gateway,
        tally: _Tally,
        prepared: PreparedUpload,
        tree: ChunkTree,
        descriptor: int,
        index: int,
        deadline: float,
    ) -> None:
        if tally.error:
            return  # this gateway has failed for good in this run
        if time.monotonic() > deadline:
            tally.stop("out of time")
            return
        chunk = tree.chunks[index]
        body = arweave_chunks.encode_chunk(
            ChunkUpload(
                tree.data_root,
                tree.data_size,
                tree.compute_data_path(index),
                chunk.end - 1,
                os.pread(descriptor, chunk.size, chunk.start),
            )
        )
        try:
            tally.add(self._post_chunk(gateway, prepared, body))
        except ValidatorError as error:
            tally.stop(error.message)

    def _post_chunk(self, gateway: Gateway, prepared: PreparedUpload, body: bytes) -> bool:
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
                self._post_header(gateway, prepared)
        raise TransientError(f"{gateway.host}: chunk not taken yet: {code}", host=gateway.host, code=code)

    # --- look up ---

    def fetch_status(self, storage_id: StorageId) -> StorageStatus:
        """What the gateways say of a transaction.

        "confirmed": so many confirmations are seen by two gateways (or by all that answer, if fewer). "missing": every
        gateway answered that it does not know it; anything less certain is "unknown".
        """
        answers = self._ask_all(lambda gateway: _ask_status(gateway, storage_id))
        known = [answer for answer in answers if isinstance(answer, StorageStatus)]
        confirmed = sorted((a for a in known if a.state == StorageState.CONFIRMED), key=lambda a: -a.confirmations)
        needed = min(ENOUGH_GATEWAYS, len(known))
        if confirmed and len(confirmed) >= needed:
            return confirmed[needed - 1]
        if confirmed or any(a.state == StorageState.PENDING for a in known):
            return StorageStatus(StorageState.PENDING)
        return StorageStatus(StorageState.MISSING if len(known) == len(self.gateways) else StorageState.UNKNOWN)

    def fetch_is_dropped(self, prepared: PreparedUpload, status: StorageStatus) -> bool:
        """``is_dropped`` at the gateways' height."""
        return status.state == StorageState.MISSING and is_dropped(prepared, status, self.fetch_height())

    def fetch_transaction(self, storage_id: StorageId) -> StoredTransaction:
        """A confirmed transaction; id and signature are verified.

        Raises:
            TransientError: no gateway has it confirmed yet.
            RemoteFault: what a gateway gave is not this transaction.
        """
        return self._first(lambda gateway: _ask_transaction(gateway, storage_id), latest_first=True)

    def fetch_header(self, storage_id: StorageId) -> bytes:
        """The signed header in the form in which it is sent: of one that is mined, or still waits in a mempool.

        Raises:
            TransientError: no gateway has it.
            RemoteFault: what a gateway gave is not this transaction.
        """
        return self._first(lambda gateway: _ask_header(gateway, storage_id), latest_first=True)

    def find_uploads(self, bundle_root: str, owners: Iterable[bytes]) -> list[StorageId]:
        """Ids of transactions tagged with this bundle root (hex) and posted by one of ``owners`` (addresses).

        In order of height, pending ones last. Only what a gateway claims: read back before believing. Found by any
        gateway counts, plain nodes have no index; raises only if none answers.
        """
        addresses = [arweave_text.encode_base64url(owner) for owner in owners]
        if not addresses:
            return []
        found: dict[StorageId, int] = {}
        answers = self._ask_all(lambda gateway: _ask_uploads(gateway, bundle_root, addresses))
        errors = [answer for answer in answers if isinstance(answer, ValidatorError)]
        if len(errors) == len(answers):
            raise _worst(errors)
        for answer in answers:
            for storage_id, height in [] if isinstance(answer, ValidatorError) else answer:
                found[storage_id] = min(height, found.get(storage_id, height))
        return sorted(found, key=lambda storage_id: (found[storage_id], storage_id))

    # --- read back ---

    def fetch_data(self, storage_id: StorageId, destination: Path, max_bytes: int) -> int:
        """Download to ``destination`` what the transaction carries; its size. See ``download``."""
        return self.download(storage_id, destination, max_bytes).size

    def download(
        self,
        storage_id: StorageId,
        destination: Path,
        max_bytes: int,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Download:
        """Download whole, checked against the signed size and data root; other bytes never reach ``destination``.

        ``on_progress`` hears of the bytes that are here and of how many there will be; another gateway begins anew.

        Raises:
            TransientError: no gateway has all of it yet.
            RemoteFault: larger than ``max_bytes``, or no gateway gave the bytes that were signed.
        """
        transaction = self.fetch_transaction(storage_id)
        if transaction.data_size > max_bytes:
            raise RemoteFault(f"data of {transaction.data_size} bytes, limit {max_bytes}", size=transaction.data_size)
        return self._first(
            lambda gateway: download_from(gateway, transaction, destination, on_progress), latest_first=True
        )

    def fetch_tail(self, storage_id: StorageId, wanted: int) -> tuple[int, bytes]:
        """Size of the data, and its last ``wanted`` bytes, or all if there are fewer.

        They are what a gateway says: a part cannot be checked against the data root. Their reader must know better.

        Raises:
            TransientError: no gateway has it yet.
            RemoteFault: no gateway gives ranges.
        """
        size = self.fetch_transaction(storage_id).data_size
        path = f"/raw/{arweave_text.encode_storage_id(storage_id)}"
        start = max(0, size - wanted)
        return size, self._first(lambda gateway: gateway.get_range(path, start, size, size), latest_first=True)

    # --- several gateways ---

    def _first(self, ask: Callable[[Gateway], T], *, latest_first: bool = False) -> T:
        """The first good answer. Reading begins with another gateway than posting, where there is one."""
        errors: list[ValidatorError] = []
        for gateway in reversed(self.gateways) if latest_first else self.gateways:
            try:
                return ask(gateway)
            except ValidatorError as error:
                errors.append(_name_host(gateway, error))
        raise _worst(errors)

    def _gather(self, ask: Callable[[Gateway], T], wanted: int) -> list[T]:
        """Up to ``wanted`` good answers, at least one."""
        answers: list[T] = []
        errors: list[ValidatorError] = []
        for gateway in self.gateways:
            try:
                answers.append(ask(gateway))
            except ValidatorError as error:
                errors.append(_name_host(gateway, error))
            if len(answers) == wanted:
                break
        if not answers:
            raise _worst(errors)
        return answers

    def _ask_all(self, ask: Callable[[Gateway], T]) -> list[T | ValidatorError]:
        """Every gateway's answer or error, asked at the same time."""

        def attempt(gateway: Gateway) -> T | ValidatorError:
            try:
                return ask(gateway)
            except ValidatorError as error:
                return _name_host(gateway, error)

        if len(self.gateways) == 1:
            return [attempt(self.gateways[0])]
        with ThreadPoolExecutor(len(self.gateways), thread_name_prefix="gateways") as pool:
            return list(pool.map(attempt, self.gateways))


def is_dropped(prepared: PreparedUpload, status: StorageStatus, height: int) -> bool:
    """Whether it is certain that the header can no longer be mined, so that signing anew can not pay twice.

    Every gateway says missing, and the chain is past the anchor's life and past any fork that could bring it back.
    """
    return status.state == StorageState.MISSING and height > prepared.anchor_height + ANCHOR_LIFE_BLOCKS + FORK_BLOCKS


def _verify_own(tx: Transaction, tree: ChunkTree) -> None:
    """Check what we are about to pay for as strictly as what strangers send us."""
    fault = arweave.compute_fault(tx)
    if fault is not None:
        raise InvariantError(f"our own transaction is not sound: {fault}")
    for index, chunk in enumerate(tree.chunks):
        path = tree.compute_data_path(index)
        proven = arweave_chunks.validate_data_path(tx.data_root, tx.data_size, chunk.end - 1, path)
        if proven is None or (proven.start, proven.end, proven.data_hash) != (
            chunk.start,
            chunk.end,
            tree.data_hashes[index],
        ):
            raise InvariantError(f"our own proof of chunk {index} is not sound")


def _parse_number(answer: Answer, field_name: str, *, lowest: int = 0) -> int:
    number = arweave_text.decode_integer(answer.body.decode("ascii", errors="replace"), field_name, max_digits=24)
    if number < lowest:
        raise MalformedInput(field_name, f"{number} is below {lowest}")
    return number


def _ask_height(gateway: Gateway) -> int:
    answer = gateway.get("/info", max_bytes=MAX_INFO_BYTES, json=True)
    height = arweave_text.decode_json_object(answer.body, "info", max_bytes=MAX_INFO_BYTES).get("height")
    if type(height) is not int or not 0 <= height < MAX_HEIGHT:
        raise MalformedInput("info.height", "no height")
    return height


def _ask_status(gateway: Gateway, storage_id: StorageId) -> StorageStatus:
    path = f"/tx/{arweave_text.encode_storage_id(storage_id)}/status"
    answer = gateway.get(path, max_bytes=MAX_TEXT_BYTES, accept=(200, 202, 404, 410), json=True)
    if answer.status == 202:
        return StorageStatus(StorageState.PENDING)
    if answer.status != 200:
        return StorageStatus(StorageState.MISSING)
    if answer.body.strip() == b"Pending":
        return StorageStatus(StorageState.PENDING)
    body = arweave_text.decode_json_object(answer.body, "status", max_bytes=MAX_TEXT_BYTES)
    height, confirmations = body.get("block_height"), body.get("number_of_confirmations")
    for name, value in (("block_height", height), ("number_of_confirmations", confirmations)):
        if type(value) is not int or not 0 <= value < MAX_HEIGHT:
            raise MalformedInput(f"status.{name}", "no number")
    return StorageStatus(StorageState.CONFIRMED, int(confirmations or 0), int(height or 0))


def _ask_transaction(gateway: Gateway, storage_id: StorageId) -> StoredTransaction:
    return _stored(_ask_signed(gateway, storage_id, "tx"))


def _ask_header(gateway: Gateway, storage_id: StorageId) -> bytes:
    try:
        tx = _ask_signed(gateway, storage_id, "tx")
    except TransientError:
        tx = _ask_signed(gateway, storage_id, "unconfirmed_tx")
    return arweave.encode_transaction_json(tx).encode()


def _ask_signed(gateway: Gateway, storage_id: StorageId, route: str) -> Transaction:
    path = f"/{route}/{arweave_text.encode_storage_id(storage_id)}"
    answer = gateway.get(path, max_bytes=arweave.MAX_HEADER_JSON_BYTES, accept=(200, 202, 404, 410), json=True)
    if answer.status != 200:
        raise TransientError(f"{gateway.host}: HTTP {answer.status}, not confirmed here", host=gateway.host)
    tx = arweave.decode_transaction_json(answer.body)
    arweave.verify_transaction(tx, storage_id)
    return tx


def _stored(tx: Transaction) -> StoredTransaction:
    return StoredTransaction(tx.id, tx.address, tx.tag_texts, tx.data_size, tx.data_root)


def _ask_uploads(gateway: Gateway, bundle_root: str, addresses: Sequence[str]) -> list[tuple[StorageId, int]]:
    found: list[tuple[StorageId, int]] = []
    after: str | None = None
    for _ in range(MAX_PAGES):
        variables = {
            "owners": list(addresses),
            "tags": [{"name": "Bundle-Root", "values": [bundle_root]}],
            "after": after,
        }
        body = json.dumps({"query": _UPLOADS_QUERY, "variables": variables}).encode()
        accept = (200, *_NO_INDEX)
        answer = gateway.post("/graphql", body, max_bytes=MAX_PAGE_BYTES, accept=accept, has_effect=False)
        if answer.status != 200:
            return found
        page = _parse_page(arweave_text.decode_json_object(answer.body, "graphql", max_bytes=MAX_PAGE_BYTES))
        edges = page["edges"]
        for node in (edge["node"] for edge in edges):
            tags = [(tag["name"], tag["value"]) for tag in node["tags"]]
            if node["owner"]["address"] in addresses and ("Bundle-Root", bundle_root) in tags:
                height = node["block"]["height"] if node["block"] else MAX_HEIGHT
                found.append((arweave_text.decode_storage_id(node["id"], "graphql.id"), int(height)))
        if not page["pageInfo"]["hasNextPage"] or not edges:
            return found
        after = str(edges[-1]["cursor"])
    return found


def _parse_page(body: dict[str, Any]) -> dict[str, Any]:
    """The page of a GraphQL answer, every part that is used checked for its kind. Raises MalformedInput."""
    if body.get("errors"):
        raise MalformedInput("graphql.errors", str(body["errors"])[:200])
    try:
        page: dict[str, Any] = body["data"]["transactions"]
        edges = page["edges"]
        sound = (
            isinstance(edges, list) and len(edges) <= PAGE_ITEMS and isinstance(page["pageInfo"]["hasNextPage"], bool)
        )
        for edge in edges if sound else ():
            node = edge["node"]
            texts = [node["id"], node["owner"]["address"], edge["cursor"]]
            texts += [tag[key] for tag in node["tags"] for key in ("name", "value")]
            is_block_sound = node["block"] is None or type(node["block"]["height"]) is int
            sound = sound and is_block_sound and all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError, IndexError) as error:
        raise MalformedInput("graphql", "not the page that was asked for") from error
    if not sound:
        raise MalformedInput("graphql", "not the page that was asked for")
    return page


def _chunk_error(answer: Answer) -> str:
    try:
        code = arweave_text.decode_json_object(answer.body, "chunk", max_bytes=MAX_INFO_BYTES).get("error")
    except MalformedInput:
        return answer.text or f"HTTP {answer.status}"
    return str(code)[:100]


def _name_host(gateway: Gateway, error: ValidatorError) -> ValidatorError:
    """The same error, with the gateway's host in its text."""
    if gateway.host not in error.message:
        error.message = f"{gateway.host}: {error.message}"
    error.fields.setdefault("host", gateway.host)
    return error


def _worst(errors: Sequence[ValidatorError]) -> ValidatorError:
    """One error for several gateways' failures: unknown before transient before refused, all texts in it."""
    text = "; ".join(error.message for error in errors)
    for kind in (UnknownOutcome, TransientError):
        if any(isinstance(error, kind) for error in errors):
            return kind(text, errors=tuple(errors))
    fields = {**errors[-1].fields, "errors": tuple(errors)}
    fields.pop("field", None)
    fields.pop("reason", None)
    return RemoteFault(text, **fields)
