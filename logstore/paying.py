"""Paying for what is read, by receipts: within a budget that the caller sets, and never beyond.

A receipt is a promise to pay a broker for all bytes that were read from it in an epoch, at most ``max_price`` a MiB. So
what a budget may cost is known before anything is signed. How far receipts went is kept in a small file per key, since
a broker keeps only one that promises more than the last:

    <state folder>/receipts/<chain id>-<ReportManager>/<address>.json     {"0x<broker>": {"epoch": 3, "bytes": 1048576}}
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from logstore.brokers import Http, Place, kind_of
from logstore.errors import BudgetSpent, Denied
from logstore.files import written_whole
from validator.protocol.codec.receipt import sign_receipt, write_receipt
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.errors import ConfigError, RemoteFault
from validator.protocol.model import Address
from validator.protocol.parameters import Network

MIB = 1 << 20
MAX_ANSWER_BYTES = 4 << 10
MAX_STATE_BYTES = 4 << 20
DEADLINE_S = 15.0


class _Signed(msgspec.Struct):
    epoch: int
    bytes: int


class _Kept(msgspec.Struct):
    """A broker's answer to a receipt."""

    kept: bool


class Payer:
    """One budget, over all brokers. One thread."""

    def __init__(
        self,
        signer: Signer,
        network: Network,
        folder: Path,
        *,
        max_price: int,
        max_total: int,
        clock: Callable[[], int],
    ) -> None:
        """``max_price``: base units per MiB; ``max_total``: base units, of all that this payer ever signs."""
        if not 0 < max_price < 1 << 96 or max_total <= 0:
            raise ConfigError("budget: max_price and max_total are amounts above 0", field="max_price")
        self._signer = signer
        self._network = network
        self._path = folder / f"{signer.address.hex()}.json"
        self._max_price = max_price
        self._bytes_left = max_total * MIB // max_price
        self._clock = clock

    def require_left(self) -> None:
        """Raises BudgetSpent."""
        if self._bytes_left <= 0:
            raise BudgetSpent("the budget is spent: raise max_total, or ask for less", field="max_total")

    def pay(self, http: Http, place: Place, broker: Address, read_bytes: int) -> None:
        """For bytes that were read from a broker; for as many of them as the budget has left.

        Raises:
            TransientError, RemoteFault: the broker does not take the receipt.
            ConfigError: the file cannot be written.
        """
        paid = min(read_bytes, self._bytes_left)
        if paid <= 0:
            return
        network = self._network
        epoch = network.epoch_at(self._clock())
        number = 0 if epoch is None else epoch.number
        with self._opened() as signed:
            last = signed.get(f"0x{broker.hex()}")
            before = last.bytes if last is not None and last.epoch == number else 0
            receipt = sign_receipt(
                self._signer,
                broker,
                number,
                before + paid,
                self._max_price,
                chain_id=network.chain_id,
                query_manager=network.contracts.query_manager,
            )
            signed[f"0x{broker.hex()}"] = _Signed(number, before + paid)
            self._bytes_left -= paid
        answer = http.fetch(
            "POST",
            place.url,
            "/v1/receipts",
            max_bytes=MAX_ANSWER_BYTES,
            deadline_s=DEADLINE_S,
            body=write_receipt(receipt),
        )
        if answer.status != 200:
            kind = kind_of(answer.status)
            raise kind(f"{place.url}: receipt: HTTP {answer.status}", status=answer.status, url=str(place.url))
        try:
            kept = msgspec.json.decode(answer.body, type=_Kept).kept
        except msgspec.MsgspecError as error:
            raise RemoteFault(f"{place.url}: receipt: {str(error)[:200]}") from error
        if not kept:
            raise Denied(
                f"{place.url}: has a receipt over more bytes than {self._path} knows of; keep that file with the key"
            )

    @contextmanager
    def _opened(self) -> Iterator[dict[str, _Signed]]:
        """What was signed so far, for this program alone, and written down before the receipt leaves."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                signed = self._load()
                yield signed
                with written_whole(self._path) as file:
                    file.write(msgspec.json.encode(signed))
        except OSError as error:
            raise ConfigError(f"{self._path}: {error.strerror or error}", field="state") from error

    def _load(self) -> dict[str, _Signed]:
        if not self._path.exists():
            return {}
        with self._path.open("rb") as file:
            data = file.read(MAX_STATE_BYTES)
        try:
            return msgspec.json.decode(data, type=dict[str, _Signed])
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{self._path}: not a file of receipts: {error}", field="state") from error
