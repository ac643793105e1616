"""``ChainReader``: what the validator needs of the chain, read by block hash (port ``Chain``).

One state read is three batches: staked nodes and new StoreUpdated events, balances, stream metadata.

An empty answer is not a complete one: a node that lags, or one behind a balancer, answers a range of blocks that it
does not have with no logs. So the list of stores, grown by block ranges, counts only with evidence. At every block that
a state is read at, the stores of the list must hold together what ``StoreManager.totalSupply`` says, by the block's
hash; while they do not, the answer is *not yet*, nothing is kept, and what was kept before is read again, further back
each time. Of a range that is far from the block, a source's logs count only with the range's last block from the same
source. A store too many changes nothing: it holds nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from validator.net.chain.abi import ERC1271, Function, interface
from validator.net.chain.abilities import examine_sources
from validator.net.chain.accepted import complete_reports, parse_gas_used, read_record
from validator.net.chain.blocks import Blocks, block_by_number
from validator.net.chain.jsonrpc import Request, Reverted
from validator.net.chain.metadata import parse_node_metadata, parse_node_wallet, parse_partitions
from validator.net.chain.rpc import Rpc
from validator.net.chain.source import SourceHealth
from validator.net.chain.store_index import MemoryIndex, StoreIndex, StoreList, parse_store_events
from validator.net.chain.values import MAX_NUMBER, parse_bytes, parse_first_word, parse_has_code, parse_quantity
from validator.net.http.pacing import Allowance, Pace
from validator.ports.chain import AcceptedReport
from validator.protocol.codec.report import MAX_INDEX
from validator.protocol.errors import ConfigError, RemoteFault, TransientError
from validator.protocol.model import Account, Address, Block, ChainState, Digest, Node, Store
from validator.protocol.parameters import Contracts

NODE_PAGE = 50
STORE_PAGE = 200
MAX_NODES = 1 << 16
"""Staked nodes of a network; each has locked the required stake, so a contract of ours never has so many."""
LOG_RANGE = 2_000
"""Blocks per eth_getLogs at first; providers take 10 to 10 000, or bound the logs: learned."""
LOG_RANGES = 10
"""Ranges asked for at once."""
FORGET_RANGE_S = 60.0
BACK = 128
"""Blocks that are read again, if the list of stores is not complete, beyond those that were not kept."""
MAX_STREAM_ID_BYTES = 256
VIEW_GAS = 50_000_000
ERC1271_GAS = 5_000_000
"""Gas for foreign signature checks: the same everywhere, so that sources agree on running out of it."""
ERC1271_MAGIC = bytes.fromhex("1626ba7e") + bytes(28)
CHECK_SKEW_S = 60


@dataclass(frozen=True, slots=True)
class ContractConfig:
    """What ReportManager holds: digest, counter, members (ascending), number of the next report."""

    config_digest: Digest
    config_count: int
    committee: tuple[Address, ...]
    next_number: int


class ChainReader:
    """Contracts of one network, from several JSON-RPC sources. Thread-safe, every call with a total deadline.

    All reads raise TransientError while sources do not answer or do not agree (``reason``: "disagreement", "pruned",
    "unavailable"), and RemoteFault where a majority answers with something that is no contract of ours.
    """

    def __init__(
        self,
        urls: Sequence[str],
        contracts: Contracts,
        *,
        deployment_block: int = 0,
        finality: str = "finalized",
        chain_id: int | None = None,
        min_balance: int = 1,
        index: StoreIndex | None = None,
        deadline_s: float = 15.0,
        batch_limit: int = 50,
        log_range: int = LOG_RANGE,
    ) -> None:
        """``min_balance``: stores below it (base units) are left out of states. ``finality`` as in the parameters."""
        self.rpc = Rpc(urls, deadline_s=deadline_s, batch_limit=batch_limit)
        self._contracts = contracts
        self._chain_id = chain_id
        self._first_block = deployment_block
        self._min_balance = max(min_balance, 1)
        self._log_range = Allowance(log_range, forget_s=FORGET_RANGE_S)
        self._back = 0
        self._back_pace = Pace(first_s=5.0, longest_s=600.0)
        self._index = index if index is not None else MemoryIndex()
        self._index_lock = threading.Lock()
        self._blocks = Blocks(self.rpc, finality=finality, first_block=deployment_block)
        self._node_manager = interface("NodeManager")
        self._store_manager = interface("StoreManager")
        self._query_manager = interface("QueryManager")
        self._report_manager = interface("ReportManager")
        self._registry = interface("StreamRegistry")

    def close(self) -> None:
        self.rpc.close()

    def health(self) -> list[SourceHealth]:
        """Per source: answers, failures, how often outvoted, the last error; only hosts are named."""
        return self.rpc.health()

    @property
    def system_stream(self) -> str:
        return f"0x{self._contracts.node_manager.hex()}/system"

    # --- blocks -----------------------------------------------------------------------------------

    def fetch_head(self) -> Block:
        """The newest block that a majority of sources has."""
        return self._blocks.fetch_head()

    def fetch_finalised(self) -> Block:
        """The newest final block that a majority of sources has."""
        return self._blocks.fetch_finalised()

    def fetch_block_at(self, timestamp_s: int) -> Block | None:
        """Highest block with timestamp <= ``timestamp_s``; None until a finalised block with a later one exists."""
        return self._blocks.fetch_block_at(timestamp_s)

    def fetch_blocks(self, numbers: Sequence[int]) -> list[Block]:
        """Blocks by number as a majority of sources names them now."""
        return self._blocks.fetch_blocks(numbers)

    def fetch_parent_hash_of_deployment(self, block_number: int) -> Digest:
        """Hash of the block before the contracts' deployment: part of the network's identity."""
        return self._blocks.fetch_parent_hash(block_number)

    # --- state ------------------------------------------------------------------------------------

    def fetch_state(self, block: Block) -> ChainState:
        """Staked nodes and funded stores at ``block``, by its hash. ``consumers`` is empty."""
        nodes = self.fetch_nodes(block)
        stream_ids = sorted(self._read_index(block), key=_raw)
        stores = self._read_stores(stream_ids, block)
        return ChainState(block, tuple(nodes), tuple(stores), self.system_stream, {})

    def fetch_nodes(self, block: Block) -> list[Node]:
        """Staked nodes at ``block``, by their addresses."""
        first_page = self._call("node_manager", self._node_manager.function("stakedNodes"), (0, NODE_PAGE), block)
        return self._read_nodes(self.rpc.agree([first_page])[0], block)

    def fetch_publish_permission(self, stream_id: str, publisher: bytes, block: Block) -> bool:
        """May ``publisher`` publish in ``stream_id`` at ``block``, by the registry (public permission included)?"""
        return self.fetch_publish_permissions([(stream_id, publisher)], block)[(stream_id, publisher)]

    def fetch_publish_permissions(
        self, pairs: Iterable[tuple[str, bytes]], block: Block
    ) -> Mapping[tuple[str, bytes], bool]:
        """As ``fetch_publish_permission`` for many pairs in one batch; a stream that does not exist permits nobody.

        Asked by user id, since publishers may be keys of any kind and length: an address is the user id of its 20
        bytes. The registry puts a public permission in the place of an expired own one; a permission holds while its
        expiration is not before the block's time.
        """
        asked = sorted(set(pairs))
        function = self._registry.function("getPermissionsForUserId")
        answers = self.rpc.agree(
            [self._call("stream_registry", function, (stream, who), block) for stream, who in asked]
        )
        return {
            pair: not isinstance(answer, Reverted) and _publish_expiration(answer) >= block.timestamp_s
            for pair, answer in zip(asked, answers, strict=True)
        }

    def fetch_consumers(self, consumers: Sequence[Address], block: Block) -> Mapping[Address, Account]:
        """What QueryManager holds of each consumer at ``block``, and the index by which it knows it."""
        accounts: dict[Address, Account] = {}
        function = self._query_manager.function("balancesOf")
        pages = [list(consumers[at : at + STORE_PAGE]) for at in range(0, len(consumers), STORE_PAGE)]
        calls = [self._call("query_manager", function, ([_hex(a) for a in page],), block) for page in pages]
        for page, answer in zip(pages, self.rpc.agree(calls), strict=True):
            balances, indices = self._values(answer, "QueryManager.balancesOf")
            if not len(balances) == len(indices) == len(page) or max(indices, default=0) > MAX_INDEX:
                raise RemoteFault("QueryManager.balancesOf: no balances of ours", function="balancesOf")
            accounts.update(zip(page, map(Account, balances, indices), strict=True))
        return accounts

    def fetch_view(self, contract: str, function: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Any view of one of our contracts, by its name in ``contracts_abi``, at the head."""
        call = self._call(_field(contract), interface(contract).function(function), arguments, self.fetch_head())
        return self._values(self.rpc.agree([call])[0], f"{contract}.{function}")

    def address_of(self, contract: str) -> Address:
        """Of one of our contracts, by its name in ``contracts_abi``."""
        address: Address = getattr(self._contracts, _field(contract))
        return address

    def fetch_query_balance(self, address: Address) -> int:
        """QueryManager balance of one consumer at the head."""
        return self.fetch_consumers([address], self.fetch_head())[address].balance

    def fetch_native_balance(self, address: Address) -> int:
        """Wei of an account at the head: what the gas key has left."""
        head = self.fetch_head()
        request = Request("eth_getBalance", (_hex(address), _at(head)), parse_quantity)
        balance: int = self.rpc.agree([request])[0]
        return balance

    def fetch_is_valid_signature(self, contract: Address, digest: Digest, signature: bytes, block: Block) -> bool:
        """ERC-1271 at ``block``: exactly the magic word, within ``ERC1271_GAS``; a revert or no code is False.

        Anybody may be named as the contract. A precompiled one has no code, and nodes answer its faults in words of
        their own, as if they could not answer at all; so code is asked for first.

        Raises:
            TransientError: beside the usual, with ``reason`` "foreign": all sources have the block, and each answers
                this very call with an error of its own.
        """
        has_code = self.rpc.agree([Request("eth_getCode", (_hex(contract), _at(block)), parse_has_code)])[0]
        if not has_code:
            return False
        data = ERC1271.encode((digest, signature))
        call = {"to": _hex(contract), "data": "0x" + data.hex(), "gas": hex(ERC1271_GAS)}
        try:
            answer = self.rpc.agree([Request("eth_call", (call, _at(block)), parse_first_word)])[0]
        except TransientError as error:
            said = error.fields.get("sources", {}).values()
            rests = error.fields.get("retry_after_s", 0) > 0
            foreign = len(said) == len(self.rpc.hosts) and all(text.startswith("eth_call:") for text in said)
            if error.fields.get("reason") != "unavailable" or rests or not foreign:
                raise
            raise TransientError(error.message, reason="foreign", sources=error.fields["sources"]) from error
        return bool(answer == ERC1271_MAGIC)

    # --- reports ----------------------------------------------------------------------------------

    def fetch_last_report(self, block: Block | None = None) -> AcceptedReport | None:
        """The last report that the contract accepted, at ``block`` or the head; None before the first."""
        at = block or self.fetch_head()
        call = self._call("report_manager", self._report_manager.function("lastReport"), (), at)
        values = self._values(self.rpc.agree([call])[0], "ReportManager.lastReport")
        return (
            complete_reports(self.rpc, self._contracts, [read_record(values[1], values[2:])])[0] if values[0] else None
        )

    def fetch_report(self, number: int, block: Block | None = None) -> AcceptedReport | None:
        """Report ``number`` as the contract holds it; None if it has not accepted that one."""
        at = block or self.fetch_head()
        call = self._call("report_manager", self._report_manager.function("reportOf"), (number,), at)
        answer = self.rpc.agree([call])[0]
        if isinstance(answer, Reverted):
            if self._report_manager.explain_revert(answer.data) == "NoSuchReport":
                return None
            raise RemoteFault("ReportManager.reportOf reverted: no contract of ours", function="reportOf")
        return complete_reports(self.rpc, self._contracts, [read_record(number, answer)])[0]

    def fetch_reports(self, numbers: Sequence[int], block: Block) -> list[AcceptedReport]:
        """Reports that the contract holds at ``block``, in two questions. RemoteFault if it lacks one of them."""
        function = self._report_manager.function("reportOf")
        answers = self.rpc.agree([self._call("report_manager", function, (number,), block) for number in numbers])
        values = (self._values(answer, "ReportManager.reportOf") for answer in answers)
        records = [read_record(number, each) for number, each in zip(numbers, values, strict=True)]
        return complete_reports(self.rpc, self._contracts, records)

    def fetch_gas_used(self, transaction: Digest) -> int | None:
        """Gas of anybody's transaction in a block; None if the sources have no receipt of it."""
        request = Request("eth_getTransactionReceipt", ("0x" + transaction.hex(),), parse_gas_used)
        gas_used: int | None = self.rpc.agree([request])[0]
        return gas_used

    def fetch_config(self, block: Block | None = None) -> ContractConfig:
        """Config digest, counter, committee and next report number of the contract, at ``block`` or the head."""
        at = block or self.fetch_head()
        names = ("configDigest", "configCount", "committee", "nextNumber")
        calls = [self._call("report_manager", self._report_manager.function(name), (), at) for name in names]
        answers = zip(self.rpc.agree(calls), names, strict=True)
        digest, count, members, number = (self._values(answer, f"ReportManager.{name}")[0] for answer, name in answers)
        if number > MAX_NUMBER:
            raise RemoteFault("ReportManager.nextNumber: a report beyond all numbers", function="nextNumber")
        return ContractConfig(Digest(digest), count, tuple(Address(m) for m in members), number)

    # --- check ------------------------------------------------------------------------------------

    def check(self, now_s: int | None = None) -> list[str]:
        """Warnings for the operator, one sentence each.

        Raises:
            ConfigError: another chain id, or a contract address without code.
        """
        warnings: list[str] = []
        if len(self.rpc.hosts) == 1:
            warnings.append("rpc_urls: one source only, its word is taken; three of different operators are advised")
        elif len(self.rpc.hosts) == 2:
            warnings.append("rpc_urls: with two sources every disagreement means waiting; three are advised")
        chain_id = self.rpc.agree([Request("eth_chainId", (), parse_quantity)])[0]
        if self._chain_id is not None and chain_id != self._chain_id:
            raise ConfigError(f"rpc_urls: the sources are chain {chain_id}, the network {self._chain_id}", field="rpc")
        head = self.fetch_head()
        names = ("token", "node_manager", "store_manager", "query_manager", "report_manager", "stream_registry")
        requests = [
            Request("eth_getCode", (_hex(getattr(self._contracts, name)), _at(head)), parse_has_code) for name in names
        ]
        for name, has_code in zip(names, self.rpc.agree(requests), strict=True):
            if not has_code:
                raise ConfigError(f"contracts.{name}: no code at that address", field=f"contracts.{name}")
        if now_s is not None and abs(head.timestamp_s - now_s) > CHECK_SKEW_S:
            warnings.append(f"clock and newest block are {abs(head.timestamp_s - now_s)} s apart")
        return warnings

    def examine(self) -> list[str]:
        """What single sources cannot do or do wrong, one sentence each (``abilities``)."""
        found = examine_sources(
            self.rpc,
            chain_id=self._chain_id,
            contract=self._contracts.store_manager,
            first_block=self._first_block,
            tag=self._blocks.tag,
            log_range=LOG_RANGE,
        )
        return list(found)

    # --- inside -----------------------------------------------------------------------------------

    def _call(self, contract: str, function: Function, arguments: Sequence[Any], block: Block) -> Request[Any]:
        call = {
            "to": _hex(getattr(self._contracts, contract)),
            "data": "0x" + function.encode(arguments).hex(),
            "gas": hex(VIEW_GAS),
        }
        return Request("eth_call", (call, _at(block)), lambda value: function.decode(parse_bytes(value, "eth_call")))

    def _values(self, answer: Any, what: str) -> tuple[Any, ...]:
        if isinstance(answer, Reverted):
            raise RemoteFault(f"{what} reverted: no contract of ours at that address", function=what)
        return answer  # type: ignore[no-any-return]

    def _read_nodes(self, page: Any, block: Block) -> list[Node]:
        total, *lists = self._values(page, "NodeManager.stakedNodes")
        if total > MAX_NODES:
            raise RemoteFault(f"NodeManager.stakedNodes: more than {MAX_NODES} nodes", function="stakedNodes")
        function = self._node_manager.function("stakedNodes")
        rest = [
            self._call("node_manager", function, (at, NODE_PAGE), block) for at in range(NODE_PAGE, total, NODE_PAGE)
        ]
        pages = [lists, *(self._values(p, "NodeManager.stakedNodes")[1:] for p in self.rpc.agree(rest))]
        nodes: list[Node] = []
        for addresses, stakes, texts, indices in pages:
            if not len(addresses) == len(stakes) == len(texts) == len(indices):
                raise RemoteFault("NodeManager.stakedNodes: lists of different lengths", function="stakedNodes")
            if max(indices, default=0) > MAX_INDEX:
                raise RemoteFault("NodeManager.stakedNodes: an index beyond all", function="stakedNodes")
            for address, stake, text, index in zip(addresses, stakes, texts, indices, strict=True):
                http, validator = parse_node_metadata(text)
                nodes.append(Node(Address(address), stake, http, validator, parse_node_wallet(text), index))
        if len(nodes) != total:
            raise RemoteFault("NodeManager.stakedNodes: pages do not add up", function="stakedNodes")
        return sorted(nodes, key=lambda node: node.address)

    def _read_stores(self, stream_ids: Sequence[str], block: Block) -> list[Store]:
        """Funded stores among these, which are all that hold anything. Raises TransientError while they are not."""
        pages = [list(stream_ids[at : at + STORE_PAGE]) for at in range(0, len(stream_ids), STORE_PAGE)]
        # As bytes: an id on chain need not be text.
        function = replace(self._store_manager.function("storesOf"), inputs=("bytes[]",))
        calls = [self._call("store_manager", function, ([_raw(s) for s in page],), block) for page in pages]
        supply = self._call("store_manager", self._store_manager.function("totalSupply"), (), block)
        *answers, total = self.rpc.agree([*calls, supply])
        funded: list[tuple[str, int, int, int]] = []
        held = 0
        for page, answer in zip(pages, answers, strict=True):
            lists = self._values(answer, "StoreManager.storesOf")
            if not all(len(each) == len(page) for each in lists) or max(lists[2], default=0) > MAX_INDEX:
                raise RemoteFault("StoreManager.storesOf: no balances of ours", function="storesOf")
            held += sum(lists[0]) + sum(lists[1])
            found = zip(page, *lists, strict=True)
            funded += [each for each in found if each[1] + each[2] >= self._min_balance and _is_stream_id(each[0])]
        missing = self._values(total, "StoreManager.totalSupply")[0] - held
        self._judge_index(missing, block, stream_ids)
        metadata = self._registry.function("getStreamMetadata")
        texts = self.rpc.agree([self._call("stream_registry", metadata, (each[0],), block) for each in funded])
        return [
            Store(stream_id, balance, 0 if isinstance(text, Reverted) else parse_partitions(text[0]), leaving, index)
            for (stream_id, balance, leaving, index), text in zip(funded, texts, strict=True)
        ]

    # --- the list of stores ---

    def _judge_index(self, missing: int, block: Block, stream_ids: Sequence[str]) -> None:
        """Keep the list that holds all there is at the block; go back where it does not."""
        if missing == 0:
            self._back = 0
            self._back_pace.answered()
            self._keep_index(StoreList(min(block.number, self._blocks.finalised_number), frozenset(stream_ids)))
            return
        if self._back_pace.rest_s() == 0:  # what was not kept is read again in any case
            self._back_pace.refused("stores are missing")
            self._back = 8 * self._back or BACK
        raise TransientError(
            f"not yet: {missing} base units at block {block.number} are in stores that no log names; "
            "the sources' logs lag, or have a gap",
            reason="unavailable",
        )

    def _read_index(self, block: Block) -> set[str]:
        """Streams named by a StoreUpdated event up to ``block``, as far as sources show them."""
        with self._index_lock:
            known = self._index.load() or StoreList(self._first_block - 1, frozenset())
        if self._blocks.finalised_number < block.number:
            self._blocks.fetch_finalised()
        found = set(known.stream_ids)
        at = max(min(known.upto, block.number if self._back else known.upto) + 1 - self._back, self._first_block)
        size, refused = self._log_range.size, 0
        while at <= block.number:
            firsts = range(at, min(block.number + 1, at + LOG_RANGES * size), size)
            ranges = [(first, min(first + size - 1, block.number)) for first in firsts]
            widest = ranges[0][1] - ranges[0][0] + 1
            try:
                found.update(*self._fetch_store_events(ranges, block))
            except TransientError as error:
                # Sources limit ranges and sizes, each in words of its own: ask for less before giving up.
                said = error.fields.get("sources", {}).values()
                is_refused = any(text.startswith("eth_getLogs:") for text in said)
                if error.fields.get("reason") == "disagreement" or not is_refused or widest == 1:
                    raise
                size, refused = self._log_range.after_refusal(widest), widest
                continue
            if refused:  # and less was taken: it was the range
                self._log_range.refused(refused)
                refused = 0
            self._log_range.taken(widest)
            at = ranges[-1][1] + 1
            size = self._log_range.size
            if at + LOG_RANGES * size <= block.number:  # on a long way, what lies far behind is not read twice
                self._keep_index(StoreList(min(at - 1, self._blocks.finalised_number), frozenset(found)))
        return found

    def _keep_index(self, stores: StoreList) -> None:
        """The index only grows: two threads that read different ranges keep both."""
        with self._index_lock:
            current = self._index.load() or StoreList(self._first_block - 1, frozenset())
            if stores.upto > current.upto or not stores.stream_ids <= current.stream_ids:
                upto = max(stores.upto, current.upto)
                if upto >= self._first_block:
                    self._index.save(StoreList(upto, stores.stream_ids | current.stream_ids))

    def _fetch_store_events(self, ranges: Sequence[tuple[int, int]], block: Block) -> list[frozenset[str]]:
        """Streams named in each range. After its logs a source shows the last block; without it they do not count."""
        topic = "0x" + self._store_manager.events["StoreUpdated"].hex()
        address = _hex(self._contracts.store_manager)
        requests: list[Request[Any]] = [
            Request(
                "eth_getLogs",
                ({"address": address, "topics": [topic], "fromBlock": hex(first), "toBlock": hex(last)},),
                lambda value: parse_store_events(value, self._contracts.store_manager),
            )
            for first, last in ranges
        ]
        *found, last_block = self.rpc.agree([*requests, block_by_number(ranges[-1][1])], together=True)
        if last_block.number != ranges[-1][1]:
            raise RemoteFault(f"asked for block {ranges[-1][1]}, got {last_block.number}", number=last_block.number)
        if last_block.number == block.number and last_block.hash != block.hash:
            raise TransientError(f"not yet: block {block.number} has another hash now", reason="disagreement")
        return found


def _raw(stream_id: str) -> bytes:
    """A stream id as it is on chain."""
    return stream_id.encode(errors="surrogateescape")


def _is_stream_id(stream_id: str) -> bool:
    """Whether a message could carry it: text, and not too long."""
    raw = _raw(stream_id)
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return 0 < len(raw) <= MAX_STREAM_ID_BYTES


def _publish_expiration(answer: Sequence[Any]) -> int:
    """Of Streamr's Permission: may edit, may delete, publish expiration, subscribe expiration, may grant."""
    permission: Sequence[Any] = answer[0]
    expiration: int = permission[2]
    return expiration


def _at(block: Block) -> dict[str, Any]:
    """EIP-1898: this very block, and only while it is on the chain."""
    return {"blockHash": "0x" + block.hash.hex(), "requireCanonical": True}


def _field(contract: str) -> str:
    """Of ``Contracts``: "NodeManager" → "node_manager"."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", contract).lower()


def _hex(address: bytes) -> str:
    return "0x" + address.hex()
