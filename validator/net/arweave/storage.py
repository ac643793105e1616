"""Bundles on Arweave: the ``BundleStorage`` port over one or more gateways.

The order of things is what makes an upload cost once: ``prepare`` signs, the caller saves, ``post`` and ``seed`` only
ever send the saved bytes, however often. With salt-free signatures even a header that was signed and not saved
comes out the same again, as long as anchor and reward are the same.

What a gateway says is a hint; what is read back is checked: ``fetch_transaction`` verifies id and signature,
``fetch_data`` recomputes the data root from the bytes (``reading``) and asks the next gateway where it differs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from validator.net.arweave.client import compute_client_signature_data
from validator.net.arweave.gateway import CircuitState, Gateway, Limits
from validator.net.arweave.gateways import Gateways, worst
from validator.net.arweave.questions import (
    MAX_TEXT_BYTES,
    ask_header,
    ask_height,
    ask_status,
    ask_transaction,
    ask_uploads,
    parse_number,
    stored,
)
from validator.net.arweave.reading import Download, download_from, hash_file
from validator.net.arweave.seeding import ROOT_WAIT_S, Seeding, post_header
from validator.net.arweave.wallet import ArweaveWallet
from validator.ports.storage import (
    ENOUGH_GATEWAYS,
    GatewaySeed,
    PreparedUpload,
    StorageState,
    StorageStatus,
    StoredTransaction,
    Tariff,
)
from validator.protocol.codec import arweave, arweave_chunks, arweave_text
from validator.protocol.codec.arweave import Transaction
from validator.protocol.codec.arweave_chunks import ChunkTree
from validator.protocol.errors import (
    ConfigError,
    Disagreement,
    InvariantError,
    MalformedInput,
    RemoteFault,
    TransientError,
    ValidatorError,
)
from validator.protocol.model import StorageId

ANCHOR_LIFE_BLOCKS = 50
FORK_BLOCKS = 18
"""Reorganisations that the network handles; behind them nothing returns."""
PRICE_MARGIN_PERCENT = 5
MAX_PRICE_RATIO = 2


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
        now: Callable[[], float] = time.monotonic,
        on_circuit: Callable[[CircuitState], None] = lambda _: None,
    ) -> None:
        """``on_circuit`` hears of each gateway when its circuit closes (at its first answer too) or opens."""
        if not urls:
            raise ConfigError("gateways: none configured; name at least one URL")
        self.limits = limits or Limits()
        self.gateways = Gateways(
            [Gateway(url, self.limits, connections=parallel + 4, sleep=sleep, on_circuit=on_circuit) for url in urls]
        )
        self.wallet = wallet
        self.reward_cap = reward_cap
        self._parallel = parallel
        self._root_wait_s = root_wait_s
        self._sleep = sleep
        self._now = now

    def close(self) -> None:
        self.gateways.close()

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
            return parse_number(answer, "price", lowest=1)

        prices = self.gateways.gather(ask, ENOUGH_GATEWAYS)
        if max(prices) > MAX_PRICE_RATIO * min(prices):
            raise RemoteFault(f"gateways' prices differ: {min(prices)} and {max(prices)} winston")
        return max(prices)

    def fetch_tariff(self) -> Tariff:
        """Base and step, from the prices of nothing and of one chunk. Raises as ``fetch_price``."""
        base = self.fetch_price(0)
        return Tariff(base, max(0, self.fetch_price(arweave_chunks.CHUNK_BYTES) - base))

    def fetch_balance(self) -> int:
        """Winston in the wallet: the largest answer, since one that is too large costs nothing."""
        address = arweave_text.encode_base64url(self._require_wallet().address)

        def ask(gateway: Gateway) -> int:
            answer = gateway.get(f"/wallet/{address}/balance", max_bytes=MAX_TEXT_BYTES)
            return parse_number(answer, "balance")

        return max(self.gateways.gather(ask, ENOUGH_GATEWAYS))

    def fetch_height(self) -> int:
        """Height of the chain: the lowest answer, so that nothing is believed to be dropped too early."""
        return min(self.gateways.gather(ask_height, len(self.gateways)))

    def _fetch_anchor_height(self) -> int:
        """No lower than the anchor's block: the largest height of two gateways."""
        return max(self.gateways.gather(ask_height, ENOUGH_GATEWAYS))

    def _fetch_anchor(self) -> bytes:
        def ask(gateway: Gateway) -> bytes:
            text = gateway.get("/tx_anchor", max_bytes=MAX_TEXT_BYTES).text
            anchor = arweave_text.decode_base64url(text, "anchor", max_bytes=arweave.ANCHOR_BYTES)
            if len(anchor) != arweave.ANCHOR_BYTES:
                raise MalformedInput("anchor", f"{len(anchor)} bytes where {arweave.ANCHOR_BYTES} belong")
            return anchor

        return self.gateways.first(ask)

    def wallet_address(self) -> bytes | None:
        """Who pays for what is prepared here."""
        return None if self.wallet is None else self.wallet.address

    def read_header(self, storage_id: StorageId, header: bytes) -> StoredTransaction:
        """What a signed header says, id and signature verified; in the one form that is sent. Raises MalformedInput."""
        tx = arweave.decode_transaction_json(header)
        arweave.verify_transaction(tx, storage_id)
        if arweave.encode_transaction_json(tx).encode() != header:
            raise MalformedInput("header", "not in the form in which it is sent")
        return stored(tx)

    def compute_data_root(self, path: Path) -> bytes:
        """The root of the file's chunk tree."""
        return hash_file(path)[0].data_root

    # --- post and seed ---

    def post(self, prepared: PreparedUpload) -> str:
        """Send the saved header until one gateway has it, and say which; to send it again costs nothing.

        Raises:
            UnknownOutcome: sent, and no gateway could tell what became of it.
            RemoteFault: refused for good; the text is the node's.
            TransientError: not sent.
        """
        errors: list[ValidatorError] = []
        for gateway in self.gateways:
            try:
                post_header(gateway, prepared)
                return gateway.host
            except ValidatorError as error:
                errors.append(error)
        if self._is_known(prepared.storage_id):
            return ""  # the answer was lost, or the anchor is old because the header is long mined
        raise worst(errors)

    def _is_known(self, storage_id: StorageId) -> bool:
        return self.fetch_status(storage_id).state in (StorageState.CONFIRMED, StorageState.PENDING)

    def seed(
        self, prepared: PreparedUpload, path: Path, taken: Mapping[str, int] | None = None
    ) -> tuple[GatewaySeed, ...]:
        """Send every gateway header and chunks that it has not taken, for ``seed_s``; safe to repeat (``seeding``).

        Raises:
            Disagreement: the file is not the one that was prepared.
        """
        tx = arweave.decode_transaction_json(prepared.header)
        tree, digest = hash_file(path)
        if tree.data_root != tx.data_root or digest != prepared.data_sha256:
            raise Disagreement(f"{path.name} is not the file that was prepared", sha256=digest)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            run = Seeding(
                prepared,
                tree,
                descriptor,
                limit_s=self.limits.seed_s,
                root_wait_s=self._root_wait_s,
                sleep=self._sleep,
                now=self._now,
            )
            return run.seed(tuple(self.gateways), self._parallel, taken or {})
        finally:
            os.close(descriptor)

    # --- look up ---

    def fetch_status(self, storage_id: StorageId) -> StorageStatus:
        """What the gateways say of a transaction.

        "confirmed": so many confirmations are seen by two gateways (or by the one that is configured). "missing": every
        gateway answered that it does not know it; anything less certain is "pending" or "unknown".
        """
        answers = self.gateways.ask_all(lambda gateway: ask_status(gateway, storage_id))
        known = [answer for answer in answers if isinstance(answer, StorageStatus)]
        confirmed = sorted((a for a in known if a.state == StorageState.CONFIRMED), key=lambda a: -a.confirmations)
        needed = min(ENOUGH_GATEWAYS, len(self.gateways))
        if len(confirmed) >= needed:
            return confirmed[needed - 1]
        if confirmed or any(a.state == StorageState.PENDING for a in known):
            return StorageStatus(StorageState.PENDING)
        return StorageStatus(StorageState.MISSING if len(known) == len(self.gateways) else StorageState.UNKNOWN)

    def fetch_is_dropped(self, prepared: PreparedUpload, status: StorageStatus) -> bool:
        """``is_dropped`` at the lowest height. Every gateway must tell its own: one alone could have us pay anew."""
        if status.state != StorageState.MISSING:
            return False
        heights = self.gateways.gather(ask_height, len(self.gateways))
        return len(heights) == len(self.gateways) and is_dropped(prepared, status, min(heights))

    def fetch_transaction(self, storage_id: StorageId) -> StoredTransaction:
        """A confirmed transaction; id and signature are verified.

        Raises:
            TransientError: no gateway has it confirmed yet.
            RemoteFault: what a gateway gave is not this transaction.
        """
        return self.gateways.first(lambda gateway: ask_transaction(gateway, storage_id), latest_first=True)

    def fetch_header(self, storage_id: StorageId) -> bytes:
        """The signed header in the form in which it is sent: of one that is mined, or still waits in a mempool.

        Raises:
            TransientError: no gateway has it.
            RemoteFault: what a gateway gave is not this transaction.
        """
        return self.gateways.first(lambda gateway: ask_header(gateway, storage_id), latest_first=True)

    def find_uploads(self, bundle_root: str, owners: Iterable[bytes]) -> list[StorageId]:
        """Ids of transactions tagged with this bundle root (hex) and posted by one of ``owners`` (addresses).

        In order of height, pending ones last. Only what a gateway claims: read back before believing. Found by any
        gateway counts, plain nodes have no index; raises only if none answers.
        """
        addresses = [arweave_text.encode_base64url(owner) for owner in owners]
        if not addresses:
            return []
        found: dict[StorageId, int] = {}
        answers = self.gateways.ask_all(lambda gateway: ask_uploads(gateway, bundle_root, addresses))
        errors = [answer for answer in answers if isinstance(answer, ValidatorError)]
        if len(errors) == len(answers):
            raise worst(errors)
        for answer in answers:
            for storage_id, height in [] if isinstance(answer, ValidatorError) else answer:
                found[storage_id] = min(height, found.get(storage_id, height))
        return sorted(found, key=lambda storage_id: (found[storage_id], storage_id))

    # --- read back ---

    def fetch_data(self, storage_id: StorageId, destination: Path, max_bytes: int, *, posted_to: str = "") -> int:
        """Download to ``destination`` what the transaction carries; its size. See ``download``."""
        return self.download(storage_id, destination, max_bytes, posted_to=posted_to).size

    def download(
        self,
        storage_id: StorageId,
        destination: Path,
        max_bytes: int,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
        *,
        posted_to: str = "",
    ) -> Download:
        """Download whole, checked against the signed size and data root; other bytes never reach ``destination``.

        ``on_progress`` hears of the bytes that are here and of how many there will be; another gateway begins anew.
        ``posted_to``: a host that proves nothing by having it; it is asked only where it is the only one.

        Raises:
            TransientError: no gateway has all of it yet.
            RemoteFault: larger than ``max_bytes``, or no gateway gave the bytes that were signed.
        """
        transaction = self.fetch_transaction(storage_id)
        if transaction.data_size > max_bytes:
            raise RemoteFault(f"data of {transaction.data_size} bytes, limit {max_bytes}", size=transaction.data_size)
        return self.gateways.first(
            lambda gateway: download_from(gateway, transaction, destination, on_progress),
            latest_first=True,
            but_for=posted_to,
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
        return size, self.gateways.first(lambda gateway: gateway.get_range(path, start, size, size), latest_first=True)


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
