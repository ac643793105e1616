"""``check``, the network's part: gateways and wallet, versions, the committee and every peer in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from validator.net.arweave.storage import ArweaveStorage
from validator.operations.check_chain import FEW_UPLOADS, current_parameters
from validator.operations.findings import Finding, fail, ok, warn
from validator.ports.peers import Handshake
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.config import decode_config, name_difference
from validator.protocol.errors import ConfigError, MalformedInput, TransientError, ValidatorError
from validator.protocol.model import Address
from validator.protocol.parameters import PROTOCOL_VERSIONS
from validator.quantities import show_count
from validator.steps.cut_points import EpochConfig
from validator.steps.seat import Standing, describe_seat, find_seat, load_newest_state
from validator.wiring import Node, load_wallet

UPLOAD_BYTES = 16 << 20
"""Size of a bundle where none was sealed yet."""
HEIGHTS_APART = 10
CLOCK_MS = 5_000
"""A clock that is further off than this makes windows late."""
BLOCKS_BEHIND = 30


def check_gateways(node: Node) -> Iterator[Finding]:
    """Each gateway alone: that it answers, and that they agree on where the weave is."""
    heights: dict[str, int] = {}
    for url in node.settings.gateway_urls:
        storage = ArweaveStorage([url], None, reward_cap=node.settings.max_reward_winston)
        (gateway,) = storage.gateways
        host = gateway.host
        try:
            heights[host] = storage.fetch_height()
        except ValidatorError as error:
            yield fail("gateway", f"{host}: {error}")
        else:
            yield ok("gateway", f"{host}: height {heights[host]}")
        finally:
            storage.close()
    if len(node.settings.gateway_urls) < 2:
        yield warn("gateway", "one only: if it lies or drops data nobody contradicts it; two or more are advised")
    if heights and max(heights.values()) - min(heights.values()) > HEIGHTS_APART:
        yield warn("gateway", f"heights are {show_count(max(heights.values()) - min(heights.values()), 'block')} apart")


def check_wallet(node: Node) -> Iterator[Finding]:
    """The balance, in uploads of the size of the newest bundle."""
    wallet = load_wallet(node.settings)
    if wallet is None:
        return
    last = node.store.bundles.last_bundle()
    size = last.size if last is not None and last.size else UPLOAD_BYTES
    storage = ArweaveStorage(node.settings.gateway_urls, wallet, reward_cap=node.settings.max_reward_winston)
    try:
        tariff, balance = storage.fetch_tariff(), storage.fetch_balance()
    finally:
        storage.close()
    cap, price = node.settings.max_reward_winston, tariff.compute_price(size)
    if price > cap:
        yield fail("wallet", f"{size} bytes cost {price} winston, LOGSTORE_MAX_REWARD_WINSTON allows {cap}")
    left = max(0, balance // max(1, price) - node.store.bundles.count_open_uploads())
    text = f"{balance / 10**12:.6f} AR, {show_count(left, 'upload')} of {size} bytes; "
    text += f"a header costs {tariff.base} winston and {tariff.step} for each 256 KiB begun"
    yield fail("wallet", text) if left < 1 else warn("wallet", text) if left < FEW_UPLOADS else ok("wallet", text)


def check_named_wallet(node: Node) -> Iterator[Finding]:
    """The wallet that this member names on chain at the newest final block; without one its turns to upload pass."""
    config = load_current_config(node)
    if node.address not in config.committee:
        return
    state = node.context.chain.fetch_state(node.context.chain.fetch_finalised())
    wallet = load_wallet(node.settings)
    own = None if wallet is None else wallet.address
    named = {n.address: n.arweave for n in state.nodes if n.address in config.committee and n.arweave is not None}
    yield judge_named_wallet(node.address, own, named)


def judge_named_wallet(member: Address, own: bytes | None, named: Mapping[Address, bytes]) -> Finding:
    """``own``: address of the wallet in use, None where this process has none; ``named``: wallets by member."""
    found = named.get(member)
    must = 'the node\'s metadata must name it, {"arweave": "' + (encode_storage_id(own) if own else "<address>") + '"}'
    if found is None:
        return warn("uploader", f"no wallet is named on chain: our turns to upload pass; {must}")
    others = sorted(other for other, wallet in named.items() if wallet == found and other != member)
    if others:
        return warn(
            "uploader", f"0x{others[0].hex()} names the same wallet, so it is nobody's: our turns to upload pass"
        )
    if own is not None and own != found:
        return warn("uploader", f"another wallet is named on chain: our turns to upload pass; {must}")
    return ok("uploader", f"wallet {encode_storage_id(found)} is named on chain")


def check_versions(node: Node) -> Iterator[Finding]:
    """Every parameter set's protocol version is one that this release speaks; what comes is said from today on."""
    current = current_parameters(node.network)
    for parameters in node.network.sets:
        version = parameters.protocol_version
        if version in PROTOCOL_VERSIONS or parameters.first_epoch < current.first_epoch:
            continue
        spoken = ", ".join(str(v) for v in PROTOCOL_VERSIONS)
        text = f"from epoch {parameters.first_epoch} the network speaks version {version}, this release {spoken}"
        yield fail("version", f"{text}: upgrade") if parameters is current else warn("version", f"{text}: upgrade soon")
    if current.protocol_version in PROTOCOL_VERSIONS:
        yield ok("version", f"protocol {current.protocol_version}, as this release")


def load_current_config(node: Node) -> EpochConfig:
    """The running epoch, or the one that is nearest. Raises NotYet: the chain has not come that far."""
    network = node.network
    now_ms = max(node.clock.now_ms(), network.genesis_ms)
    epoch = network.epoch_at(now_ms) or network.epoch(network.sets[-1].first_epoch)
    if epoch is None:
        raise ConfigError("network file: no epoch", field="sets")
    return node.context.cut_points.epoch_config(epoch.number)


def check_membership(node: Node, config: EpochConfig) -> Iterator[Finding]:
    """Whether it votes, and if not, when or why not; of an observer, whether members answer it."""
    members = len(config.committee)
    seat = find_seat(node.context, node.address, load_newest_state(node.context), observer=node.settings.observer)
    text = describe_seat(seat, node.clock.now_ms())
    if not members:
        yield fail("committee", f"{text}: nobody can agree on anything")
    elif node.settings.observer and seat.standing is Standing.STRANGER:
        yield fail("committee", f"{text}; stake it: logstore-validator stake, then delegate")
    elif seat.standing is Standing.MEMBER or node.settings.observer:
        yield ok("committee", text)
    elif seat.standing is Standing.JOINING:
        yield warn("committee", text)
    else:
        yield warn("committee", f"{text}; logstore-validator check --join says what is missing")
    if members < 4:
        yield warn("committee", f"with {show_count(members, 'member')} not one may be faulty")


def check_peers(node: Node, config: EpochConfig) -> Iterator[Finding]:
    """A handshake with every member at once: reachable, same configs, same time, same chain."""
    others = [member for member in config.committee if member != node.address]
    own = node.peer_service.handshake(None)
    with ThreadPoolExecutor(max(1, min(16, len(others)))) as pool:
        for member, answer in zip(others, pool.map(lambda m: _ask(node, m), others), strict=True):
            name = f"peer 0x{member.hex()}"
            if isinstance(answer, ValidatorError):
                yield warn(name, str(answer)) if isinstance(answer, TransientError) else fail(name, str(answer))
            else:
                yield from compare_handshakes(name, own, answer, node.clock.now_ms())


def compare_handshakes(name: str, own: Handshake, other: Handshake, now_ms: int) -> Iterator[Finding]:
    """What differs between us and a peer, by the name of the field; ``now_ms``: when the answer came."""
    if not set(own.versions) & set(other.versions):
        spoken = ", ".join(str(v) for v in other.versions)
        yield fail(name, f"speaks protocol versions {spoken or 'none'}, we none of them")
        return
    problems = 0
    for difference in config_differences(own, other):
        problems += 1
        yield fail(name, difference)
    off_ms = other.now_ms - now_ms
    if abs(off_ms) > CLOCK_MS:
        problems += 1
        yield warn(name, f"its clock is {abs(off_ms) / 1000:.1f} s {'ahead of' if off_ms > 0 else 'behind'} ours")
    if own.head and other.head and abs(own.head - other.head) > BLOCKS_BEHIND:
        problems += 1
        word = "ahead of" if other.head > own.head else "behind"
        yield warn(name, f"its newest block is {abs(own.head - other.head)} {word} ours")
    if not problems:
        yield ok(name, f"same {min(len(own.configs), len(other.configs))} configs, clock {off_ms:+d} ms")


def config_differences(own: Handshake, other: Handshake) -> Iterator[str]:
    """One sentence per epoch whose config is not the same on both sides."""
    mine = {config.epoch: config for config in map(decode_config, own.configs)}
    for number, preimage in enumerate(other.configs[:1000]):
        try:
            theirs = decode_config(preimage)
        except MalformedInput as error:
            yield f"config {number} does not parse: {error}"
            continue
        ours = mine.get(theirs.epoch)
        difference = name_difference(ours, theirs) if ours is not None else ""
        if difference:
            yield f"config of epoch {theirs.epoch} differs in {difference}"


def _ask(node: Node, member: Address) -> Handshake | ValidatorError:
    try:
        return node.peers.handshake(member)
    except ValidatorError as error:
        return error
