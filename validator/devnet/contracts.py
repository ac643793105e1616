"""The contracts of a network on one machine: deploys them on anvil and sets everything up, in a second or two.

Transactions are signed here and sent in batches; while mining is by hand, one block takes a whole batch, so the chain's
clock does not run ahead (anvil gives every block a later second). ``start_mining`` hands over to a block per interval.

    chain = DevChain(url, owner)            # anvil must not mine by itself yet, or may: deploy() stops it
    deployment = chain.deploy()
    chain.register_nodes([...]); chain.create_streams([...]); chain.stake_consumers({...})
    chain.set_committee(committee, digest)
    chain.start_mining(1)
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from validator.net.chain.abi import Function, explain_revert, interface
from validator.net.chain.jsonrpc import Request, Reverted
from validator.net.chain.rpc import Rpc
from validator.net.chain.transaction import Transaction
from validator.net.chain.values import parse_bytes, parse_quantity
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, Digest
from validator.protocol.parameters import Contracts

WEI = 10**18
TOKEN_PRICE_WEI = 10
"""Of one base unit, in the chain's own coin: 10 coins buy as many base units as there are in a token."""
GAS_LIMIT = 2_000_000
DEPLOY_GAS = 8_000_000
REPORT_GAS = 12_000_000
BLOCK_GAS = 120_000_000
MAX_FEE_WEI = 100 * 10**9
RECEIPT_WAIT_S = 30.0
UNLIMITED = (1 << 256) - 1
TRUSTED_ROLE = keccak256(b"TRUSTED_ROLE")
"""The stream registry's role for those who may name its directory of names."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the contracts are, and what names this network: the hash of the block before the first of them."""

    chain_id: int
    contracts: Contracts
    block: int
    parent_hash: Digest


@dataclass(frozen=True, slots=True)
class NodeSetup:
    """A node: its (voting) key signs ``upsertNode`` only; ``stake_key``'s account stakes ``stake`` base units to it."""

    key: SigningKey
    stake_key: SigningKey
    stake: int
    http_url: str | None = None
    validator_url: str | None = None
    wallet: str | None = None

    @property
    def metadata(self) -> str:
        values = {"http": self.http_url, "validator": self.validator_url, "arweave": self.wallet}
        return json.dumps({name: text for name, text in values.items() if text is not None}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class StreamSetup:
    """A stored stream: partitions, who may publish (``public``: anybody), and its balance in base units.

    Below the owner's address, or below a name; of the path the registry takes ASCII letters, digits and -./_ only.
    Publishers are user ids: addresses, or public keys of other kinds.
    """

    stream_id: str
    balance: int
    partitions: int = 1
    publishers: tuple[bytes, ...] = ()
    public: bool = False


@dataclass(slots=True)
class _Call:
    """One transaction to be sent: ``to`` None deploys."""

    key: SigningKey
    to: Address | None
    data: bytes
    what: str
    gas: int = GAS_LIMIT


class DevChain:
    """An anvil node whose contracts belong to ``owner``. One thread at a time."""

    def __init__(self, url: str, owner: SigningKey) -> None:
        self.rpc = Rpc([url], deadline_s=30.0, batch_limit=500)
        self._owner = owner
        self._nonces: dict[Address, int] = {}
        self._by_hand = False
        self._deployment: Deployment | None = None
        self._others: dict[str, Address] = {}
        self.chain_id: int = self._ask("eth_chainId", parse=parse_quantity)

    def close(self) -> None:
        self.rpc.close()

    @property
    def deployment(self) -> Deployment:
        if self._deployment is None:
            raise RemoteFault("nothing has been deployed yet")
        return self._deployment

    # --- set-up -----------------------------------------------------------------------------------

    def deploy(self, *, stake_required: int = WEI, supply: int = 10**10 * WEI, raise_delay_s: int = 1) -> Deployment:
        """Stop automatic mining, deploy all contracts in one block, mint ``supply`` base units to the owner, who is the
        guardian too, and offer as many for sale.
        """
        self.stop_mining()
        self._ask("anvil_setBlockGasLimit", hex(BLOCK_GAS))
        self.fund([self._owner.address])
        owner = self._owner.address
        first = self._nonce(owner)
        token, registry, node, store, query, report, names = (create_address(owner, first + i) for i in range(7))
        creations: list[tuple[str, tuple[Any, ...]]] = [
            ("Token", ()),
            ("StreamRegistry", ()),
            ("NodeManager", (_hex(token), stake_required, _hex(report), _hex(store), _hex(query))),
            ("StoreManager", (_hex(token), _hex(registry), _hex(node), _hex(report))),
            ("QueryManager", (_hex(token), _hex(node), _hex(report))),
            ("ReportManager", (_hex(node), _hex(store), _hex(query), _hex(owner), raise_delay_s)),
        ]
        calls = [
            _Call(self._owner, None, interface(name).deployment(arguments), f"deploy {name}", DEPLOY_GAS)
            for name, arguments in creations
        ]
        calls.append(_Call(self._owner, None, _name_directory(owner), "deploy the directory of names"))
        contracts = Contracts(
            token=token,
            node_manager=node,
            store_manager=store,
            query_manager=query,
            report_manager=report,
            stream_registry=registry,
        )
        nobody = _hex(bytes(20))
        calls += [
            self._owner_call("StreamRegistry", registry, "initialize", nobody, nobody),
            self._owner_call("StreamRegistry", registry, "grantRole", TRUSTED_ROLE, _hex(owner)),
            self._owner_call("StreamRegistry", registry, "setEnsCache", _hex(names)),
        ]
        calls.append(self._owner_call("Token", token, "mintTokens", _hex(owner), supply))
        calls.append(self._owner_call("Token", token, "offer", TOKEN_PRICE_WEI, supply))
        calls += [
            self._owner_call("Token", token, "approve", _hex(spender), UNLIMITED) for spender in (node, store, query)
        ]
        block = self._run(calls)[0]
        parent = self._ask("eth_getBlockByNumber", hex(block), False, parse=_parse_parent_hash)
        self._deployment = Deployment(self.chain_id, contracts, block, Digest(parent))
        return self._deployment

    def fund(self, accounts: Sequence[Address], wei: int = 10_000 * WEI) -> None:
        """Set the native balance of accounts (anvil_setBalance)."""
        self.rpc.agree([_request("anvil_setBalance", _hex(account), hex(wei)) for account in accounts])

    def register_nodes(self, nodes: Sequence[NodeSetup]) -> None:
        """Each node's key registers its metadata; then its stake account, given the tokens, stakes and delegates."""
        contracts = self.deployment.contracts
        self.fund([key.address for node in nodes for key in (node.key, node.stake_key)])
        calls = [
            self._owner_call("Token", contracts.token, "mintTokens", _hex(node.stake_key.address), node.stake)
            for node in nodes
            if node.stake
        ]
        calls += [self._upsert(node) for node in nodes]
        approve, manager = interface("Token").function("approve"), contracts.node_manager
        for key in {node.stake_key.address: node.stake_key for node in nodes if node.stake}.values():
            calls.append(_Call(key, contracts.token, approve.encode((_hex(manager), UNLIMITED)), "approve"))
        self._run(calls)
        stake = interface("NodeManager").function("stakeAndDelegate")
        self._run(
            [
                _Call(node.stake_key, manager, stake.encode((node.stake, _hex(node.key.address))), "stakeAndDelegate")
                for node in nodes
                if node.stake
            ]
        )

    def create_streams(self, streams: Sequence[StreamSetup]) -> None:
        """Create streams, set who may publish, and stake their stores from the owner's tokens."""
        store = self.deployment.contracts.store_manager
        calls: list[_Call] = []
        for stream in streams:
            calls += self._creation(stream)
            if stream.balance:
                calls.append(self._owner_call("StoreManager", store, "stake", stream.stream_id, stream.balance))
        self._run(calls)

    def deploy_beside(self, contract: str, *arguments: Any) -> Address:
        """Deploy a contract that is none of the network's; the newest of a name is what calls mean."""
        self._others[contract] = self.deploy_as(self._owner, contract, *arguments)
        return self._others[contract]

    def deploy_as(self, key: SigningKey, contract: str, *arguments: Any) -> Address:
        """Deploy a contract from another account; no call means it."""
        code = interface(contract).deployment(arguments)
        (receipt,) = self._run_receipts([_Call(key, None, code, f"deploy {contract}", DEPLOY_GAS)])
        return Address(bytes.fromhex(receipt["contractAddress"][2:]))

    def create_wallets(self, wallets: Sequence[tuple[SigningKey, Address]]) -> None:
        """Wallets whose one signer is the address given; each is the first contract of the key before it."""
        self.fund([creator.address for creator, _ in wallets])
        code = interface("SignerWallet")
        self._run(
            [
                _Call(creator, None, code.deployment((_hex(signer),)), "deploy SignerWallet")
                for creator, signer in wallets
            ]
        )

    def _creation(self, stream: StreamSetup) -> list[_Call]:
        """As a client of the registry creates a stream and permits its publishers."""
        registry = self.deployment.contracts.stream_registry
        metadata = json.dumps({"partitions": stream.partitions}, separators=(",", ":"))
        domain, slash, path = stream.stream_id.partition("/")
        if domain == _hex(self._owner.address):
            create = self._owner_call("StreamRegistry", registry, "createStream", slash + path, metadata)
        else:
            create = self._owner_call("StreamRegistry", registry, "createStreamWithENS", domain, slash + path, metadata)
        calls = [create]
        if stream.publishers:
            may_publish = (False, False, UNLIMITED, 0, False)
            users, permissions = list(stream.publishers), [may_publish] * len(stream.publishers)
            permit = "setPermissionsForUserIds"
            calls.append(self._owner_call("StreamRegistry", registry, permit, stream.stream_id, users, permissions))
        if stream.public:
            permit = "setPublicPermission"
            calls.append(self._owner_call("StreamRegistry", registry, permit, stream.stream_id, UNLIMITED, 0))
        return calls

    def stake_consumers(self, amounts: Mapping[Address, int]) -> None:
        """Add to QueryManager balances of consumers, from the owner's tokens."""
        query = self.deployment.contracts.query_manager
        self._run(
            [self._owner_call("QueryManager", query, "stakeFor", _hex(who), amount) for who, amount in amounts.items()]
        )

    def set_committee(self, committee: Sequence[Address], config_digest: Digest) -> None:
        """Set the first epoch's committee and config digest."""
        self._report_manager_call("setCommittee", committee, config_digest)

    def raise_config_count(self, committee: Sequence[Address], config_digest: Digest) -> None:
        """Announce, wait and re-open everything after the last accepted report under a new digest."""
        self._report_manager_call("announceConfigCount", committee, config_digest)
        if self._by_hand:
            self._ask("evm_increaseTime", self.call("ReportManager", "raiseDelay")[0])
        else:
            time.sleep(self.call("ReportManager", "raiseDelay")[0])
        self._report_manager_call("raiseConfigCount", committee, config_digest)

    # --- mining and calls -------------------------------------------------------------------------

    def stop_mining(self) -> None:
        """Blocks come only from ``mine`` and from the calls made here."""
        self._ask("evm_setIntervalMining", 0)
        self._ask("evm_setAutomine", False)
        self._by_hand = True

    def start_mining(self, seconds: int = 1) -> None:
        """A block every ``seconds`` from now on."""
        self._ask("evm_setIntervalMining", seconds)
        self._by_hand = False

    def mine(self, blocks: int = 1) -> None:
        self._ask("anvil_mine", hex(blocks))

    def transact(self, key: SigningKey, contract: str, function: str, *arguments: Any) -> dict[str, Any]:
        """Send one call to a contract of the deployment and wait for its receipt. Addresses are given as hex.

        Raises:
            RemoteFault: it reverted; ``revert`` names the error.
        """
        return self.transact_many([(key, contract, function, arguments)])[0]

    def transact_many(self, calls: Sequence[tuple[SigningKey, str, str, Sequence[Any]]]) -> list[dict[str, Any]]:
        """As ``transact``, for several at once, in order per key."""
        built = [
            _Call(
                key,
                self.address_of(contract),
                self._function(contract, name).encode(arguments),
                name,
                REPORT_GAS if name == "submitReport" else GAS_LIMIT,
            )
            for key, contract, name, arguments in calls
        ]
        return self._run_receipts(built)

    def transact_raw(self, key: SigningKey, contract: str, data: bytes) -> dict[str, Any]:
        """As ``transact`` with call data as it is, for what an honest encoder would never write."""
        return self._run_receipts([_Call(key, self.address_of(contract), data, f"{contract} 0x{data[:4].hex()}")])[0]

    def call(self, contract: str, function: str, *arguments: Any, sender: Address | None = None) -> tuple[Any, ...]:
        """Values of a call on the newest state. Raises RemoteFault with the decoded error if it reverts."""
        return self.call_all([(contract, function, arguments)], sender=sender)[0]

    def call_all(
        self, asked: Sequence[tuple[str, str, Sequence[Any]]], *, sender: Address | None = None
    ) -> list[tuple[Any, ...]]:
        """Values of many calls (contract, function, arguments) in one request. Raises as ``call``, for the first."""
        entries = [self._function(contract, function) for contract, function, _ in asked]
        requests = [
            _call_request(self.address_of(contract), entry.encode(arguments), sender=sender)
            for entry, (contract, _, arguments) in zip(entries, asked, strict=True)
        ]
        answers = self.rpc.agree(requests)
        for answer, (contract, function, _) in zip(answers, asked, strict=True):
            if isinstance(answer, Reverted):
                reason = explain_revert(answer.data)
                raise RemoteFault(f"{contract}.{function}: {reason}", revert=reason)
        return [entry.decode(answer) for entry, answer in zip(entries, answers, strict=True)]

    def forget_nonces(self) -> None:
        """Ask the node again, after its state was set back."""
        self._nonces.clear()

    def call_rpc(self, method: str, *params: Any) -> Any:
        """Result of any JSON-RPC method of the node, anvil's own included."""
        return json.loads(self._ask(method, *params))

    def address_of(self, contract: str) -> Address:
        """Address of "NodeManager", "Token", …, or of what was deployed beside them."""
        if contract in self._others:
            return self._others[contract]
        name = "".join("_" + c.lower() if c.isupper() else c for c in contract).lstrip("_")
        address: Address = getattr(self.deployment.contracts, name)
        return address

    # --- inside -----------------------------------------------------------------------------------

    def _function(self, contract: str, function: str) -> Function:
        return interface(contract).function(function)

    def _owner_call(self, contract: str, to: Address, function: str, *arguments: Any) -> _Call:
        data = self._function(contract, function).encode(arguments)
        return _Call(self._owner, to, data, f"{contract}.{function}")

    def _report_manager_call(self, function: str, committee: Sequence[Address], config_digest: Digest) -> None:
        members = [_hex(member) for member in sorted(committee)]
        manager = self.deployment.contracts.report_manager
        self._run([self._owner_call("ReportManager", manager, function, members, config_digest)])

    def _upsert(self, node: NodeSetup) -> _Call:
        data = interface("NodeManager").function("upsertNode").encode((node.metadata,))
        return _Call(node.key, self.deployment.contracts.node_manager, data, "upsertNode")

    def _run(self, calls: Sequence[_Call]) -> list[int]:
        return [int(receipt["blockNumber"], 16) for receipt in self._run_receipts(calls)]

    def _run_receipts(self, calls: Sequence[_Call]) -> list[dict[str, Any]]:
        """Send all, wait for all. Raises RemoteFault naming the first that failed."""
        if not calls:
            return []
        raws = [self._sign(call) for call in calls]
        sent = self.rpc.agree([_request("eth_sendRawTransaction", "0x" + raw.hex()) for raw in raws])
        until = time.monotonic() + RECEIPT_WAIT_S
        while True:
            if self._by_hand:
                self._ask("evm_mine")
            requests = [Request("eth_getTransactionReceipt", (tx,), json.dumps) for tx in sent]
            receipts = [json.loads(receipt) for receipt in self.rpc.agree(requests)]
            if all(receipts):
                break
            if time.monotonic() > until:
                raise TransientError(f"{calls[0].what}: not mined within {RECEIPT_WAIT_S:g} s")
            time.sleep(0 if self._by_hand else 0.05)
        for call, receipt in zip(calls, receipts, strict=True):
            if receipt["status"] != "0x1":
                reason = self._why(call, int(receipt["blockNumber"], 16))
                raise RemoteFault(f"{call.what} reverted: {reason}", revert=reason)
        return receipts

    def _why(self, call: _Call, block: int) -> str:
        if call.to is None:
            return "constructor"
        request = _call_request(call.to, call.data, sender=call.key.address, block=hex(block))
        answer = self.rpc.agree([request])[0]
        return explain_revert(answer.data) if isinstance(answer, Reverted) else "only at that moment"

    def _sign(self, call: _Call) -> bytes:
        nonce = self._nonce(call.key.address)
        self._nonces[call.key.address] = nonce + 1
        return Transaction(self.chain_id, nonce, 10**9, MAX_FEE_WEI, call.gas, call.to, 0, call.data).sign(call.key)

    def _nonce(self, account: Address) -> int:
        if account not in self._nonces:
            self._nonces[account] = self._ask("eth_getTransactionCount", _hex(account), "latest", parse=parse_quantity)
        return self._nonces[account]

    def _ask(self, method: str, *params: Any, parse: Any = json.dumps) -> Any:
        return self.rpc.agree([Request(method, params, parse)])[0]


def create_address(sender: Address, nonce: int) -> Address:
    """Address of the contract that ``sender`` creates with ``nonce``: keccak-256 of the RLP list of both."""
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    encoded = number if len(number) == 1 and nonce < 0x80 else bytes([0x80 + len(number)]) + number
    body = b"\x94" + sender + encoded
    return Address(keccak256(bytes([0xC0 + len(body)]) + body)[-20:])


def _name_directory(owner: Address) -> bytes:
    """Creation code of what stands for the registry's cache of ENS: whatever it is asked, the name is ``owner``'s."""
    answer_owner = b"\x73" + owner + bytes.fromhex("5f5260205ff3")  # push the address, store it, return the word
    return b"\x7a" + answer_owner + bytes.fromhex("5f52601b6005f3")  # push those 27 bytes, store them, return them


def _request(method: str, *params: Any) -> Request[Any]:
    return Request(method, params, lambda value: value)


def _call_request(to: Address, data: bytes, *, sender: Address | None = None, block: str = "latest") -> Request[bytes]:
    call = {"to": _hex(to), "data": "0x" + data.hex()}
    if sender is not None:
        call["from"] = _hex(sender)
    return Request("eth_call", (call, block), parse_bytes)


def _parse_parent_hash(value: Any) -> bytes:
    return parse_bytes(value["parentHash"], "block.parentHash", 32)


def _hex(address: bytes) -> str:
    return "0x" + address.hex()
