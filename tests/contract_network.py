"""Our contracts on an anvil of the test's own, with a committee, and reports that they accept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.builders import a_key
from validator.devnet.contracts import WEI, Deployment, DevChain, NodeSetup, StreamSetup
from validator.protocol.codec.report import pack_signatures, report_digest, report_values, sort_report
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import RemoteFault
from validator.protocol.model import NIL, Address, Digest, Root, StorageId
from validator.protocol.quorum import quorum
from validator.protocol.report import ConsumerLine, NodeLine, Report, StreamLine

CONFIG = Digest(b"\x0c" * 32)
BROKER_STAKE = 100 * WEI
RAISE_DELAY_S = 3_600


def a_report(**changes: Any) -> Report:
    """A report that is sorted and conserved; any field may be changed."""
    values: dict[str, Any] = {
        "config_digest": CONFIG,
        "config_count": 0,
        "number": 0,
        "height": 7,
        "block_hash": Digest(b"\x07" * 32),
        "first_ms": 1_700_000_000_000,
        "last_ms": 1_700_000_180_000,
        "previous_root": Root(NIL),
        "bundle_root": Root(b"\xb0" * 32),
        "storage_id": StorageId(b"\x5a" * 32),
        "uploader": a_key(100).address,
        "ledger_root": Digest(b"\x1e" * 32),
        "streams": (StreamLine(1, "0xabc/a", 700, 7_000), StreamLine(2, "0xabc/b", 300, 3_000)),
        "consumers": (ConsumerLine(1, a_key(400).address, 50, 500),),
        "nodes": tuple(NodeLine(i + 1, a_key(200 + i).address, 300) for i in range(3)),
        "treasury": 150,
    }
    return Report(**{**values, **changes})


@dataclass(slots=True)
class ContractNetwork:
    """``members`` validators (keys 100…), 3 brokers (keys 200…), ``streams`` stores, 3 consumers (keys 400…)."""

    chain: DevChain
    validators: list[SigningKey]
    brokers: list[SigningKey]
    streams: list[str]
    consumers: list[Address]
    last_root: Root = field(default_factory=lambda: Root(NIL))
    number: int = 0
    last_ms: int = 1_000
    _indices: dict[tuple[str, bytes], int] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        url: str,
        *,
        members: int = 4,
        streams: int = 3,
        balance: int = 1_000 * WEI,
        owner: int = 1,
        digest_of: Callable[[Deployment, tuple[Address, ...]], Digest] | None = None,
    ) -> ContractNetwork:
        """``digest_of``: the committee's config digest, where it is to follow from a network's file."""
        chain = DevChain(url, a_key(owner))
        chain.deploy(raise_delay_s=RAISE_DELAY_S)
        validators = [a_key(100 + i) for i in range(members)]
        brokers = [a_key(200 + i) for i in range(3)]
        stream_ids = sorted(f"0x{a_key(owner).address.hex()}/stream-{i:03}" for i in range(streams))
        consumers = sorted(a_key(400 + i).address for i in range(3))
        chain.register_nodes(
            [
                NodeSetup(k, a_key(1000 + i), BROKER_STAKE, None, f"http://127.0.0.1:{7000 + i}")
                for i, k in enumerate(validators)
            ]
            + [
                NodeSetup(k, a_key(2000 + i), BROKER_STAKE, f"http://127.0.0.1:{8000 + i}")
                for i, k in enumerate(brokers)
            ]
        )
        chain.create_streams([StreamSetup(s, balance, publishers=(a_key(300).address,)) for s in stream_ids])
        chain.stake_consumers(dict.fromkeys(consumers, balance))
        committee = tuple(k.address for k in validators)
        chain.set_committee(committee, CONFIG if digest_of is None else digest_of(chain.deployment, committee))
        return cls(chain, validators, brokers, stream_ids, consumers)

    def ask_all(self, contract: str, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[int]:
        """The first value of a call with each of these arguments, all in one request."""
        return [int(v) for (v, *_) in self.chain.call_all([(contract, function, a) for a in arguments])]

    def next_report(
        self,
        streams: Mapping[str, int] | None = None,
        consumers: Mapping[Address, int] | None = None,
        nodes: Mapping[Address, int] | None = None,
        **changes: Any,
    ) -> Report:
        """The next report in order, treasury taking what the given lines leave; any field may be changed."""
        block = self.chain.call_rpc("eth_getBlockByNumber", "latest", False)
        taken = streams if streams is not None else dict.fromkeys(self.streams, WEI)
        paid = consumers if consumers is not None else {self.consumers[0]: WEI}
        given = nodes if nodes is not None else {k.address: WEI for k in self.brokers}
        treasury = sum(taken.values()) + sum(paid.values()) - sum(given.values())
        report = a_report(
            number=self.number,
            height=int(block["number"], 16),
            block_hash=Digest(bytes.fromhex(block["hash"][2:])),
            first_ms=self.last_ms + 1_000,
            last_ms=self.last_ms + 4_000,
            previous_root=self.last_root,
            bundle_root=Root(bytes([self.number + 1]) * 32),
            uploader=self.validators[0].address,
            streams=tuple(StreamLine(self.index_of(s), s, taken[s], 1 << 20) for s in taken),
            consumers=tuple(ConsumerLine(self.index_of_consumer(c), c, paid[c], 1 << 20) for c in paid),
            nodes=tuple(NodeLine(self.index_of_node(n), n, given[n]) for n in given),
            treasury=treasury,
        )
        return sort_report(replace(report, **{"config_count": self.config_count, **changes}))

    @property
    def config_count(self) -> int:
        return int(self.chain.call("ReportManager", "configCount")[0])

    def index_of(self, stream: str) -> int:
        """By which StoreManager knows a stream; of one that it does not know some number that it has not given."""
        return self._index("StoreManager", stream, stream.encode())

    def index_of_consumer(self, consumer: Address) -> int:
        return self._index("QueryManager", "0x" + consumer.hex(), consumer)

    def index_of_node(self, node: Address) -> int:
        return self._index("NodeManager", "0x" + node.hex(), node)

    def _index(self, contract: str, name: str, key: bytes) -> int:
        known = self._indices.get((contract, key)) or int(self.chain.call(contract, "indexOf", name)[0])
        if known:
            self._indices[contract, key] = known
        return known or 1 << 30 | int.from_bytes(hashlib.sha256(key).digest()[:3], "big")

    def digest(self, report: Report) -> Digest:
        return report_digest(report, self.chain.chain_id, self.chain.deployment.contracts.report_manager)

    def sign(self, report: Report, signers: Sequence[SigningKey] | None = None) -> tuple[int, bytes]:
        """(bitmap, signatures) of a quorum of ``signers`` (all validators)."""
        digest = self.digest(report)
        keys = self.validators if signers is None else signers
        return pack_signatures([k.address for k in self.validators], {k.address: k.sign(digest) for k in keys})

    def arguments(self, report: Report, bitmap: int | None = None, signatures: bytes | None = None) -> tuple[Any, ...]:
        if bitmap is None or signatures is None:
            own_bitmap, own_signatures = self.sign(report)
            bitmap = own_bitmap if bitmap is None else bitmap
            signatures = own_signatures if signatures is None else signatures
        return (report_values(report), bitmap, signatures)

    def submit(self, report: Report) -> dict[str, Any]:
        """Submit with everybody's signatures; afterwards ``next_report`` follows on this one."""
        self.chain.mine()
        receipt = self.chain.transact(a_key(1), "ReportManager", "submitReport", *self.arguments(report))
        self.number, self.last_root, self.last_ms = report.number + 1, report.bundle_root, report.last_ms
        return receipt

    def refusal(self, report: Report, bitmap: int | None = None, signatures: bytes | None = None) -> str:
        """What the contract says to this report without anything being changed; "" if it would accept it."""
        return self.refusal_of("ReportManager", "submitReport", *self.arguments(report, bitmap, signatures))

    def refusal_of(self, contract: str, function: str, *arguments: Any, sender: SigningKey | None = None) -> str:
        try:
            self.chain.call(contract, function, *arguments, sender=sender.address if sender else None)
        except RemoteFault as error:
            return str(error.revert)
        return ""

    @property
    def quorum(self) -> int:
        return quorum(len(self.validators))
