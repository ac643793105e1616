"""A small finished run for the independent check: real codec bytes and signatures, chain and gateway in memory.

Two windows of 4 s in bundle 0, three closing windows in bundle 1. ``Plan`` holds what a test may change before the run
is put together, ``FinishedRun`` what it may change afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import decode, encode

from tests.builders import GENESIS_MS, a_key, a_stream_id
from tests.bundle_builder import CHAIN_ID, CONTEXT, CONTRACTS, MEMBERS, an_outcome, certify, rows_of
from tests.verifier.chain import CONTRACTS as ABI_NAMES
from tests.verifier.chain import Chain, _entry, _kind, _selector, _signature
from tests.verifier.folder import Run, read_run
from tests.verifier.gateway import Gateway
from validator.arweave.wallet import ArweaveWallet
from validator.codec.arweave import (
    Transaction,
    attach_signature,
    build_chunk_tree,
    compute_signature_data,
    encode_base64url,
    encode_storage_id,
    encode_tags,
    encode_transaction,
)
from validator.codec.bundle_file import bundle_tags, write_bundle
from validator.codec.config import config_digest, encode_config
from validator.codec.legacy_array import write_legacy_array
from validator.codec.manifest import encode_ledger, manifest_root
from validator.codec.message import make_record
from validator.codec.receipt import sign_receipt, write_receipt
from validator.codec.report import pack_signatures, report_digest, report_values
from validator.codec.secp256k1 import SigningKey
from validator.codec.signatures import publish_message, sign_message
from validator.codec.statement import encode_statement, sign_statement
from validator.hashing import keccak256
from validator.model import (
    Block,
    BrokerShare,
    BundleHeader,
    Certified,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Ledger,
    Manifest,
    Message,
    Node,
    Outcome,
    Record,
    Report,
    Root,
    Statement,
    StatementKind,
    StorageId,
    Store,
)
from validator.parameters import Config, Network, ParameterSet, format_network
from validator.settlement import build_report, bundle_receipts

WINDOW_MS = 4_000
GRACE_MS = 1_000
CLOSING_MS = GENESIS_MS + 2 * WINDOW_MS
FIRST_BLOCK_S = GENESIS_MS // 1000 - 100
NEWEST_BLOCK = 150
STAKE = 10**12
WALLET_WINSTON = 10**13
REWARD = 5_000
SYSTEM = f"0x{CONTRACTS.node_manager.hex()}/system"
CONSUMER = a_key(50)
BROKERS = (a_key(60), a_key(61))
PUBLISHER = a_key(1)
STREAMS = (a_stream_id(1, "a"), a_stream_id(1, "b"))
VECTORS = Path(__file__).parents[1] / "vectors" / "ans104.json"
COMMON = {"window_ms": WINDOW_MS, "grace_ms": GRACE_MS, "lag_s": 4, "horizon_ms": 18_000, "margin_ms": 60_000}
MONEY = {"read_ppm": 1_000_000, "rent": 3, "price_max": 1 << 21}
NETWORK = Network(
    name="test",
    chain_id=CHAIN_ID,
    deployment_block=1,
    deployment_parent_hash=Digest(hashlib.sha256(b"block 0").digest()),
    contracts=CONTRACTS,
    genesis_ms=GENESIS_MS,
    sets=(
        ParameterSet(first_epoch=0, epoch_windows=2, bundle_windows=2, **COMMON, **MONEY),  # type: ignore[arg-type]
        ParameterSet(first_epoch=1, epoch_windows=3, bundle_windows=3, last=True, **COMMON, **MONEY),  # type: ignore[arg-type]
    ),
)


@cache
def a_wallet() -> ArweaveWallet:
    return ArweaveWallet.from_jwk(json.loads(VECTORS.read_text())["keys"]["arweave"])


WALLETS = tuple(hashlib.sha256(b"wallet %d" % n).digest() for n in range(4))
"""Addresses of the other validators' wallets, which pay for nothing; the first is ``a_wallet``'s."""


def window(number: int) -> InstanceId:
    return InstanceId(InstanceKind.WINDOW, GENESIS_MS + number * WINDOW_MS)


def late(number: int) -> InstanceId:
    return InstanceId(InstanceKind.LATE, number)


@dataclass(slots=True)
class Published:
    """A message, when it first reached each broker (none: it was lost), and the kind its publisher logged."""

    message: Message
    delivered_ms: tuple[int, ...]
    kind: str = "message"

    @property
    def line(self) -> bytes:
        return write_legacy_array(self.message)

    @property
    def record(self) -> Record:
        return make_record(self.message)


def a_publication(at_ms: int, number: int, delay_ms: int = 100, **fields: Any) -> Published:
    values: dict[str, Any] = {"stream_id": STREAMS[number % 2], "content": b'{"number":%d}' % number}
    message = publish_message(PUBLISHER, timestamp_ms=GENESIS_MS + at_ms, **{**values, **fields})
    return Published(message, (GENESIS_MS + at_ms + delay_ms, GENESIS_MS + at_ms + delay_ms + 40))


def a_receipt(at_ms: int, cumulative: int, broker: SigningKey = BROKERS[0]) -> Published:
    receipt = sign_receipt(
        CONSUMER,
        broker.address,
        cumulative,
        1 << 30,
        chain_id=CHAIN_ID,
        query_manager=CONTRACTS.query_manager,
    )
    message = publish_message(broker, stream_id=SYSTEM, timestamp_ms=GENESIS_MS + at_ms, content=write_receipt(receipt))
    return Published(message, (GENESIS_MS + at_ms + 100,), "receipt")


@dataclass(slots=True)
class Plan:
    """Everything that happened; tests change it before ``finish``."""

    published: list[Published]
    forged: list[Published]
    sets: dict[InstanceId, list[Record]]
    certify: Callable[[Outcome, Digest], Certified] = certify
    config: Callable[[Config], Config] = lambda config: config
    """What validators agree under, where that is not what the contract has."""
    file: Callable[[int, bytes], bytes] = lambda _, data: data
    manifest: Callable[[Manifest], Manifest] = lambda manifest: manifest
    report: Callable[[Report], Report] = lambda report: report
    report_signers: tuple[SigningKey, ...] = MEMBERS
    killed: str | None = None


def a_plan() -> Plan:
    """Eight messages, one of them late; two receipts, the second in the closing epoch; three forgeries; one loss."""
    published = [a_publication(500 + 900 * n, n) for n in range(8)]
    published[2] = a_publication(2_300, 2, delay_ms=6_000)
    receipts = [a_receipt(3_000, 700), a_receipt(7_000, 1_000), a_receipt(8_500, 1_500)]
    lost = a_publication(1_000, 90)
    lost.delivered_ms = ()
    true = published[0].message
    forged = [
        Published(sign_message(a_key(9), true), (GENESIS_MS + 700,), "wrong_signature"),
        Published(replace(true, content=b'{"number":-1}'), (GENESIS_MS + 700,), "altered_content"),
        Published(a_publication(800, 91).message, (GENESIS_MS + 900,), "unknown_publisher"),
    ]
    sets: dict[InstanceId, list[Record]] = {place: [] for place in (*map(window, range(5)), late(0), late(1))}
    for p in (*published, *receipts):
        place = late(0) if p is published[2] else window((p.message.timestamp_ms - GENESIS_MS) // WINDOW_MS)
        sets[place].append(p.record)
    return Plan([*published, *receipts, lost], forged, sets)


# --- the chain ------------------------------------------------------------------------------------


class FakeChain:
    """Answers JSON-RPC from what was put in; views from what reports moved."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []
        self.transactions: dict[str, dict[str, Any]] = {}
        self.held: dict[int, tuple[Any, ...]] = {}
        self.amounts: dict[tuple[str, Any], int] = defaultdict(int)
        """What ``stores``, ``balanceOf``, ``nodeStake`` and ``treasurySupply`` answer, by (view, argument)."""

    def ask(self, method: str, *params: Any) -> Any:
        answers: Mapping[str, Callable[..., Any]] = {
            "eth_chainId": lambda: hex(CHAIN_ID),
            "eth_getBlockByNumber": self._block,
            "eth_getLogs": lambda _: list(self.logs),
            "eth_getTransactionByHash": lambda tx: self.transactions[tx],
            "eth_getTransactionReceipt": lambda tx: {"gasUsed": hex(210_000)},
            "eth_call": self._call,
        }
        return answers[method](*params)

    def emit(self, contract: str, name: str, block: int, transaction: str = "0x00", **values: Any) -> None:
        entry = _entry(contract, "event", name)
        indexed = [i for i in entry["inputs"] if i["indexed"]]
        plain = [i for i in entry["inputs"] if not i["indexed"]]
        topics = [keccak256(_signature(entry)), *(encode([_kind(i)], [values[i["name"]]]) for i in indexed)]
        self.logs.append(
            {
                "address": "0x" + getattr(CONTRACTS, contract).hex(),
                "topics": ["0x" + t.hex() for t in topics],
                "data": "0x" + encode([_kind(i) for i in plain], [values[i["name"]] for i in plain]).hex(),
                "blockNumber": hex(block),
                "logIndex": hex(len(self.logs)),
                "transactionHash": transaction,
            }
        )

    def change_committee(self, config: Config, block: int, transaction: str = "0x00") -> None:
        members = [_hex(m) for m in config.committee]
        digest = config_digest(config)
        self.emit(
            "report_manager",
            "CommitteeChanged",
            block,
            transaction,
            configDigest=digest,
            configCount=config.config_count,
            members=members,
        )

    def accept(self, report: Report, bitmap: int, signatures: bytes, following: Config | None, block: int) -> None:
        """What submitReport does with a report that it accepts."""
        transaction = "0x" + keccak256(b"report %d" % report.number).hex()
        entry = _entry("report_manager", "function", "submitReport")
        arguments = [_hexed(report_values(report)), bitmap, signatures]
        data = _selector(entry) + encode([_kind(i) for i in entry["inputs"]], arguments)
        self.transactions[transaction] = {"to": _hex(CONTRACTS.report_manager), "input": "0x" + data.hex()}
        if following is not None:
            self.change_committee(following, block, transaction)
        for stream in report.streams:
            self.amounts["stores", stream.stream_id] -= stream.capture
        for consumer in report.consumers:
            self.amounts["balanceOf", _hex(consumer.consumer)] -= consumer.capture
        for node in report.nodes:
            self.amounts["nodeStake", _hex(node.node)] += node.amount
        self.amounts["treasurySupply", None] += report.treasury
        digest = report_digest(report, CHAIN_ID, CONTRACTS.report_manager)
        self.held[report.number] = (
            report.bundle_root,
            report.storage_id,
            digest,
            report.last_ms,
            block,
            bitmap,
        )
        self.emit(
            "report_manager",
            "ReportAccepted",
            block,
            transaction,
            number=report.number,
            bundleRoot=report.bundle_root,
            storageId=report.storage_id,
            signerBitmap=bitmap,
            captured=sum(x.capture for x in report.streams) + sum(x.capture for x in report.consumers),
            treasury=report.treasury,
        )

    def _block(self, wanted: str, _full: bool) -> dict[str, str] | None:
        tags = {"latest": NEWEST_BLOCK, "finalized": NEWEST_BLOCK - 2}
        number = tags[wanted] if wanted in tags else int(wanted, 16)
        if number > NEWEST_BLOCK:
            return None
        return {
            "number": hex(number),
            "hash": _hex(block_hash(number)),
            "parentHash": _hex(block_hash(number - 1)),
            "timestamp": hex(FIRST_BLOCK_S + number),
        }

    def _call(self, request: dict[str, str], _tag: str) -> str:
        names = {_hex(getattr(CONTRACTS, name)): name for name in ABI_NAMES}
        contract, data = names[request["to"]], bytes.fromhex(request["data"][2:])
        for function in ("reportOf", "nextNumber", "stores", "balanceOf", "nodeStake", "treasurySupply"):
            try:
                entry = _entry(contract, "function", function)
            except LookupError:
                continue
            if _selector(entry) == data[:4]:
                arguments = decode([_kind(i) for i in entry["inputs"]], data[4:])
                return "0x" + encode([_kind(o) for o in entry["outputs"]], self._view(function, *arguments)).hex()
        raise ValueError("execution reverted")

    def _view(self, function: str, argument: Any = None) -> tuple[Any, ...]:
        if function == "reportOf":
            return self.held[argument]
        if function == "nextNumber":
            return (len(self.held),)
        return (self.amounts[function, argument],)


def block_hash(number: int) -> Digest:
    return Digest(hashlib.sha256(b"block %d" % number).digest())


def block_at(ms: int) -> Block:
    """B(ms): the highest block at least the lag before."""
    seconds = ms // 1000 - COMMON["lag_s"]
    number = seconds - FIRST_BLOCK_S
    return Block(number, block_hash(number), seconds)


# --- the gateway ----------------------------------------------------------------------------------


@dataclass(slots=True)
class FakeGateway:
    """Answers HTTP paths from what was uploaded."""

    headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    stats: dict[str, Any] = field(
        default_factory=lambda: {"transactions": [], "paid": {}, "balances": {}, "minted": "0", "spent": "0"}
    )

    def get_json(self, path: str) -> Any:
        if path == "/devnet/stats":
            return self.stats
        return self.headers[path.removeprefix("/tx/")]

    def get_bytes(self, path: str, max_bytes: int) -> bytes:
        body = self.bodies[path.removeprefix("/raw/")]
        if len(body) > max_bytes:
            raise ValueError("longer than its transaction says")
        return body

    def upload(self, data: bytes, tags: tuple[tuple[str, str], ...]) -> StorageId:
        wallet = a_wallet()
        unsigned = Transaction(
            owner=wallet.owner,
            last_tx=bytes(48),
            reward=REWARD,
            tags=encode_tags(tags),
            data_size=len(data),
            data_root=build_chunk_tree(len(data), lambda start, end: data[start:end]).data_root,
        )
        signed = attach_signature(unsigned, wallet.sign(compute_signature_data(unsigned)))
        self.headers[encode_storage_id(signed.id)] = encode_transaction(signed)
        self.bodies[encode_storage_id(signed.id)] = data
        self.pay(encode_base64url(wallet.address), dict(tags)["Bundle-Root"], signed.id)
        return signed.id

    def pay(self, owner: str, root: str, storage_id: bytes) -> None:
        """One mined transaction of a bundle in the gateway's count."""
        stats = self.stats
        owners = stats["paid"].setdefault(root, {})
        owners[owner] = owners.get(owner, 0) + 1
        stats["transactions"].append(
            {"id": storage_id.hex(), "owner": owner, "reward": str(REWARD), "height": 7, "bundle_root": root}
        )
        stats["spent"] = str(int(stats["spent"]) + REWARD)
        stats["balances"][owner] = str(int(stats["balances"][owner]) - REWARD)

    def fund(self, wallets: tuple[bytes, ...]) -> None:
        self.stats["balances"] = {encode_base64url(w): str(WALLET_WINSTON) for w in wallets}
        self.stats["minted"] = str(WALLET_WINSTON * len(wallets))


# --- putting it together ----------------------------------------------------------------------------


@dataclass(slots=True)
class FinishedRun:
    folder: Path
    chain: FakeChain
    gateway: FakeGateway
    manifests: list[Manifest] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    @property
    def parts(self) -> tuple[Run, Chain, Gateway]:
        """What ``check_run`` takes."""
        run = read_run(self.folder)
        return run, Chain(self.chain, run.contracts, run.deployment_block), Gateway(self.gateway)


def finish(folder: Path, plan: Plan) -> FinishedRun:
    """Write the folder's files and fill chain and gateway, as a run of the plan would have."""
    run = FinishedRun(folder, FakeChain(), FakeGateway())
    wallets = (a_wallet().address, *WALLETS[1:])
    run.gateway.fund(wallets)
    _write_folder(folder, plan, wallets)
    _stake(run.chain)
    configs = [_config(epoch) for epoch in (0, 1)]
    run.chain.change_committee(configs[0], 3)
    ledger = Ledger()
    previous = Root(bytes(32))
    for number, windows in enumerate(((0, 1), (2, 3, 4))):
        config = plan.config(configs[number])
        manifest = plan.manifest(_manifest(plan, config, number, [window(n) for n in windows], previous, ledger))
        previous = manifest_root(manifest)
        tags = bundle_tags(manifest.header, previous, CONTEXT, manifest.header.last_ms + WINDOW_MS)
        storage_id = run.gateway.upload(plan.file(number, _write_file(folder, plan, manifest)), tags)
        report, ledger = _settle(run, plan, manifest, config, ledger, storage_id, configs[1])
        report = plan.report(report)
        signatures = {
            key.address: key.sign(report_digest(report, CHAIN_ID, CONTRACTS.report_manager))
            for key in plan.report_signers
        }
        members = config.committee[: len(signatures)] if len(signatures) < 3 else config.committee
        bitmap, packed = pack_signatures(members, signatures)
        block = (manifest.header.last_ms + WINDOW_MS) // 1000 - FIRST_BLOCK_S + 6
        run.chain.accept(report, bitmap, packed, configs[1], block)
        run.manifests.append(manifest)
        run.reports.append(report)
    return run


def _config(epoch: int) -> Config:
    found = NETWORK.epoch(epoch)
    assert found is not None
    return Config(
        chain_id=CHAIN_ID,
        deployment_parent_hash=NETWORK.deployment_parent_hash,
        contracts=CONTRACTS,
        parameters=found.parameters,
        epoch=epoch,
        config_count=0,
        committee=tuple(k.address for k in MEMBERS),
    )


def _manifest(
    plan: Plan, config: Config, number: int, windows: list[InstanceId], previous: Root, ledger: Ledger
) -> Manifest:
    digest = config_digest(config)
    certified = []
    for instance in (*windows, late(number)):
        start_ms = windows[-1].number if instance.kind is InstanceKind.LATE else instance.number
        block = block_at(start_ms)
        outcome = replace(an_outcome(instance, plan.sets[instance]), block_number=block.number, block_hash=block.hash)
        if instance.kind is InstanceKind.WINDOW:
            shares = (BrokerShare(key.address, outcome.signed_bytes // 2, 0) for key in BROKERS)
            outcome = replace(outcome, shares=tuple(sorted(shares, key=lambda s: s.broker)))
        certified.append(plan.certify(outcome, digest))
    return Manifest(
        header=BundleHeader(digest, number, previous, windows[0].number, windows[-1].number),
        config_preimage=encode_config(config),
        windows=tuple(certified[:-1]),
        late=certified[-1],
        ledger=encode_ledger(ledger),
    )


def _write_file(folder: Path, plan: Plan, manifest: Manifest) -> bytes:
    path = folder / "bundle"
    sets = [plan.sets[c.outcome.instance] for c in manifest.windows]
    write_bundle(path, manifest, rows_of(manifest, sets, plan.sets[manifest.late.outcome.instance]))
    data = path.read_bytes()
    path.unlink()
    return data


def _settle(
    run: FinishedRun,
    plan: Plan,
    manifest: Manifest,
    config: Config,
    ledger: Ledger,
    storage_id: StorageId,
    following: Config,
) -> tuple[Report, Ledger]:
    """The report as the network's own settlement builds it. Earlier reports are processed by then."""
    amounts = run.chain.amounts
    keys = (*MEMBERS, *BROKERS)
    state = ChainState(
        block=block_at(manifest.header.last_ms),
        nodes=tuple(Node(k.address, amounts["nodeStake", _hex(k.address)], "http://b", None) for k in keys),
        stores=tuple(Store(stream, amounts["stores", stream], 1) for stream in STREAMS),
        system_stream=SYSTEM,
        consumers={CONSUMER.address: amounts["balanceOf", _hex(CONSUMER.address)]},
    )
    records = [r for c in (*manifest.windows, manifest.late) for r in plan.sets[c.outcome.instance]]
    return build_report(
        ledger,
        manifest.header,
        manifest_root(manifest),
        [c.outcome for c in manifest.windows],
        manifest.late.outcome,
        bundle_receipts(records, SYSTEM, CHAIN_ID, CONTRACTS.query_manager),
        state,
        range(manifest.header.number),
        config.parameters,
        storage_id=storage_id,
        uploader=MEMBERS[0].address,
        system_stream=SYSTEM,
        next_committee=following.committee,
        next_config_digest=config_digest(following),
    )


def _stake(chain: FakeChain) -> None:
    for stream in STREAMS:
        chain.emit("store_manager", "StoreUpdated", 4, store=stream, isNew=True, amount=STAKE)
        chain.amounts["stores", stream] += STAKE
    chain.emit("query_manager", "Stake", 4, consumer=_hex(CONSUMER.address), amount=STAKE)
    chain.amounts["balanceOf", _hex(CONSUMER.address)] += STAKE
    for key in (*MEMBERS, *BROKERS):
        node = _hex(key.address)
        chain.emit(
            "node_manager",
            "StakeDelegateUpdated",
            4,
            delegate=node,
            node=node,
            amount=STAKE,
            totalStake=STAKE,
            totalDelegated=STAKE,
            delegated=True,
        )
        chain.amounts["nodeStake", node] += STAKE


def _write_folder(folder: Path, plan: Plan, wallets: tuple[bytes, ...]) -> None:
    description = {
        "chain_id": CHAIN_ID,
        "rpc_url": "http://127.0.0.1:1",
        "gateway_url": "http://127.0.0.1:2",
        "contracts": {name: _hex(getattr(CONTRACTS, name)) for name in ABI_NAMES},
        "deployment_block": 1,
        "windows": 2,
        "validators": [
            {"name": f"validator-{n}", "address": _hex(key.address), "wallet": encode_base64url(wallet)}
            for n, (key, wallet) in enumerate(zip(MEMBERS, wallets, strict=True))
        ],
        "brokers": [{"name": f"broker-{n}", "address": _hex(k.address)} for n, k in enumerate(BROKERS)],
        "consumers": [{"address": _hex(CONSUMER.address), "staked": str(STAKE)}],
        "killed": plan.killed,
    }
    (folder / "run.json").write_text(json.dumps(description))
    (folder / "network.toml").write_text(format_network(NETWORK))
    logs = folder / "logs"
    receipts = [p for p in plan.published if p.kind == "receipt"]
    _write_log(logs / "publisher" / "published.jsonl", [p for p in plan.published if p.kind == "message"])
    _write_log(logs / "publisher" / "forged.jsonl", plan.forged)
    for index, key in enumerate(BROKERS):
        own = [p for p in receipts if p.message.publisher_id == key.address]
        _write_log(logs / f"broker-{index}" / "published.jsonl", own)
        deliveries = [
            {"time_ms": p.delivered_ms[index], "line": p.line.decode()}
            for p in (*plan.published, *plan.forged)
            if index < len(p.delivered_ms)
        ]
        _write_lines(logs / f"broker-{index}" / "deliveries.jsonl", deliveries)
    rejected = {"bad_signature": 2, "not_permitted": 1}
    collected: dict[str, Any] = {
        "invalid_rejected": {f"validator-{n}": rejected for n in range(4)},
        "killed": None,
        "statements": {},
    }
    if plan.killed is not None:
        collected["invalid_rejected"][plan.killed] = {}
        collected["killed"] = {
            "validator": plan.killed,
            "signal": 9,
            "at_window": GENESIS_MS,
            "windows_away": 2,
            "back_at_window": CLOSING_MS,
            "certificates": [str(place) for place in plan.sets],
        }
        collected["statements"] = {plan.killed: [a_vote(plan.killed).hex()]}
    (folder / "collected.json").write_text(json.dumps(collected))


def a_vote(validator: str, start_ms: int = CLOSING_MS) -> bytes:
    """A precommit of that validator, as it travels."""
    key = MEMBERS[int(validator.rpartition("-")[2])]
    statement = Statement(
        StatementKind.PRECOMMIT,
        config_digest(_config(1)),
        InstanceId(InstanceKind.WINDOW, start_ms),
        0,
        Digest(b"\x07" * 32),
        key.address,
    )
    return encode_statement(sign_statement(statement, key, CONTEXT))


def _write_log(path: Path, published: list[Published]) -> None:
    _write_lines(
        path,
        [
            {
                "time_ms": p.message.timestamp_ms,
                "kind": p.kind,
                "stream": p.message.stream_id,
                "partition": p.message.partition,
                "line": p.line.decode(),
            }
            for p in published
        ],
    )


def _write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _hexed(value: Any) -> Any:
    """Addresses as the encoder takes them."""
    if isinstance(value, tuple | list):
        return [_hexed(item) for item in value] if isinstance(value, list) else tuple(map(_hexed, value))
    return _hex(value) if isinstance(value, bytes) and len(value) == 20 else value
