"""What the database does not know: our seat, which peers answer, what the keys hold on chain. Looked at now and then by
a thread of the server, so that no page waits for a neighbour."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from validator.durations import show_span
from validator.log import get_logger
from validator.net.signer.source import shown_address
from validator.outages import Outage
from validator.protocol.errors import ValidatorError
from validator.protocol.model import Address, ChainState
from validator.redis_link import RedisAway, RedisLink, count_messages, make_redis_link
from validator.server.causes import Cause, CauseFound, find_causes
from validator.steps.seat import Seat, Standing, describe_seat, find_seat, load_newest_state
from validator.wiring import Node

log = get_logger(__name__)

BALANCES_S = 60.0
CAUSE_BEGAN = "cause.began"
ASKED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class PeerSeen:
    """One member at the last handshake; ``clock_ms``: how far its clock is ahead of ours, None where it is silent."""

    address: Address
    name: str
    clock_ms: int | None
    head: int
    error: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One look. ``balances``: of keys that this process knows, and the node's stake, in base units of their coin.
    ``queues``: messages that wait in each, None where Redis does not answer."""

    seat: Seat | None = None
    names: Mapping[Address, str] = field(default_factory=dict)
    peers: tuple[PeerSeen, ...] = ()
    balances: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, int] | None = None
    seen_ms: int = 0

    @property
    def reachable(self) -> int:
        return sum(peer.clock_ms is not None for peer in self.peers)


class Lookout:
    """Looks; ``newest`` is what it saw last. Its own failures are said once each and end nothing."""

    def __init__(self, node: Node, count: Callable[[RedisLink], Mapping[str, int]] = count_messages) -> None:
        self._count = count
        self.newest = Surroundings()
        self._node = node
        self._balances_due_s = 0.0
        self._said = ""
        self._told: dict[tuple[Cause, str], CauseFound] = {}
        self._outages: dict[Address, Outage] = {}

    def __call__(self, beat: Callable[[], None]) -> None:
        beat()
        self._tell_causes()
        node = self._node
        queues = self._measure_queues()
        self.newest = replace(self.newest, queues=queues, seen_ms=node.clock.now_ms())
        try:
            newest = load_newest_state(node.context)
            seat = find_seat(node.context, node.address, newest, observer=node.settings.observer)
        except ValidatorError as error:
            log.debug("seat.unknown", reason=str(error))
            return
        self._say(seat)
        urls = node.peer_service.members()
        names = {member: urlsplit(urls[member]).netloc for member in urls}
        peers = tuple(self._ask(member for member in seat.members if member != node.address))
        peers = tuple(replace(peer, name=names.get(peer.address, "")) for peer in peers)
        self.tell_silent(peers)
        self.newest = Surroundings(seat, names, peers, self._look_at_balances(newest), queues, node.clock.now_ms())

    def _say(self, seat: Seat) -> None:
        """Each change of standing once: a WARNING where it takes no part though it is meant to."""
        said = f"{seat.standing} {seat.reason} {seat.changes_epoch}"
        if said == self._said:
            return
        self._said = said
        is_well = seat.standing is not Standing.STRANGER and (seat.observer or seat.standing is not Standing.FOLLOWER)
        tell = log.info if is_well else log.warning
        tell("seat.found", standing=seat.standing.value, text=describe_seat(seat, self._node.clock.now_ms()))

    def _ask(self, members: Iterable[Address]) -> Iterable[PeerSeen]:
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            return list(pool.map(self._shake_hands, members))

    def _shake_hands(self, member: Address) -> PeerSeen:
        try:
            answer = self._node.peers.handshake(member)
        except ValidatorError as error:
            return PeerSeen(member, "", None, 0, str(error))
        return PeerSeen(member, "", answer.now_ms - self._node.clock.now_ms(), answer.head, "")

    def tell_silent(self, peers: Iterable[PeerSeen]) -> None:
        """Each member once when it stops to answer, and once when it answers again."""
        for peer in peers:
            outage = self._outages.setdefault(peer.address, Outage("peer", member=peer.address, at=peer.name))
            if peer.clock_ms is None:
                outage.failed(peer.error)
            else:
                outage.worked()

    def _tell_causes(self) -> None:
        """Each cause once when it begins, by the name it has everywhere, and once when it has ended."""
        try:
            found = {(cause.name, cause.what): cause for cause in find_causes(self._node.view.load_status(1))}
        except ValidatorError as error:
            log.debug("causes.unknown", reason=str(error))
            return
        for key, cause in found.items():
            if key not in self._told:
                log.warning(CAUSE_BEGAN, cause=cause.name.value, text=cause.text, since_ms=cause.since_ms)
        for key in self._told.keys() - found.keys():
            told = self._told[key]
            lasted_ms = self._node.clock.now_ms() - told.since_ms
            log.info("cause.ended", cause=told.name.value, what=told.what, lasted=show_span(lasted_ms))
        self._told = found

    def _measure_queues(self) -> Mapping[str, int] | None:
        try:
            return self._count(make_redis_link(self._node.settings))
        except RedisAway as error:
            log.debug("redis.away", reason=str(error))
            return None

    def _look_at_balances(self, newest: ChainState | None) -> Mapping[str, int]:
        if time.monotonic() < self._balances_due_s:
            return self.newest.balances
        self._balances_due_s = time.monotonic() + BALANCES_S
        chain, found = self._node.chain, dict(self.newest.balances)
        if newest is not None:
            own = [node.stake for node in newest.nodes if node.address == self._node.address]
            found["stake"] = sum(own)
        fetches = {"gas": chain.fetch_native_balance, "query": chain.fetch_query_balance}
        for purpose, fetch in fetches.items():
            try:
                address = _address_of(self._node, purpose)
                if address is not None:
                    found[purpose] = fetch(address)
            except ValidatorError as error:
                log.debug("balance.unknown", purpose=purpose, reason=str(error))
        return found


def _address_of(node: Node, purpose: str) -> Address | None:
    """As the key's file shows it, without a password; None where the key is another process's."""
    settings = node.settings
    return shown_address(settings.key_text(purpose), purpose) if settings.has_secret(purpose) else None
