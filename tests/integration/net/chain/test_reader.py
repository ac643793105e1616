"""What a validator reads of the contracts: by block hash, from a real node."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests import paths, servers
from tests.builders import a_key, a_p256_message
from tests.contract_network import BROKER_STAKE, CONFIG, ContractNetwork
from validator.devnet.contracts import WEI, NodeSetup, StreamSetup, create_address
from validator.net.chain.reader import ChainReader
from validator.net.chain.store_index import MemoryIndex, StoreList
from validator.ports.chain import Chain
from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.codec.secp256k1 import CURVE_ORDER
from validator.protocol.errors import ConfigError, RemoteFault, TransientError
from validator.protocol.model import Account, Address, Block, Digest
from validator.store.database import migrate, open_database
from validator.store.facade import SqlStore
from validator.store.segments import SegmentStore
from validator.wiring import SystemClock, _StoreIndex

VECTORS = paths.VECTORS


def test_the_reader_fulfils_the_port(reader: ChainReader) -> None:
    port: Chain = reader
    assert port.fetch_head().number >= port.fetch_finalised().number + 2


def test_a_state_holds_staked_nodes_and_funded_stores(network: ContractNetwork, reader: ChainReader) -> None:
    state = reader.fetch_state(reader.fetch_head())
    assert [n.address for n in state.nodes] == sorted(k.address for k in network.validators + network.brokers)
    assert {n.stake for n in state.nodes} == {BROKER_STAKE}
    assert {n.address for n in state.brokers} == {k.address for k in network.brokers}
    assert sum(n.validator_url is not None for n in state.nodes) == 4
    assert [s.stream_id for s in state.stores] == network.streams
    assert {s.balance for s in state.stores} == {1_000 * WEI}
    assert state.system_stream == f"0x{network.chain.address_of('NodeManager').hex()}/system"


def test_a_state_is_that_of_its_block_whatever_came_after(network: ContractNetwork, reader: ChainReader) -> None:
    before = reader.fetch_head()
    first = reader.fetch_state(before)
    stream = f"{network.streams[0]}-later"
    network.chain.create_streams([StreamSetup(stream, 7, partitions=9)])
    network.chain.register_nodes([NodeSetup(a_key(800), a_key(801), WEI, "http://127.0.0.1:9000")])
    network.chain.register_nodes([NodeSetup(a_key(802), a_key(803), WEI - 1, "http://127.0.0.1:9001")])
    after = reader.fetch_state(reader.fetch_head())
    assert next(s for s in after.stores if s.stream_id == stream).partitions == 9
    added = {n.address for n in after.nodes} - {n.address for n in first.nodes}
    assert added == {a_key(800).address}  # 802 is below the stake that is required
    assert reader.fetch_state(before) == first


def test_more_nodes_and_stores_than_fit_one_page_are_all_read(chain_url: str, network: ContractNetwork) -> None:
    snapshot = network.chain.call_rpc("evm_snapshot")
    prefix = f"0x{a_key(1).address.hex()}/many"
    network.chain.create_streams([StreamSetup(f"{prefix}-{i:03}", i + 1, partitions=i % 7 + 1) for i in range(230)])
    network.chain.register_nodes([NodeSetup(a_key(10_000 + i), a_key(1), WEI, f"http://h{i}") for i in range(110)])
    deployment = network.chain.deployment
    reader = ChainReader([chain_url], deployment.contracts, deployment_block=deployment.block, log_range=2)
    state = reader.fetch_state(reader.fetch_head())
    assert len([n for n in state.nodes if n.http_url and n.http_url.startswith("http://h")]) == 110
    many = [s for s in state.stores if s.stream_id.startswith(prefix)]
    assert [(s.balance, s.partitions) for s in many] == [(i + 1, i % 7 + 1) for i in range(230)]
    reader.close()
    network.chain.call_rpc("evm_revert", snapshot)
    network.chain.forget_nonces()


def test_hostile_metadata_and_stream_ids_hide_nothing_else(chain_url: str, network: ContractNetwork) -> None:
    from validator.net.chain.abi import interface

    snapshot = network.chain.call_rpc("evm_snapshot")
    key = a_key(820)
    network.chain.register_nodes([NodeSetup(key, a_key(821), WEI, "http://x")])
    upsert, create, stake = (
        interface(c).function(f)
        for c, f in (
            ("NodeManager", "upsertNode"),
            ("StreamRegistry", "createStreamWithENS"),
            ("StoreManager", "stake"),
        )
    )

    def text(raw: bytes) -> bytes:
        return len(raw).to_bytes(32, "big") + raw.ljust((len(raw) + 31) // 32 * 32, b"\0")

    def word(number: int) -> bytes:
        return number.to_bytes(32, "big")

    broken = b"\xff\xfe"
    network.chain.transact_raw(key, "NodeManager", upsert.selector + word(32) + text(broken))
    owner = a_key(1)
    network.chain.transact_raw(
        owner,
        "StreamRegistry",
        create.selector + word(96) + word(160) + word(224) + text(broken) + text(b"/x") + text(broken),
    )
    network.chain.transact_raw(owner, "StoreManager", stake.selector + word(64) + word(5) + text(broken + b"/x"))
    deployment = network.chain.deployment
    reader = ChainReader([chain_url], deployment.contracts, deployment_block=deployment.block)
    state = reader.fetch_state(reader.fetch_head())
    node = next(n for n in state.nodes if n.address == key.address)
    assert (node.http_url, node.validator_url) == (None, None)
    assert set(network.streams) <= {s.stream_id for s in state.stores}
    reader.close()
    network.chain.call_rpc("evm_revert", snapshot)
    network.chain.forget_nonces()


def test_the_store_index_keeps_what_lies_in_final_blocks(chain_url: str, network: ContractNetwork) -> None:
    deployment = network.chain.deployment
    index = MemoryIndex()
    reader = ChainReader([chain_url], deployment.contracts, deployment_block=deployment.block, index=index)
    head = reader.fetch_head()
    reader.fetch_state(head)
    kept = index.load()
    assert kept is not None
    assert kept.upto == reader.fetch_finalised().number < head.number
    assert set(network.streams) <= kept.stream_ids
    index.save(StoreList(kept.upto, kept.stream_ids | {"never stored"}))
    assert "never stored" not in {s.stream_id for s in reader.fetch_state(head).stores}
    reader.close()


def test_stores_below_the_smallest_balance_are_left_out(chain_url: str, network: ContractNetwork) -> None:
    deployment = network.chain.deployment
    reader = ChainReader(
        [chain_url], deployment.contracts, deployment_block=deployment.block, min_balance=1_000 * WEI + 1
    )
    assert reader.fetch_state(reader.fetch_head()).stores == ()
    reader.close()


def test_publish_permission_is_the_registrys(network: ContractNetwork, reader: ChainReader) -> None:
    public = f"{network.streams[0]}-public"
    network.chain.create_streams([StreamSetup(public, 1, public=True)])
    head = reader.fetch_head()
    publisher, stranger = a_key(300).address, a_key(999).address
    assert reader.fetch_publish_permission(network.streams[0], publisher, head) is True
    assert reader.fetch_publish_permission(network.streams[0], stranger, head) is False
    assert reader.fetch_publish_permission(network.streams[0], a_key(1).address, head) is True  # who created it
    assert reader.fetch_publish_permission(public, stranger, head) is True
    assert reader.fetch_publish_permission("no such stream", publisher, head) is False
    pairs = [(s, a) for s in (*network.streams, public) for a in (publisher, stranger)]
    assert list(reader.fetch_publish_permissions(pairs, head).values()).count(True) == 5


@pytest.mark.parametrize("size", [0, 1, 19, 20, 21, 32, 33, 65, 2592, 20_000])
def test_a_publisher_may_be_a_key_of_any_length(network: ContractNetwork, reader: ChainReader, size: int) -> None:
    """@streamr/sdk 103 publishes under P-256 keys of 33 or 65 bytes and ML-DSA keys of 2592, as under addresses."""
    publisher, other = b"\x04" * size, b"\x05" * (size + 1)
    stream = f"{network.streams[0]}-of-{size}"
    network.chain.create_streams([StreamSetup(stream, 0, publishers=(publisher,))])
    head = reader.fetch_head()
    assert reader.fetch_publish_permissions([(stream, publisher), (stream, other)], head) == {
        (stream, publisher): True,
        (stream, other): False,
    }


@pytest.mark.parametrize("name", ["p256", "p256-uncompressed", "mldsa87"])
def test_publishers_of_the_client_are_permitted_by_their_user_id(
    network: ContractNetwork, reader: ChainReader, name: str
) -> None:
    """Messages that @streamr/sdk 103 signed: their publisher is the user id that the stream's owner permits."""
    published = read_protobuf(bytes.fromhex((VECTORS / f"sdk103-{name}.hex").read_text()))
    stream = f"{network.streams[0]}-{name}"
    network.chain.create_streams([StreamSetup(stream, 0)])
    before = reader.fetch_head()
    permit = (stream, [published.publisher_id], [(False, False, 2**256 - 1, 0, False)])
    network.chain.transact(a_key(1), "StreamRegistry", "setPermissionsForUserIds", *permit)
    after = reader.fetch_head()
    asked = [reader.fetch_publish_permission(stream, published.publisher_id, block) for block in (before, after)]
    assert asked == [False, True]


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        ("/", ""),
        ("//x/", ""),
        ("/a-b.c_D/9", ""),
        ("/" + "x" * 5000, ""),
        ("", "Panic(0x32)"),
        ("x", "error_pathMustStartWithSlash"),
        ("/a\x00b", "error_invalidPathChars"),
        ("/ü", "error_invalidPathChars"),
        ("/a b", "error_invalidPathChars"),
        ("/a#0", "error_invalidPathChars"),
    ],
)
def test_the_registrys_own_rule_for_paths(network: ContractNetwork, path: str, refusal: str) -> None:
    said = network.refusal_of("StreamRegistry", "createStream", path, "{}", sender=a_key(1))
    assert said == refusal


ODD_NAMES = ("a\x00b.eth", "\x00", "", "データ.eth", "A.ETH", "#\n\u2028'\"%s", "\U0010ffff" * 63)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_stream_of_any_name_is_read_and_kept_on_both_engines(
    chain_url: str, network: ContractNetwork, engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What stands before the first slash is not the registry's to judge: a name may hold any characters."""
    snapshot = network.chain.call_rpc("evm_snapshot")
    streams = {f"{name}/x": 5 + number for number, name in enumerate(ODD_NAMES)}
    key = a_p256_message().publisher_id
    network.chain.create_streams([StreamSetup(s, balance, 7, publishers=(key,)) for s, balance in streams.items()])
    url = f"sqlite:///{tmp_path}/v.sqlite" if engine == "sqlite" else request.getfixturevalue("postgres_url")
    migrate(url)
    database = open_database(url)
    store = SqlStore(database, SegmentStore(str(tmp_path / "sets")), SystemClock())
    deployment = network.chain.deployment
    network.chain.mine(3)
    for _ in range(2):  # the second reader begins with the index that the first has left
        index = _StoreIndex(store)
        reader = ChainReader([chain_url], deployment.contracts, deployment_block=deployment.block, index=index)
        head = reader.fetch_head()
        state = reader.fetch_state(head)
        assert {s.stream_id: (s.balance, s.partitions) for s in state.stores if s.stream_id in streams} == {
            stream: (balance, 7) for stream, balance in streams.items()
        }
        store.chain.save_state(state)
        assert store.chain.load_state(head.hash) == state
        asked = [(stream, key) for stream in streams]
        permitted = reader.fetch_publish_permissions(asked, head)
        assert all(permitted.values())
        store.chain.save_permissions(head.hash, permitted)
        assert all(store.chain.load_permission(head.hash, *pair) for pair in asked)
        reader.close()
    loaded = store.chain.load_stores()
    assert loaded is not None
    assert set(streams) <= loaded[1]
    database.close()
    network.chain.call_rpc("evm_revert", snapshot)
    network.chain.forget_nonces()


def test_a_permission_ends_after_the_second_of_its_expiration(network: ContractNetwork, reader: ChainReader) -> None:
    chain, stream = network.chain, network.streams[1]
    owner, key = a_key(1), bytes(33)
    now = reader.fetch_head().timestamp_s
    chain.transact(
        owner, "StreamRegistry", "setPermissionsForUserIds", stream, [key], [(False, False, now + 100, 0, False)]
    )
    heads = []
    for at in (now + 99, now + 100, now + 101):
        chain.call_rpc("evm_setNextBlockTimestamp", at)
        chain.mine()
        heads.append(reader.fetch_head())
    assert [reader.fetch_publish_permission(stream, key, head) for head in heads] == [True, True, False]
    chain.transact(owner, "StreamRegistry", "setPublicPermission", stream, now + 10_000, 0)
    assert reader.fetch_publish_permission(stream, key, reader.fetch_head()) is True  # as anybody
    assert reader.fetch_publish_permission(stream, key, heads[2]) is False


def test_a_deleted_stream_permits_nobody_and_one_made_anew_only_whom_it_is_told(
    network: ContractNetwork, reader: ChainReader
) -> None:
    chain, owner, publisher = network.chain, a_key(1), a_key(300).address
    stream = f"{network.streams[0]}-gone"
    chain.create_streams([StreamSetup(stream, 5, partitions=7, publishers=(publisher,))])
    before = reader.fetch_head()
    chain.transact(owner, "StreamRegistry", "deleteStream", stream)
    deleted = reader.fetch_head()
    chain.transact(owner, "StreamRegistry", "createStream", "/" + stream.partition("/")[2], "{}")
    again = reader.fetch_head()
    asked = [reader.fetch_publish_permission(stream, publisher, block) for block in (before, deleted, again)]
    assert asked == [True, False, False]
    assert [
        [s.partitions for s in reader.fetch_state(block).stores if s.stream_id == stream]
        for block in (before, deleted, again)
    ] == [[7], [0], [1]]  # what was stored there can still be charged, and nothing is stored any more


def test_consumer_balances_are_those_of_the_block(network: ContractNetwork, reader: ChainReader) -> None:
    head = reader.fetch_head()
    unknown = a_key(998).address
    asked = [*network.consumers, unknown]
    known = {c: Account(1_000 * WEI, network.index_of_consumer(c)) for c in network.consumers}
    assert reader.fetch_consumers(asked, head) == {**known, unknown: Account(0, 0)}
    assert reader.fetch_consumers([], head) == {}
    network.chain.stake_consumers({unknown: 5})
    assert reader.fetch_consumers([unknown], head) == {unknown: Account(0, 0)}
    assert reader.fetch_consumers([unknown], reader.fetch_head())[unknown].balance == 5
    assert reader.fetch_query_balance(unknown) == 5
    assert reader.fetch_native_balance(a_key(1).address) > 0


def test_accepted_reports_and_the_config_are_read(network: ContractNetwork, reader: ChainReader) -> None:
    before = reader.fetch_head()
    assert reader.fetch_last_report() is None
    assert reader.fetch_report(0) is None
    report = network.next_report()
    receipt = network.submit(report)
    accepted = reader.fetch_last_report()
    assert accepted is not None
    assert (accepted.number, accepted.bundle_root, accepted.storage_id) == (0, report.bundle_root, report.storage_id)
    assert (accepted.report_digest, accepted.last_ms) == (network.digest(report), report.last_ms)
    assert accepted.block_number == reader.fetch_head().number
    assert f"0x{accepted.transaction.hex()}" == receipt["transactionHash"]
    assert reader.fetch_gas_used(accepted.transaction) == int(receipt["gasUsed"], 16)
    assert reader.fetch_gas_used(Digest(bytes(32))) is None
    assert reader.fetch_report(0) == accepted
    assert reader.fetch_report(1) is None
    assert reader.fetch_last_report(before) is None
    config = reader.fetch_config()
    assert (config.config_digest, config.config_count, config.next_number) == (CONFIG, 0, 1)
    assert config.committee == tuple(sorted(k.address for k in network.validators))


def test_cut_points_follow_the_chains_own_time(network: ContractNetwork, reader: ChainReader) -> None:
    start = reader.fetch_head()
    for _ in range(6):
        network.chain.call_rpc("evm_increaseTime", 10)
        network.chain.mine()
    final, head = reader.fetch_finalised(), reader.fetch_head()
    assert (head.number - final.number, head.timestamp_s - final.timestamp_s >= 20) == (2, True)
    assert reader.fetch_block_at(start.timestamp_s) == start
    assert reader.fetch_block_at(start.timestamp_s + 9) == start
    later = reader.fetch_block_at(final.timestamp_s - 1)
    assert later is not None
    assert later.number == final.number - 1
    assert reader.fetch_block_at(final.timestamp_s) is None
    network.chain.mine()
    assert reader.fetch_block_at(final.timestamp_s) == final


def test_a_block_that_was_replaced_cannot_be_read(network: ContractNetwork, reader: ChainReader) -> None:
    network.chain.mine()
    head = reader.fetch_head()
    network.chain.call_rpc("anvil_reorg", 1, [])
    network.chain.forget_nonces()
    with pytest.raises(TransientError):
        reader.fetch_state(head)
    with pytest.raises(TransientError):
        reader.fetch_state(Block(head.number, Digest(b"\1" * 32), head.timestamp_s))


def test_the_deployments_parent_names_the_network(network: ContractNetwork, reader: ChainReader) -> None:
    deployment = network.chain.deployment
    assert reader.fetch_parent_hash_of_deployment(deployment.block) == deployment.parent_hash


def _wallet_code() -> bytes:
    """Runtime: return the magic word for …01, revert for …02, loop for …03, return 32 zero bytes otherwise."""
    magic = bytes.fromhex("1626ba7e") + bytes(28)
    load = bytes.fromhex("60043560ff16")
    body_at = len(load) + 3 * 8 + 6
    code = bytearray(load)
    targets = {1: body_at, 2: body_at + 1 + 33 + 8, 3: body_at + 1 + 33 + 8 + 6}
    for value, target in targets.items():
        code += bytes([0x80, 0x60, value, 0x14, 0x60, target, 0x57, 0x5B])
    code += bytes.fromhex("60205ff35b5b")
    assert len(code) == body_at
    code += b"\x5b\x7f" + magic + bytes.fromhex("5f5260205ff35b5b")
    code += bytes.fromhex("5b5f5ffd5b5b")
    code += bytes([0x5B, 0x60, targets[3], 0x56])
    return bytes(code)


def test_contract_signatures_are_valid_only_by_the_magic_word(network: ContractNetwork, reader: ChainReader) -> None:
    wallet = Address(b"\x77" * 20)
    network.chain.call_rpc("anvil_setCode", "0x" + wallet.hex(), "0x" + _wallet_code().hex())
    network.chain.mine()
    head = reader.fetch_head()

    def valid(last: int, at: Address = wallet) -> bool:
        return reader.fetch_is_valid_signature(at, Digest(bytes(31) + bytes([last])), b"signature", head)

    assert [valid(last) for last in (1, 0, 2, 3)] == [True, False, False, False]
    assert valid(1, Address(b"\x78" * 20)) is False  # no code
    assert not any(valid(1, Address(n.to_bytes(20, "big"))) for n in (*range(0x13), 0x100))  # precompiled
    assert valid(1, network.chain.address_of("Token")) is False  # no such function


def test_check_finds_what_is_wrong(chain_url: str, network: ContractNetwork, reader: ChainReader) -> None:
    now = reader.fetch_head().timestamp_s
    assert reader.check(now) == [
        "rpc_urls: one source only, its word is taken; three of different operators are advised"
    ]
    assert any("apart" in warning for warning in reader.check(now + 100))
    contracts = network.chain.deployment.contracts
    with pytest.raises(ConfigError, match="the sources are chain 31337, the network 137"):
        ChainReader([chain_url], contracts, chain_id=137).check()
    with pytest.raises(ConfigError, match=r"contracts\.query_manager: no code"):
        ChainReader([chain_url], replace(contracts, query_manager=Address(b"\1" * 20))).check()


def test_another_contract_at_the_address_is_a_fault(chain_url: str, network: ContractNetwork) -> None:
    contracts = network.chain.deployment.contracts
    wrong = ChainReader([chain_url], replace(contracts, report_manager=contracts.token))
    with pytest.raises(RemoteFault, match="no contract of ours"):
        wrong.fetch_config()
    wrong.close()


def test_sources_on_different_chains_mean_not_yet_and_a_majority_decides(
    chain_url: str, network: ContractNetwork
) -> None:
    contracts = network.chain.deployment.contracts
    with servers.run_anvil("--timestamp", str(int(time.time()) + 5)) as other:
        for _ in range(3):
            _mine(other)
        two = ChainReader([chain_url, other], contracts)
        with pytest.raises(TransientError) as caught:
            two.fetch_head()
        assert caught.value.reason == "disagreement"
        three = ChainReader([chain_url, other, chain_url + "/"], contracts)
        head = three.fetch_head()
        assert head == ChainReader([chain_url], contracts).fetch_head()
        assert len(three.fetch_state(head).nodes) >= 7


def _mine(url: str) -> None:
    from validator.net.chain.jsonrpc import Request
    from validator.net.chain.rpc import Rpc

    rpc = Rpc([url])
    rpc.agree([Request("anvil_mine", ("0x1",), str)])
    rpc.close()


def test_a_wallet_of_the_development_network_agrees_to_its_owners_signature_and_to_no_other(
    network: ContractNetwork, reader: ChainReader
) -> None:
    owner, creator, stranger = a_key(811), a_key(812), a_key(813)
    network.chain.create_wallets([(creator, owner.address)])
    network.chain.mine(3)
    head = reader.fetch_head()
    wallet = create_address(creator.address, 0)
    digest = Digest(b"\x0d" * 32)
    true = owner.sign(digest)
    high = (CURVE_ORDER - int.from_bytes(true[32:64], "big")).to_bytes(32, "big")
    other_v = bytes([55 - true[64]])
    agreed = {
        "owner": true,
        "its other form": true[:32] + high + other_v,
        "a stranger": stranger.sign(digest),
        "of another text": owner.sign(Digest(b"\x0e" * 32)),
        "other recovery": true[:64] + other_v,
        "v of 0": true[:64] + bytes([true[64] - 27]),
        "too short": true[:64],
        "too long": true + b"\0",
        "nothing": b"",
        "zeros": bytes(65),
    }
    answers = {name: reader.fetch_is_valid_signature(wallet, digest, text, head) for name, text in agreed.items()}
    assert {name for name, answer in answers.items() if answer} == {"owner", "its other form"}
