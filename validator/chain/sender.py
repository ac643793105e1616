"""``ChainSender``: simulates, signs and sends transactions with one key (port ``ReportSender``).

A transaction is prepared (simulated, priced, signed), saved by the caller, then sent as it is; sending it again is
harmless. Fees are EIP-1559: twice the base fee plus the node's suggestion, under the operator's cap; a replacement
raises both by a quarter. eth-account, web3.py's signer, is imported when the first transaction is built. That import
sets the interpreter's recursion limit to 100 000 (py_ecc does), where nested JSON from a stranger would overflow the
C stack of a thread and end the process; so the limit is put back.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from validator.chain.abi import explain_revert, interface
from validator.chain.rpc import Failed, Request, Reverted, Rpc, parse_bytes, parse_number, parse_quantity
from validator.codec.report import report_values
from validator.codec.secp256k1 import SigningKey
from validator.errors import AlreadyDone, MalformedInput, RemoteFault, TransientError, UnknownOutcome
from validator.hashing import keccak256
from validator.model import Address, Digest, Report
from validator.parameters import Contracts
from validator.ports import PreparedTransaction, TransactionStatus

GAS_LIMIT_CAP = 16_000_000
MIN_TIP_WEI = 1_000_000_000
MAX_FEE_WEI = 5_000 * 10**9
"""Most wei per gas that is ever offered, unless the operator says otherwise."""


@dataclass(frozen=True, slots=True)
class _Fees:
    max_fee: int
    tip: int


@dataclass(frozen=True, slots=True)
class _Receipt:
    block_number: int
    block_hash: bytes
    success: bool
    gas_used: int


class ChainSender:
    """One gas key's transactions. Thread-safe except that two ``prepare`` calls at once may choose the same nonce."""

    def __init__(
        self,
        urls: Sequence[str],
        contracts: Contracts,
        key: SigningKey,
        *,
        chain_id: int,
        max_fee_wei: int = MAX_FEE_WEI,
        deadline_s: float = 15.0,
    ) -> None:
        self.rpc = Rpc(urls, deadline_s=deadline_s)
        self._contracts = contracts
        self._key = key
        self._chain_id = chain_id
        self._max_fee_wei = max_fee_wei

    @property
    def address(self) -> Address:
        return self._key.address

    def close(self) -> None:
        self.rpc.close()

    # --- reports ----------------------------------------------------------------------------------

    def prepare(self, report: Report, bitmap: int, signatures: bytes) -> PreparedTransaction:
        """Simulate ``submitReport`` on the newest state, then price and sign it. Nothing is sent.

        Raises:
            RemoteFault: the contract would refuse it; ``revert`` names its error, for example "WrongNumber(4)".
            TransientError: sources do not answer or do not agree.
        """
        data = interface("ReportManager").function("submitReport").encode((report_values(report), bitmap, signatures))
        return self.prepare_call(self._contracts.report_manager, data)

    def prepare_call(self, to: Address, data: bytes, *, value: int = 0) -> PreparedTransaction:
        """As ``prepare``, for any call."""
        gas = self._simulate(to, data, value)
        nonce = self._fetch_nonce("pending")
        return self._sign(to, data, value, nonce, gas, self._fetch_fees())

    def replace(self, transaction: PreparedTransaction) -> PreparedTransaction:
        """The same call and nonce with fees a quarter higher, or today's if those are more.

        Raises:
            AlreadyDone: a transaction with this nonce has been mined.
            RemoteFault: the operator's cap is reached.
        """
        if self._fetch_nonce("latest") > transaction.nonce:
            raise AlreadyDone(f"nonce {transaction.nonce} is used up", nonce=transaction.nonce)
        old = self._parse_raw(transaction.raw)
        now = self._fetch_fees()
        fees = _Fees(
            max(now.max_fee, old["maxFeePerGas"] * 5 // 4 + 1), max(now.tip, old["maxPriorityFeePerGas"] * 5 // 4 + 1)
        )
        if fees.max_fee > self._max_fee_wei:
            raise RemoteFault(
                f"a replacement needs {fees.max_fee} wei per gas, the cap is {self._max_fee_wei}", reason="fee cap"
            )
        return self._sign(Address(old["to"]), old["data"], old["value"], transaction.nonce, old["gas"], fees)

    def send(self, transaction: PreparedTransaction) -> None:
        """Hand the raw transaction to every source; one that takes it, or knows it already, is enough.

        Raises:
            AlreadyDone: its nonce is used up: look up the receipt.
            RemoteFault: refused for good (``reason``: "funds", "underpriced", "refused").
            UnknownOutcome: no source answered.
        """
        request = Request("eth_sendRawTransaction", ("0x" + transaction.raw.hex(),), lambda v: parse_bytes(v, "hash"))
        answers = self.rpc.each(request)
        if any(isinstance(answer, bytes) for _, answer in answers):
            return
        reasons = {host: answer.reason.lower() for host, answer in answers if isinstance(answer, Failed)}
        said = list(reasons.values())
        if any("already known" in text or "alreadyknown" in text or "already imported" in text for text in said):
            return
        if any("nonce too low" in text for text in said):
            raise AlreadyDone(f"nonce {transaction.nonce} is used up", nonce=transaction.nonce)
        refusals = [text for text in said if text.startswith("eth_sendrawtransaction:")]
        if not refusals:
            raise UnknownOutcome("no RPC source answered eth_sendRawTransaction", sources=reasons)
        reason = "refused"
        if any("insufficient funds" in text for text in refusals):
            reason = "funds"
        elif any("underpriced" in text for text in refusals):
            reason = "underpriced"
        raise RemoteFault(f"transaction refused: {refusals[0]}", reason=reason, sources=reasons)

    def fetch_status(self, transaction_hash: Digest) -> TransactionStatus:
        """Mined by the word of a majority; pending if any source has it; else missing."""
        text = "0x" + transaction_hash.hex()
        receipt = self.rpc.agree([Request("eth_getTransactionReceipt", (text,), _parse_receipt)])[0]
        if receipt is not None:
            return TransactionStatus("mined", receipt.success, receipt.block_number, receipt.gas_used)
        known = self.rpc.each_at_least(Request("eth_getTransactionByHash", (text,), lambda v: v is not None), 1)
        return TransactionStatus("pending" if any(known) else "missing")

    def fetch_balance(self) -> int:
        """Wei of the gas key; the lower median of what sources say."""
        values = self.rpc.each_at_least(
            Request("eth_getBalance", ("0x" + self.address.hex(), "latest"), parse_quantity), self.rpc.majority
        )
        return _lower_median(values)

    # --- any call ---------------------------------------------------------------------------------

    def transact(self, contract: str, function: str, arguments: Sequence[Any], *, to: Address) -> PreparedTransaction:
        """Prepare and send a call of one of our contracts, for example ("ReportManager", "setCommittee", ...)."""
        prepared = self.prepare_call(to, interface(contract).function(function).encode(arguments))
        self.send(prepared)
        return prepared

    # --- inside -----------------------------------------------------------------------------------

    def _simulate(self, to: Address, data: bytes, value: int) -> int:
        """Gas to offer: the estimate and a fifth. Raises RemoteFault with the decoded revert."""
        call = {
            "from": "0x" + self.address.hex(),
            "to": "0x" + to.hex(),
            "data": "0x" + data.hex(),
            "value": hex(value),
        }
        heard = self.rpc.each(Request("eth_estimateGas", (call,), parse_quantity))
        answers = [answer for _, answer in heard if not isinstance(answer, Failed)]
        if not answers:
            said = {host: answer.reason for host, answer in heard if isinstance(answer, Failed)}
            raise TransientError("RPC sources do not answer eth_estimateGas", reason="unavailable", sources=said)
        reverts = [answer for answer in answers if isinstance(answer, Reverted)]
        if reverts and 2 * len(reverts) >= len(answers):
            reason = explain_revert(reverts[0].data)
            raise RemoteFault(f"the contract would refuse the call: {reason}", revert=reason, reason="revert")
        estimates = [answer for answer in answers if isinstance(answer, int)]
        gas = max(estimates) * 6 // 5
        if gas > GAS_LIMIT_CAP:
            raise RemoteFault(f"the call needs {gas} gas, at most {GAS_LIMIT_CAP} are offered", reason="gas")
        return gas

    def _fetch_nonce(self, tag: str) -> int:
        values = self.rpc.each_at_least(
            Request("eth_getTransactionCount", ("0x" + self.address.hex(), tag), parse_number), self.rpc.majority
        )
        return _lower_median(values)

    def _fetch_fees(self) -> _Fees:
        base = _lower_median(
            self.rpc.each_at_least(
                Request("eth_getBlockByNumber", ("latest", False), _parse_base_fee), self.rpc.majority
            )
        )
        tips = self.rpc.each(Request("eth_maxPriorityFeePerGas", (), parse_quantity))
        known = [answer for _, answer in tips if isinstance(answer, int)]
        tip = max(_lower_median(known) if known else 0, MIN_TIP_WEI)
        max_fee = min(2 * base + tip, self._max_fee_wei)
        return _Fees(max_fee, min(tip, max_fee))

    def _sign(self, to: Address, data: bytes, value: int, nonce: int, gas: int, fees: _Fees) -> PreparedTransaction:
        fields = {
            "type": 2,
            "chainId": self._chain_id,
            "nonce": nonce,
            "to": to,
            "data": data,
            "value": value,
            "gas": gas,
            "maxFeePerGas": fees.max_fee,
            "maxPriorityFeePerGas": fees.tip,
        }
        raw = sign_transaction(fields, self._key)
        return PreparedTransaction(keccak256(raw), raw, nonce, fees.max_fee)

    def _parse_raw(self, raw: bytes) -> dict[str, Any]:
        _import_eth_account()
        from eth_account.typed_transactions.typed_transaction import TypedTransaction
        from hexbytes import HexBytes

        fields: dict[str, Any] = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        return {**fields, "to": bytes(fields["to"]), "data": bytes(fields["data"])}


def sign_transaction(fields: dict[str, Any], key: SigningKey) -> bytes:
    """Raw bytes of a signed transaction. Raises RemoteFault if the fields are none."""
    _import_eth_account()
    from eth_account import Account

    try:
        signed = Account.sign_transaction(fields, key.secret_hex())
    except (TypeError, ValueError) as error:
        raise RemoteFault(f"cannot build the transaction: {error}") from error
    return bytes(signed.raw_transaction)


def _import_eth_account() -> None:
    if "eth_account" in sys.modules:
        return
    limit = sys.getrecursionlimit()
    try:
        import eth_account  # noqa: F401
    finally:
        sys.setrecursionlimit(limit)


def _lower_median(values: Sequence[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]


def _parse_base_fee(value: Any) -> int:
    if not isinstance(value, dict):
        raise MalformedInput("block", "not there")
    return parse_quantity(value.get("baseFeePerGas"), "block.baseFeePerGas")


def _parse_receipt(value: Any) -> _Receipt | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise MalformedInput("receipt", "not an object")
    return _Receipt(
        parse_number(value.get("blockNumber"), "receipt.blockNumber"),
        parse_bytes(value.get("blockHash"), "receipt.blockHash", 32),
        parse_quantity(value.get("status"), "receipt.status") == 1,
        parse_number(value.get("gasUsed"), "receipt.gasUsed"),
    )
