"""A small finished run for the independent check: real codec bytes and signatures, chain and gateway in memory.

Two windows of 4 s in bundle 0, three closing windows in bundle 1; ``a_long_plan`` has a bundle more in its first epoch.
What the members observe and agree on is made by the network's own code, so that the check, which shares none of it, has
an honest run to agree with. ``Plan`` holds what a test may change before the run is put together, ``FinishedRun`` what
it may change afterwards.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from tests.builders import GENESIS_MS, a_key, a_stream_id
from tests.bundle_builder import CHAIN_ID, CONTEXT, CONTRACTS, MEMBERS, certify, make_entries, rows_of
from tests.fakes.finished_chain import FIRST_BLOCK_S, LAG_S, FakeChain, block_at
from tests.fakes.finished_gateway import FakeGateway, a_wallet
from tests.outcomes_in_memory import build_outcome
from tests.verifier.chain import CONTRACTS as ABI_NAMES
from tests.verifier.chain import Chain
from tests.verifier.folder import Run, read_run
from tests.verifier.gateway import Gateway
from tests.verifier.messages import REASON_OF
from validator.protocol.charges import bundle_receipts
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.codec.bundle import bundle_tags
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.config import config_digest, encode_config
from validator.protocol.codec.ledger_changes import encode_ledger_part
from validator.protocol.codec.legacy_array import write_legacy_array
from validator.protocol.codec.manifest import manifest_root
from validator.protocol.codec.message import make_record
from validator.protocol.codec.outcome import encode_observation, entries_root, part_order, set_root
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.receipt import sign_receipt, write_receipt
from validator.protocol.codec.report import pack_signatures, report_digest
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import publish_message, sign_message
from validator.protocol.codec.statement import encode_statement, sign_statement
from validator.protocol.consensus.proposal import Scope
from validator.protocol.consensus.window import unite
from validator.protocol.hashing import hash_object
from validator.protocol.model import (
    NIL,
    Account,
    Address,
    BrokerShare,
    BundleHeader,
    Certified,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Manifest,
    Message,
    Node,
    Observation,
    Outcome,
    PartitionEntry,
    Record,
    Root,
    SignatureType,
    Statement,
    StatementKind,
    StorageId,
    Store,
)
from validator.protocol.parameters import Config, Network, ParameterSet, format_network
from validator.protocol.report import Debt, Ledger, Report
from validator.protocol.settlement import build_report
from validator.steps.scopes import budgets_of

WINDOW_MS = 4_000
GRACE_MS = 1_000
CLOSING_MS = GENESIS_MS + 2 * WINDOW_MS
STAKE = 10**12
SYSTEM = f"0x{CONTRACTS.node_manager.hex()}/system"
CONSUMER = a_key(50)
BROKERS = (a_key(60), a_key(61))
PUBLISHER = a_key(1)
CONTRACT = Address(b"\xcc" * 20)
POOR = a_stream_id(1, "poor")
STREAMS = (a_stream_id(1, "a"), a_stream_id(1, "b"))
COMMON = {"window_ms": WINDOW_MS, "grace_ms": GRACE_MS, "lag_s": LAG_S, "horizon_ms": 18_000, "margin_ms": 60_000}
MONEY = {"read_ppm": 1_000_000, "rent": 3, "price_max": 1 << 21, "scope_floor": 1, "upload_stage_ms": 15_000}


def a_network(epoch_windows: int = 2, **parameters: int) -> Network:
    """Epoch 0 in bundles of two windows, then a last one of three windows in one bundle."""
    values: dict[str, Any] = {"bundle_windows": 2, **COMMON, **MONEY, **parameters}
    closing = {**values, "bundle_windows": 3}
    return Network(
        name="test",
        chain_id=CHAIN_ID,
        deployment_block=1,
        deployment_parent_hash=Digest(hashlib.sha256(b"block 0").digest()),
        contracts=CONTRACTS,
        genesis_ms=GENESIS_MS,
        sets=(
            ParameterSet(first_epoch=0, epoch_windows=epoch_windows, **values),
            ParameterSet(first_epoch=1, epoch_windows=3, last=True, **closing),
        ),
    )


NETWORK = a_network()

WALLETS = tuple(hashlib.sha256(b"wallet %d" % n).digest() for n in range(4))
"""Addresses of the validators' wallets that pay for nothing."""
NODES: dict[Address, dict[str, Any]] = {
    **{key.address: {"validator": f"https://validator-{n}.example"} for n, key in enumerate(MEMBERS)},
    **{key.address: {"http": f"https://broker-{n}.example"} for n, key in enumerate(BROKERS)},
}


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
    def logged(self) -> dict[str, str]:
        """How logs write it: the line of the array form, or what has none as base64 of the protobuf form."""
        if self.message.signature_type is not SignatureType.ERC_1271:
            return {"line": write_legacy_array(self.message).decode()}
        return {"form": "protobuf", "line": base64.b64encode(write_protobuf(self.message)).decode()}

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
        0,
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
    """What each instance holds; what the network's rules leave out of it is taken out, but for ``forced``."""
    network: Network = NETWORK
    spans: tuple[tuple[int, ...], ...] = ((0, 1), (2, 3, 4))
    """The windows of each bundle."""
    partitions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 1))
    balances: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, STAKE))
    staked_at: dict[str, int] = field(default_factory=dict)
    """The block of a store's stake, where that is not set-up's."""
    nodes: dict[Address, dict[str, Any]] = field(default_factory=lambda: dict(NODES))
    """Metadata of the staked nodes."""
    stakes: dict[Address, int] = field(default_factory=dict)
    """Of those that have not ``STAKE``."""
    publishers: set[tuple[str, bytes]] = field(
        default_factory=lambda: {(stream, PUBLISHER.address) for stream in STREAMS}
    )
    contract_signatures: set[tuple[bytes, bytes]] = field(default_factory=set)
    forced: set[InstanceId] = field(default_factory=set)
    """Instances that hold what was planned, whatever the rules say."""
    observe: Callable[[Observation], Observation | None] = lambda observation: observation
    """What a member says it saw, where that is not what it saw; None: it says nothing."""
    outcome: Callable[[Outcome], Outcome] = lambda outcome: outcome
    certify: Callable[[Outcome, Digest], Certified] = certify
    config: Callable[[Config], Config] = lambda config: config
    """What validators agree under, where that is not what the contract has."""
    file: Callable[[int, bytes], bytes] = lambda _, data: data
    manifest: Callable[[Manifest], Manifest] = lambda manifest: manifest
    settle: Callable[..., tuple[Report, Ledger]] = build_report
    report: Callable[[Report], Report] = lambda report: report
    report_signers: tuple[SigningKey, ...] = MEMBERS
    reward: int = 5_000
    uploader: int = 0
    """Which member pays for all bundles, with ``a_wallet``."""
    wallets: dict[int, bytes] = field(default_factory=dict)
    """Addresses of other members' wallets, where they pay too."""
    killed: str | None = None
    killed_ms: int = GENESIS_MS + 2_000
    back_ms: int = GENESIS_MS + 7_500

    def wallet_addresses(self) -> tuple[bytes, ...]:
        known = {self.uploader: a_wallet().address, **self.wallets}
        return tuple(known.get(n, WALLETS[n]) for n in range(len(MEMBERS)))


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
        Published(structs.replace(true, content=b'{"number":-1}'), (GENESIS_MS + 700,), "altered_content"),
        Published(a_publication(800, 91).message, (GENESIS_MS + 900,), "unknown_publisher"),
    ]
    sets: dict[InstanceId, list[Record]] = {place: [] for place in (*map(window, range(5)), late(0), late(1))}
    for p in (*published, *receipts):
        place = late(0) if p is published[2] else window_of(p.message)
        sets[place].append(p.record)
    return Plan([*published, *receipts, lost], forged, sets)


def a_long_plan() -> Plan:
    """Three bundles: the last report finds one accepted before its block, and one that is still under way.

    A stream with two partitions, one whose balance is below the floor, a message that a contract signed, one with two
    forms, and one that came too late for the late set of its own bundle.
    """
    plan = a_plan()
    plan.network = a_network(epoch_windows=4)
    plan.spans = ((0, 1), (2, 3), (4, 5, 6))
    plan.sets |= {window(5): [], window(6): [], late(2): []}
    plan.partitions |= {STREAMS[1]: 2, POOR: 3}
    plan.balances[POOR] = 2
    plan.publishers |= {(POOR, PUBLISHER.address), (STREAMS[0], CONTRACT)}
    later = [a_publication(8_500 + 900 * n, 10 + n, partition=n % 2) for n in range(6)]
    very_late = a_publication(1_500, 20, delay_ms=12_000)
    signed = a_contract_signed(9_000)
    plan.contract_signatures = {(CONTRACT, signed.record.signed_digest)}
    poor = a_publication(9_100, 21, stream_id=POOR)
    plan.published += [*later, very_late, signed, poor]
    for p in (*later, signed):
        plan.sets[window_of(p.message)].append(p.record)
    plan.sets[late(1)].append(very_late.record)
    return plan


def a_longer_plan() -> Plan:
    """As the long one, with a third bundle in the first epoch: its manifest has what changed in the ledger."""
    plan = a_long_plan()
    plan.network = a_network(epoch_windows=6)
    plan.spans = ((0, 1), (2, 3), (4, 5), (6, 7, 8))
    plan.sets |= {window(7): [], window(8): [], late(3): []}
    return plan


def window_of(message: Message) -> InstanceId:
    return window((message.timestamp_ms - GENESIS_MS) // WINDOW_MS)


def a_contract_signed(at_ms: int) -> Published:
    """A message of a contract's account, signed by somebody of whom only the contract can say whether he may."""
    message = structs.replace(
        a_publication(at_ms, 30).message, publisher_id=CONTRACT, signature_type=SignatureType.ERC_1271, signature=b""
    )
    signed = structs.replace(message, signature=PUBLISHER.sign(make_record(message).signed_digest))
    return Published(signed, (GENESIS_MS + at_ms + 100, GENESIS_MS + at_ms + 140))


# --- putting it together ----------------------------------------------------------------------------


@dataclass(slots=True)
class FinishedRun:
    folder: Path
    chain: FakeChain
    gateway: FakeGateway
    manifests: list[Manifest] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    ledgers: list[Ledger] = field(default_factory=list)
    """What each report leaves."""
    observations: list[dict[str, str]] = field(default_factory=list)

    @property
    def parts(self) -> tuple[Run, Chain, Gateway]:
        """What ``check_run`` takes."""
        run = read_run(self.folder)
        return run, Chain(self.chain, run.contracts, run.deployment_block), Gateway(self.gateway)


def finish(folder: Path, plan: Plan) -> FinishedRun:
    """Write the folder's files and fill chain and gateway, as a run of the plan would have."""
    run = FinishedRun(folder, FakeChain(), FakeGateway())
    run.gateway.fund(plan.wallet_addresses())
    _fill_chain(run.chain, plan)
    configs = [_config(epoch, plan.network) for epoch in (0, 1)]
    run.chain.change_committee(configs[0], 3)
    ledger = Ledger()
    previous = Root(bytes(32))
    for number, windows in enumerate(plan.spans):
        closing = number == len(plan.spans) - 1
        config = plan.config(configs[closing])
        places = [window(n) for n in windows]
        manifest = plan.manifest(_manifest(run, plan, config, number, places, previous, ledger))
        previous = manifest_root(manifest)
        end_ms = manifest.header.last_ms + WINDOW_MS
        tags = bundle_tags(manifest.header, previous, CONTEXT, end_ms)
        file = plan.file(number, _write_file(folder, plan, manifest))
        storage_id = run.gateway.upload(file, tags, end_ms + 2_000, reward=plan.reward)
        following = configs[1] if number >= len(plan.spans) - 2 else None
        report, ledger = _settle(run, plan, manifest, config, ledger, storage_id, following)
        run.ledgers.append(ledger)
        report = plan.report(report)
        signatures = {
            key.address: key.sign(report_digest(report, CHAIN_ID, CONTRACTS.report_manager))
            for key in plan.report_signers
        }
        members = config.committee[: len(signatures)] if len(signatures) < 3 else config.committee
        bitmap, packed = pack_signatures(members, signatures)
        newest = max((held[2] for held in run.chain.held.values()), default=0)
        accepted_at = max(newest + 1, end_ms // 1000 - FIRST_BLOCK_S + 6)
        run.chain.accept(report, bitmap, packed, following, accepted_at)
        run.manifests.append(manifest)
        run.reports.append(report)
    _write_folder(folder, plan)
    _write_lines(folder / "observations.jsonl", run.observations)
    return run


def _config(epoch: int, network: Network = NETWORK) -> Config:
    found = network.epoch(epoch)
    assert found is not None
    return Config(
        chain_id=CHAIN_ID,
        deployment_parent_hash=network.deployment_parent_hash,
        contracts=CONTRACTS,
        parameters=found.parameters,
        epoch=epoch,
        config_count=0,
        committee=tuple(k.address for k in MEMBERS),
    )


def _manifest(
    run: FinishedRun,
    plan: Plan,
    config: Config,
    number: int,
    windows: list[InstanceId],
    previous: Root,
    ledger: Ledger,
) -> Manifest:
    digest = config_digest(config)
    former = run.ledgers[-2] if number > 1 else Ledger()
    epoch = plan.network.epoch(config.epoch)
    first = epoch is None or windows[0].number == epoch.start_ms
    certified = []
    for instance in (*windows, late(number)):
        start_ms = windows[-1].number if instance.kind is InstanceKind.LATE else instance.number
        outcome = plan.outcome(_agree(run, plan, config, instance, start_ms))
        certified.append(plan.certify(outcome, digest))
    return Manifest(
        header=BundleHeader(digest, number, previous, windows[0].number, windows[-1].number),
        config_preimage=encode_config(config),
        windows=tuple(certified[:-1]),
        late=certified[-1],
        ledger=encode_ledger_part(former, ledger, first=first),
    )


def _agree(run: FinishedRun, plan: Plan, config: Config, instance: InstanceId, start_ms: int) -> Outcome:
    """Every member observes and signs; the outcome is built by the network's own rules."""
    used = {}
    for key in MEMBERS:
        observation = plan.observe(_observation(plan, instance, key.address))
        if observation is not None:
            body = encode_observation(observation)
            used[hash_object(body)] = observation
            run.observations.append(a_said(body, instance, key, config_digest(config)))
    state = state_at(run.chain, plan, start_ms)
    scope = Scope(state.block, budgets_of(plan.network, state, _debts_at(run, state.block.number), config.parameters))
    n = len(config.committee)
    outcome, kept = build_outcome(instance, scope, unite(plan.sets[instance], {}), used, n, config.parameters)
    if instance not in plan.forced:
        plan.sets[instance] = list(kept)
        return outcome
    return with_entries(outcome, plan.sets[instance])


def with_entries(outcome: Outcome, records: Sequence[Record]) -> Outcome:
    """The outcome with the entries of these very records, empty ones kept."""
    held = {e.stream_part: e for e in make_entries(records)}
    return replace_entries(outcome, [*held.values(), *(e for e in outcome.entries if e.stream_part not in held)])


def replace_entries(outcome: Outcome, entries: Sequence[PartitionEntry]) -> Outcome:
    ordered = tuple(sorted(entries, key=lambda e: part_order(e.stream_part)))
    return replace(outcome, entries=ordered, root=entries_root(ordered))


def a_said(body: bytes, instance: InstanceId, key: SigningKey, digest: Digest) -> dict[str, str]:
    """A line of observations.jsonl: a body under its observer's signature."""
    statement = Statement(StatementKind.OBSERVATION, digest, instance, 0, hash_object(body), key.address)
    return {"statement": encode_statement(sign_statement(statement, key, CONTEXT)).hex(), "body": body.hex()}


def _observation(plan: Plan, instance: InstanceId, observer: Address) -> Observation:
    """What a member saw that sees all: of paying streams brokers served what they had at the cut-off, and missed what
    most had.
    """
    records = plan.sets[instance]
    shares: list[BrokerShare] = []
    if instance.kind is InstanceKind.WINDOW:
        held = {r.identity for r in records if r.message.stream_id != SYSTEM}
        cut_off_ms = instance.number + WINDOW_MS + GRACE_MS
        sizes: dict[Address, list[int]] = defaultdict(lambda: [0, 0])
        for p in {p.record.identity: p for p in plan.published if p.record.identity in held}.values():
            served = [k.address for k, at in zip(BROKERS, p.delivered_ms, strict=False) if at <= cut_off_ms]
            for key in BROKERS:
                if key.address in served:
                    sizes[key.address][0] += p.record.signed_bytes
                elif 2 * len(served) > len(BROKERS):
                    sizes[key.address][1] += p.record.signed_bytes
        shares = [BrokerShare(broker, *both) for broker, both in sorted(sizes.items()) if any(both)]
    entries = make_entries(records)
    return Observation(
        instance=instance,
        set_root=set_root(entries),
        count=len(records),
        signed_bytes=sum(r.signed_bytes for r in records),
        shares=tuple(shares),
        erc1271=tuple(sorted(r.signed_digest for r in records if r.message.signature_type is SignatureType.ERC_1271)),
        observer=observer,
    )


def _write_file(folder: Path, plan: Plan, manifest: Manifest) -> bytes:
    path = folder / "bundle"
    sets = [plan.sets[c.outcome.instance] for c in manifest.windows]
    write_bundle(path, manifest, rows_of(manifest, sets, plan.sets[manifest.late.outcome.instance]))
    data = path.read_bytes()
    path.unlink()
    return data


def state_at(chain: FakeChain, plan: Plan, ms: int) -> ChainState:
    """What a validator reads of the chain at B(ms)."""
    block = block_at(ms)
    nodes = tuple(
        Node(
            address,
            chain.amount("nodeStake", _hex(address), block.number),
            said.get("http"),
            said.get("validator"),
            index=chain.indices["node_manager", _hex(address)],
        )
        for address, said in sorted(plan.nodes.items())
    )
    balances = {stream: chain.amount("stores", stream, block.number) for stream in plan.balances}
    stores = tuple(
        Store(s, balance, plan.partitions[s], index=chain.indices["store_manager", s])
        for s, balance in balances.items()
        if balance
    )
    consumer = _hex(CONSUMER.address)
    account = Account(chain.amount("balanceOf", consumer, block.number), chain.indices["query_manager", consumer])
    return ChainState(block, nodes, stores, SYSTEM, {CONSUMER.address: account})


def _settle(
    run: FinishedRun,
    plan: Plan,
    manifest: Manifest,
    config: Config,
    ledger: Ledger,
    storage_id: StorageId,
    following: Config | None,
) -> tuple[Report, Ledger]:
    """The report as the network's own settlement builds it."""
    state = state_at(run.chain, plan, manifest.header.last_ms)
    processed = [number for number, held in run.chain.held.items() if held[2] <= state.block.number]
    records = [r for c in (*manifest.windows, manifest.late) for r in plan.sets[c.outcome.instance]]
    return plan.settle(
        ledger,
        manifest.header,
        manifest_root(manifest),
        [c.outcome for c in manifest.windows],
        manifest.late.outcome,
        bundle_receipts(records, SYSTEM, CHAIN_ID, CONTRACTS.query_manager),
        state,
        processed,
        config.parameters,
        epoch=config.epoch,
        config_count=config.config_count,
        storage_id=storage_id,
        uploader=MEMBERS[plan.uploader].address,
        system_stream=SYSTEM,
        next_committee=() if following is None else following.committee,
        next_config_digest=NIL if following is None else config_digest(following),
    )


def _debts_at(run: FinishedRun, block_number: int) -> Mapping[str, Debt]:
    """What streams owe by the last report that was accepted by then."""
    accepted = [number for number, held in run.chain.held.items() if held[2] <= block_number]
    return run.ledgers[max(accepted)].owed or {} if accepted else {}


def _fill_chain(chain: FakeChain, plan: Plan) -> None:
    for stream, balance in plan.balances.items():
        chain.stake_store(stream, balance, plan.staked_at.get(stream, 4), plan.partitions[stream])
    chain.stake_consumer(CONSUMER.address, STAKE, 4)
    wallets = {key.address: wallet for key, wallet in zip(MEMBERS, plan.wallet_addresses(), strict=True)}
    for address, metadata in plan.nodes.items():
        own = {"arweave": encode_base64url(wallets[address])} if address in wallets else {}
        chain.stake_node(address, plan.stakes.get(address, STAKE), 4, {**own, **metadata})
    chain.publishers = plan.publishers
    chain.contract_signatures = plan.contract_signatures


def _write_folder(folder: Path, plan: Plan) -> None:
    description = {
        "chain_id": CHAIN_ID,
        "rpc_url": "http://127.0.0.1:1",
        "gateway_url": "http://127.0.0.1:2",
        "contracts": {name: _hex(getattr(CONTRACTS, name)) for name in ABI_NAMES},
        "deployment_block": 1,
        "windows": plan.network.sets[0].epoch_windows,
        "validators": [
            {"name": f"validator-{n}", "address": _hex(key.address), "wallet": encode_base64url(wallet)}
            for n, (key, wallet) in enumerate(zip(MEMBERS, plan.wallet_addresses(), strict=True))
        ],
        "brokers": [{"name": f"broker-{n}", "address": _hex(k.address)} for n, k in enumerate(BROKERS)],
        "consumers": [{"address": _hex(CONSUMER.address), "staked": str(STAKE)}],
        "killed": plan.killed,
    }
    (folder / "run.json").write_text(json.dumps(description))
    (folder / "network.toml").write_text(format_network(plan.network))
    logs = folder / "logs"
    receipts = [p for p in plan.published if p.kind == "receipt"]
    _write_log(logs / "publisher" / "published.jsonl", [p for p in plan.published if p.kind == "message"])
    _write_log(logs / "publisher" / "forged.jsonl", plan.forged)
    for index, key in enumerate(BROKERS):
        own = [p for p in receipts if p.message.publisher_id == key.address]
        _write_log(logs / f"broker-{index}" / "published.jsonl", own)
        deliveries = [
            {
                "time_ms": p.delivered_ms[index],
                **p.logged,
                **_refusal(p.kind),
            }
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
            "killed_ms": plan.killed_ms,
            "back_ms": plan.back_ms,
            "certificates": [str(place) for place in plan.sets],
        }
        collected["statements"] = {plan.killed: [a_vote(plan.killed).hex()]}
    (folder / "collected.json").write_text(json.dumps(collected))


def a_vote(validator: str, start_ms: int = CLOSING_MS) -> bytes:
    """A precommit of that validator in the closing epoch, as it travels."""
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


def _refusal(kind: str) -> dict[str, str]:
    """What a broker's log adds of a forged message."""
    return {"refused": REASON_OF[kind]} if kind in REASON_OF else {}


def _write_log(path: Path, published: list[Published]) -> None:
    _write_lines(
        path,
        [
            {
                "time_ms": p.message.timestamp_ms,
                "kind": p.kind,
                "stream": p.message.stream_id,
                "partition": p.message.partition,
                **p.logged,
            }
            for p in published
        ],
    )


def _write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
