"""``ChainSender``: simulates, signs and sends transactions with one key (port ``ReportSender``).

A transaction is prepared (simulated, priced, signed), saved by the caller, then sent as it is; sending it again is
harmless. What has become of it is read from the chain: receipts of every transaction with its nonce, the account's
nonces, its balance, the pool. Nodes word their refusals each in its own way, so words only ever hint at what the chain
cannot tell: whether a refusal is for the fee.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from validator.net.chain.abi import explain_revert, interface
from validator.net.chain.jsonrpc import Failed, Request, Reverted
from validator.net.chain.pricing import Fees, raised_fees, repriced_fees, tip_floor, todays_fees
from validator.net.chain.rpc import Rpc
from validator.net.chain.transaction import Transaction, parse_raw
from validator.net.chain.values import parse_bytes, parse_number, parse_quantity
from validator.ports.chain import PreparedTransaction, SendRefusal, TransactionFate, TransactionState, TransactionStatus
from validator.protocol.codec.report import report_values
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.errors import AlreadyDone, MalformedInput, RemoteFault, TransientError, UnknownOutcome
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, Digest
from validator.protocol.parameters import Contracts
from validator.protocol.report import Report

GAS_LIMIT_CAP = 16_000_000
LINE_GAS = 50_000
"""Offered beyond the estimate for each node line: a node whose stake falls below the requirement before the report is
mined costs two new slots when its reward lifts it again."""
MAX_FEE_WEI = 5_000 * 10**9
"""Most wei per gas that is ever offered, unless the operator says otherwise."""
MAX_COST_WEI = 10 * 10**18
"""Most wei that one transaction may cost, unless the operator says otherwise."""
_FOR_ITS_FEE = re.compile(
    r"underpriced|gas ?price|tip ?cap|priority ?fee|max ?fee|fee ?cap|fee ?too ?low|base ?fee|minimum (gas|fee)"
)
_TOO_DEAR = re.compile(r"exceeds the configured cap")
_KNOWN = re.compile(r"already ?known|already ?imported|known transaction|existing tx")
_NONCE = re.compile(r"nonce ?too ?low|old ?nonce|nonce .*(used|expired)")


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
        key: Signer,
        *,
        chain_id: int,
        max_fee_wei: int = MAX_FEE_WEI,
        max_cost_wei: int = MAX_COST_WEI,
        min_tip_wei: int | None = None,
        deadline_s: float = 15.0,
    ) -> None:
        """``min_tip_wei``: least tip per gas; None: what the chain's nodes are known to demand."""
        self.rpc = Rpc(urls, deadline_s=deadline_s)
        self._contracts = contracts
        self._key = key
        self._chain_id = chain_id
        self._max_fee_wei = max_fee_wei
        self._max_cost_wei = max_cost_wei
        self._min_tip_wei = tip_floor(chain_id) if min_tip_wei is None else min_tip_wei

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
        return self.prepare_call(self._contracts.report_manager, data, spare_gas=LINE_GAS * len(report.nodes))

    def prepare_call(self, to: Address, data: bytes, *, value: int = 0, spare_gas: int = 0) -> PreparedTransaction:
        """As ``prepare``, for any call; ``spare_gas`` is offered beyond the estimate."""
        gas = min(self._simulate(to, data, value) + spare_gas, GAS_LIMIT_CAP)
        nonce, fees = self._fetch_nonce("pending"), self._fetch_fees(gas)
        return self._sign(Transaction(self._chain_id, nonce, fees.tip, fees.max_fee, gas, to, value, data))

    def replace(self, transaction: PreparedTransaction, refusal: str = "") -> PreparedTransaction:
        """The same call and nonce for more (``pricing``). ``refusal``: the reason of ``send`` to refuse it.

        Raises:
            AlreadyDone: a transaction with this nonce has been mined.
            RemoteFault: ``reason`` "fee cap": the operator's caps are reached.
        """
        if self._fetch_nonce("latest") > transaction.nonce:
            raise AlreadyDone(f"nonce {transaction.nonce} is used up", nonce=transaction.nonce)
        old = parse_raw(transaction.raw)
        was = Fees(old.max_fee, old.tip)
        cap, today = self._cap(old.gas), self._fetch_fees(old.gas)
        if refusal:
            fees = repriced_fees(was, today, cap, for_its_fee=refusal == "fees")
        else:
            fees = raised_fees(was, today, cap)
        if fees is None:
            raise RemoteFault(
                f"nobody takes the transaction for {was.max_fee} wei per gas, {was.tip} of it as tip, and no more is "
                f"offered: the cap is {cap}",
                reason=SendRefusal.FEE_CAP,
            )
        return self._sign(replace(old, tip=fees.tip, max_fee=fees.max_fee))

    def send(self, transaction: PreparedTransaction) -> None:
        """Hand the raw transaction to every source; one that takes it, or knows it already, is enough.

        Raises:
            AlreadyDone: its nonce is used up: look up the receipts.
            RemoteFault: refused. ``reason``: "funds" (the balance does not cover it), "fees" (for its fee, by the
                words), "fee cap" (it costs more than a node's own cap), "refused" (the chain does not tell why).
            TransientError: sources do not agree what has become of it.
            UnknownOutcome: no source answered.
        """
        request = Request("eth_sendRawTransaction", ("0x" + transaction.raw.hex(),), lambda v: parse_bytes(v, "hash"))
        answers = self.rpc.each(request)
        if any(isinstance(answer, bytes) for _, answer in answers):
            return
        reasons = {host: answer.reason.lower() for host, answer in answers if isinstance(answer, Failed)}
        refusals = [text.replace("_", " ") for text in reasons.values() if text.startswith("eth_sendrawtransaction:")]
        if not refusals:
            raise UnknownOutcome("no RPC source answered eth_sendRawTransaction", sources=reasons)
        fate = self.fetch_fate([transaction])
        if fate.state == TransactionState.PENDING or any(_KNOWN.search(text) for text in refusals):
            return
        if fate.state in (TransactionState.MINED, TransactionState.OVERTAKEN):
            raise AlreadyDone(f"nonce {transaction.nonce} is used up", nonce=transaction.nonce)
        if any(_NONCE.search(text) for text in refusals):
            raise TransientError(f"sources do not agree on the nonce: {refusals[0]}", sources=reasons)
        fields = parse_raw(transaction.raw)
        cost = fields.gas * fields.max_fee + fields.value
        balance = self.fetch_balance()
        if balance < cost:
            text = f"0x{self.address.hex()} holds {balance} wei, the transaction may cost {cost}"
            raise RemoteFault(f"insufficient funds: {text}", reason=SendRefusal.FUNDS, sources=reasons)
        reason = SendRefusal.REFUSED
        if any(_TOO_DEAR.search(text) for text in refusals):
            reason = SendRefusal.FEE_CAP
        elif any(_FOR_ITS_FEE.search(text) for text in refusals):
            reason = SendRefusal.FEES
        raise RemoteFault(f"transaction refused: {refusals[0]}", reason=reason, sources=reasons)

    def fetch_fate(self, transactions: Sequence[PreparedTransaction]) -> TransactionFate:
        """What has become of one call for which these were signed, the newest last. Raises TransientError.

        Any of those with one nonce may be the one that is mined, whatever was sent last; and one with an older nonce,
        if the chain was reorganised.
        """
        newest = transactions[-1]
        receipts = self.rpc.agree([_receipt_of(transaction) for transaction in transactions])
        mined = [(t, r) for t, r in zip(transactions, receipts, strict=True) if r is not None]
        mined.sort(key=lambda pair: (pair[1].success, pair[0].nonce))
        if mined and (mined[-1][1].success or mined[-1][0].nonce == newest.nonce):
            transaction, receipt = mined[-1]
            return TransactionFate(
                TransactionState.MINED, transaction.hash, receipt.success, receipt.block_number, receipt.gas_used
            )
        rivals = [t for t in reversed(transactions) if t.nonce == newest.nonce]
        seen = {t.hash: self._look_up(t.hash) for t in rivals}
        in_block = next((digest for digest, found in seen.items() if found == "in a block"), None)
        if in_block is not None:
            return TransactionFate(TransactionState.PENDING, in_block)  # its receipt comes with the next look
        used = self._fetch_nonce("latest")
        if used > newest.nonce:
            return TransactionFate(TransactionState.OVERTAKEN, newest.hash)
        heard = self.rpc.each(Request("eth_getTransactionCount", (self._own(), "pending"), parse_number))
        if max([used, *(answer for _, answer in heard if isinstance(answer, int))]) < newest.nonce:
            return TransactionFate(TransactionState.UNREACHABLE, newest.hash)
        in_pool = next((digest for digest, found in seen.items() if found), None)
        if in_pool is None:
            return TransactionFate(TransactionState.MISSING, newest.hash)
        return TransactionFate(TransactionState.PENDING, in_pool)

    def fetch_status(self, transaction_hash: Digest) -> TransactionStatus:
        """Mined by the word of a majority; pending if any source has it; else missing."""
        receipt = self.rpc.agree([_receipt_of(transaction_hash)])[0]
        if receipt is not None:
            return TransactionStatus(TransactionState.MINED, receipt.success, receipt.block_number, receipt.gas_used)
        is_known = self._look_up(transaction_hash)
        return TransactionStatus(TransactionState.PENDING if is_known else TransactionState.MISSING)

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
            "from": self._own(),
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

    def _own(self) -> str:
        return "0x" + self.address.hex()

    def _cap(self, gas: int) -> int:
        """Most wei per gas for a transaction that may use so much."""
        return min(self._max_fee_wei, self._max_cost_wei // gas)

    def _look_up(self, transaction_hash: Digest) -> str:
        """Where any source has the transaction: "in a block", "in a pool", or "". Raises TransientError."""
        request = Request("eth_getTransactionByHash", ("0x" + transaction_hash.hex(),), _parse_place)
        found = set(self.rpc.each_at_least(request, 1))
        return next((place for place in ("in a block", "in a pool") if place in found), "")

    def _fetch_nonce(self, tag: str) -> int:
        values = self.rpc.each_at_least(
            Request("eth_getTransactionCount", (self._own(), tag), parse_number), self.rpc.majority
        )
        return _lower_median(values)

    def _fetch_fees(self, gas: int) -> Fees:
        """Today's, for a transaction that may use so much gas."""
        latest = Request("eth_getBlockByNumber", ("latest", False), _parse_base_fee)
        base = _lower_median(self.rpc.each_at_least(latest, self.rpc.majority))
        if base == NO_BASE_FEE:
            base = _lower_median(self.rpc.each_at_least(Request("eth_gasPrice", (), parse_quantity), 1))
        tips = self.rpc.each(Request("eth_maxPriorityFeePerGas", (), parse_quantity))
        known = [answer for _, answer in tips if isinstance(answer, int)]
        return todays_fees(base, _lower_median(known) if known else 0, self._min_tip_wei, self._cap(gas))

    def _sign(self, transaction: Transaction) -> PreparedTransaction:
        raw = transaction.sign(self._key)
        return PreparedTransaction(keccak256(raw), raw, transaction.nonce, transaction.max_fee)


def _lower_median(values: Sequence[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]


NO_BASE_FEE = -1


def _parse_base_fee(value: Any) -> int:
    """Of a block; NO_BASE_FEE where it names none."""
    if not isinstance(value, dict):
        raise MalformedInput("block", "not there")
    fee = value.get("baseFeePerGas")
    return NO_BASE_FEE if fee is None else parse_quantity(fee, "block.baseFeePerGas")


def _receipt_of(transaction: PreparedTransaction | Digest) -> Request[_Receipt | None]:
    digest = transaction.hash if isinstance(transaction, PreparedTransaction) else transaction
    return Request("eth_getTransactionReceipt", ("0x" + digest.hex(),), _parse_receipt)


def _parse_place(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, dict):
        raise MalformedInput("transaction", "not an object")
    return "in a pool" if value.get("blockNumber") is None else "in a block"


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
