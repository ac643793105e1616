"""Brokers, as a consumer finds and asks them: by the chain's metadata, or where they are named.

What the chain names is hostile input: https, or what LOGSTORE_ALLOW_HTTP and LOGSTORE_ALLOW_NETS allow, as for a
validator; where the chain itself is on this machine, whatever is here too. Whom the caller names may be anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import msgspec

from logstore.errors import Denied
from validator.net.brokers.dialects import Tokens
from validator.net.http.client import Answer, BoundedClient, OpenAnswer
from validator.net.http.urls import ParsedUrl, check_url
from validator.protocol.codec import cbor
from validator.protocol.codec.answer import ANSWER_FIELDS, ANSWER_KIND, Request, write_text
from validator.protocol.codec.message import decode_message
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import ConfigError, MalformedInput, RemoteFault, TransientError, ValidatorError
from validator.protocol.model import Address

if TYPE_CHECKING:
    from logstore.paying import Payer
    from logstore.store import LogStore

FRAMES = "application/vnd.logstore.frames"
ROWS = 100_000
"""Messages of one request: then the same goes on behind its trailer."""
MAX_ANSWER_BYTES = 8 << 30
MAX_HEAD_BYTES = 64 << 10
ANSWER_S = 900.0
HEAD_S = 10.0
LAST_S = 60.0
MAX_LAST_BYTES = 1 << 30
ANSWER_HEAD = cbor.array_head(1 + ANSWER_FIELDS) + cbor.encode(ANSWER_KIND)
FLOOR_AFTER_S = 120.0
"""Who reads slowly is no fault of the broker's."""
_EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


class Http(Protocol):
    """The part of ``BoundedClient`` that is used."""

    def fetch(
        self,
        method: str,
        base: ParsedUrl,
        target: str,
        *,
        max_bytes: int,
        deadline_s: float,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> Answer: ...

    def stream(
        self,
        method: str,
        base: ParsedUrl,
        target: str,
        *,
        max_bytes: int,
        deadline_s: float,
        headers: Sequence[tuple[str, str]],
    ) -> AbstractContextManager[OpenAnswer]: ...


class Head(msgspec.Struct):
    """What a broker says of itself at /v1/head; other members are of no use here."""

    broker: str
    newest: int | None = None

    @property
    def address(self) -> Address:
        """Raises MalformedInput."""
        try:
            raw = bytes.fromhex(self.broker.removeprefix("0x"))
        except ValueError:
            raw = b""
        if len(raw) != 20:
            raise MalformedInput("head.broker", "not an address")
        return Address(raw)


@dataclass(frozen=True, slots=True)
class Place:
    """``address``: as the chain has it; None where the caller named the URL."""

    url: ParsedUrl
    address: Address | None = None


def find_places(
    store: LogStore, named: Iterable[str], environment: Mapping[str, str] = os.environ
) -> tuple[list[Place], BoundedClient]:
    """Whom to ask, and what to ask with. ``named``: URLs, or one as a text; none: those that the chain names.

    Raises:
        ConfigError: a URL that is none, or nobody to ask.
        TransientError, RemoteFault: the chain cannot be read.
    """
    if urls := [named] if isinstance(named, str) else list(named):
        return [Place(_check_named(url)) for url in urls], BoundedClient(
            allow_nets=_EVERYWHERE, floor_after_s=FLOOR_AFTER_S, user_agent="logstore"
        )
    is_here = store.sources.is_here
    allow_http = is_here or environment.get("LOGSTORE_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on")
    try:
        nets = [ip_network("127.0.0.0/8")] if is_here else []
        nets += [
            ip_network(net.strip()) for net in environment.get("LOGSTORE_ALLOW_NETS", "").split(",") if net.strip()
        ]
    except ValueError as error:
        raise ConfigError(f"LOGSTORE_ALLOW_NETS: {error}", field="allow_nets") from error
    places = []
    for node in store.reports.chain.fetch_nodes(store.reports.head):
        try:
            url = check_url(node.http_url or "", allow_http=allow_http, allow_nets=nets)
        except MalformedInput:
            continue  # names no broker, or one that nobody can ask
        places.append(Place(url, node.address))
    if not places:
        raise ConfigError("no staked node names a broker that may be asked: name one with --broker", field="broker")
    return places, BoundedClient(allow_nets=nets, floor_after_s=FLOOR_AFTER_S, user_agent="logstore")


def _check_named(url: str) -> ParsedUrl:
    try:
        return check_url(url, allow_http=True, allow_nets=_EVERYWHERE)
    except MalformedInput as error:
        raise ConfigError(f"--broker: {url!r}: {error.reason}", field="broker") from error


class Brokers:
    """Several brokers, one question at a time."""

    def __init__(self, places: Sequence[Place], http: Http, context: SigningContext, key: Signer | None = None) -> None:
        """``key``: the consumer's, for brokers that answer only who has a balance."""
        self.places = list(places)
        self._http = http
        self._tokens = None if key is None else Tokens(key, context)
        self._heads: dict[Place, Head] = {}

    def head(self, place: Place) -> Head:
        """Asked once.

        Raises:
            TransientError, RemoteFault: it does not answer, or not as who it is.
        """
        known = self._heads.get(place)
        if known is None:
            answer = self._http.fetch("GET", place.url, "/v1/head", max_bytes=MAX_HEAD_BYTES, deadline_s=HEAD_S)
            _require_ok(place, answer.status, answer.body)
            try:
                known = msgspec.json.decode(answer.body, type=Head)
            except msgspec.MsgspecError as error:
                raise MalformedInput("head", f"{place.url}: {str(error)[:200]}") from error
            if place.address not in (None, known.address):
                raise MalformedInput("head.broker", f"{place.url}: {known.broker}, not whom the chain names there")
            self._heads[place] = known
        return known

    def find_last(self, stream: str, partition: int, count: int) -> int | None:
        """Time of the first of the newest ``count`` messages, by the first broker that answers; None: it has none.

        Raises:
            TransientError, RemoteFault: no broker answers.
        """
        failure: ValidatorError = ConfigError("no broker is named", field="broker")
        target = f"/v1/streams/{quote(stream, safe='')}/partitions/{partition}/last?count={count}"
        for place in self.places:
            try:
                answer = self._http.fetch(
                    "GET",
                    place.url,
                    target,
                    max_bytes=MAX_LAST_BYTES,
                    deadline_s=LAST_S,
                    headers=[("Accept", FRAMES), *self._login(place)],
                )
                _require_ok(place, answer.status, answer.body)
                return _first_time(answer.body)
            except (TransientError, RemoteFault) as error:
                failure = error
        raise failure

    def pay(self, payer: Payer, place: Place, read_bytes: int) -> None:
        """For what was read at this place. Raises as ``Payer.pay``."""
        payer.pay(self._http, place, self.head(place).address, read_bytes)

    def _login(self, place: Place) -> list[tuple[str, str]]:
        if self._tokens is None:
            return []
        return [("Authorization", self._tokens.of(self.head(place).address))]

    @contextmanager
    def ask(self, place: Place, request: Request, as_of: int | None, after: bytes, proof: str) -> Iterator[OpenAnswer]:
        """A broker's answer as it streams. Raises TransientError, RemoteFault; also where it breaks off."""
        name = quote(request.stream_id, safe="")
        target = f"/v1/streams/{name}/partitions/{request.partition}/messages?from={request.from_ms}"
        target += f"&to={request.until_ms}&limit={ROWS}&asOf={'none' if as_of is None else as_of}&proof={proof}"
        target += f"&cursor={write_text(after)}" if after else ""
        headers = [("Accept", FRAMES), *self._login(place)]
        with self._http.stream(
            "GET", place.url, target, max_bytes=MAX_ANSWER_BYTES, deadline_s=ANSWER_S, headers=headers
        ) as answer:
            if answer.status != 200:
                _require_ok(place, answer.status, b"".join(answer.chunks)[:MAX_HEAD_BYTES])
            yield answer


def _first_time(body: bytes) -> int | None:
    """Of the first message of an answer; None: it has none. Raises MalformedInput."""
    size = int.from_bytes(body[:4], "big")
    first = body[4 : 4 + size]
    if not first or first.startswith(ANSWER_HEAD):
        return None
    return decode_message(first).timestamp_ms


def kind_of(status: int) -> type[TransientError | RemoteFault]:
    """Of an HTTP status that is no success."""
    if status in (408, 429, 500, 502, 503, 504):
        return TransientError
    return Denied if 400 <= status < 500 else RemoteFault


def _require_ok(place: Place, status: int, body: bytes) -> None:
    """Raises TransientError where the same may be answered in a while, Denied with the broker's reason, RemoteFault."""
    if status != 200:
        raise kind_of(status)(f"{place.url}: HTTP {status}: {reason_of(body)}", status=status, url=str(place.url))


def reason_of(body: bytes) -> str:
    """What a broker says of a status that is no success, safe to print."""
    try:
        said = str(msgspec.json.decode(body, type=dict[str, object]).get("error", ""))
    except msgspec.MsgspecError:
        said = ""
    return "".join(c if " " <= c <= "~" else "?" for c in said[:200]) or "no reason given"
