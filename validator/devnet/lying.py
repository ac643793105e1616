"""A broker that lies, in one way, to consumers and to other brokers: what ``--lying-broker`` puts into a broker.

| Kind | To consumers who want proof | Refused as | To other brokers | Caught as |
|---|---|---|---|---|
| omits | leaves messages out | answer window | takes messages and keeps them not | withheld |
| adds | adds one that nobody signed | message.signature | passes such on | forged |
| reorders | swaps two | order | its roots are over swapped messages | out-of-order |
| truncates | ends too early, and says that it is whole | answer window | serves half of what it names | not-held |
| stale | answers as of an older bundle | trailer.asOf | says the same heartbeat for ever | stale |
| wrong-root | signs another root | trailer.root | claims roots of nothing | wrong-root |
| borrows | signs for another broker | trailer.claims | claims what another holds, and holds nothing | not-held |

Everything that it says it signs with its own key, as whoever had changed the program would. For consumers only what
comes with a proof is changed: validators get what it has, since the run's check counts what was where. The tests ask
the same liars.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from validator.broker.evidence import Lie
from validator.broker.passing_store import PassingStore
from validator.broker.slices import SliceSums
from validator.devnet.plan import LyingKind
from validator.net.mutual import wire
from validator.net.signed.pages import MAX_LEAVES, decode_page, encode_page
from validator.ports.message_store import MessageStore
from validator.protocol.codec import cbor
from validator.protocol.codec.answer import (
    ANSWER_FIELDS,
    ANSWER_KIND,
    Answer,
    Claim,
    decode_answer,
    encode_answer,
    sign_answer,
)
from validator.protocol.codec.frames import split_frames, write_frame
from validator.protocol.codec.heads import KIND
from validator.protocol.codec.heartbeat import Heartbeat, heartbeat_of
from validator.protocol.codec.message import make_record, record_from_canonical
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.codec.slice_claim import SliceClaim, encode_claim, sign_claim
from validator.protocol.codec.statement import SigningContext
from validator.protocol.hashing import sha256
from validator.protocol.merkle import compute_root
from validator.protocol.model import Address, Digest, Record, Root, SignatureType, StreamPart
from validator.protocol.slices import SLICE_MS, PartSum, Sum, cut, sum_parts

Objects = list[bytes]
ONE_IN = 10
FORGED = b'{"forged":true}'
GARBAGE = Root(b"\x66" * 32)
_MESSAGE = cbor.encode(KIND)
_ANSWER = cbor.array_head(1 + ANSWER_FIELDS) + cbor.encode(ANSWER_KIND)


class Catch(NamedTuple):
    """How a kind is caught: the field that a consumer's refusal names (its beginning), and what brokers call it."""

    field: str
    lie: Lie


CAUGHT = {
    LyingKind.OMITS: Catch("answer window", Lie.WITHHELD),
    LyingKind.ADDS: Catch("message.signature", Lie.FORGED),
    LyingKind.REORDERS: Catch("order", Lie.OUT_OF_ORDER),
    LyingKind.TRUNCATES: Catch("answer window", Lie.NOT_HELD),
    LyingKind.STALE: Catch("trailer.asOf", Lie.STALE),
    LyingKind.WRONG_ROOT: Catch("trailer.root", Lie.WRONG_ROOT),
    LyingKind.BORROWS: Catch("trailer.claims", Lie.NOT_HELD),
}


@dataclass
class Liar:
    """``others``: addresses of the other brokers, for whom it may sign."""

    kind: LyingKind
    key: Signer
    context: SigningContext
    others: Callable[[], Sequence[Address]]

    def __post_init__(self) -> None:
        self._first: Heartbeat | None = None
        self._borrowed: Heartbeat | None = None

    # --- to consumers

    def change_answer(self, objects: Objects) -> Objects:
        """The objects of a whole answer, trailer last; signed again."""
        if not objects or not objects[-1].startswith(_ANSWER):
            return objects
        answer = decode_answer(objects[-1])
        changed, told = _CHANGES[self.kind](self, objects[:-1], answer)
        return [*changed, encode_answer(sign_answer(told, self.key, self.context))]

    def _omit(self, objects: Objects, answer: Answer) -> tuple[Objects, Answer]:
        messages = [n for n, data in enumerate(objects) if is_message(data)]
        return self._fit([data for n, data in enumerate(objects) if n not in messages[::ONE_IN]], answer)

    def _add(self, objects: Objects, answer: Answer) -> tuple[Objects, Answer]:
        for number, data in enumerate(objects):
            if is_message(data) and (forged := forge(record := record_from_canonical(data))) is not None:
                pair = sorted((record, forged), key=lambda r: r.order)
                objects[number : number + 1] = [one.canonical for one in pair]
                break
        return self._fit(objects, answer)

    def _reorder(self, objects: Objects, answer: Answer) -> tuple[Objects, Answer]:
        first, second = [n for n, data in enumerate(objects) if is_message(data)][:2] or (0, 0)
        objects[first], objects[second] = objects[second], objects[first]
        return self._fit(objects, answer)

    def _truncate(self, objects: Objects, answer: Answer) -> tuple[Objects, Answer]:
        messages = [n for n, data in enumerate(objects) if is_message(data)]
        left = set(messages[len(messages) // 2 :])
        return self._fit([data for n, data in enumerate(objects) if n not in left], replace(answer, next=b""))

    def _age(self, objects: Objects, answer: Answer) -> tuple[Objects, Answer]:
        return objects, replace(answer, as_of=answer.as_of - 1 if answer.as_of else None)

    def _misstate(self, objects: Objects, answer: Answer) -> tuple[Objects, Answer]:
        return objects, replace(answer, root=GARBAGE)

    def _borrow(self, objects: Objects, answer: Answer) -> tuple[Objects, Answer]:
        r = answer.request
        own = SliceClaim(
            self.key.address, r.stream_part, r.from_ms, r.until_ms, answer.count, answer.root, answer.time_ms
        )
        signed = sign_claim(own, self.key, self.context)
        claims = tuple(Claim(other, encode_claim(replace(signed, broker=other))) for other in self.others())
        return objects, replace(answer, claims=claims)

    def _fit(self, objects: Objects, answer: Answer) -> tuple[Objects, Answer]:
        """A trailer that fits the messages, as the program itself would write it."""
        records = [record_from_canonical(data) for data in objects if is_message(data)]
        root, size = compute_root([record.leaf for record in records]), sum(r.signed_bytes for r in records)
        return objects, replace(answer, count=len(records), signed_bytes=size, root=root)

    # --- what arrives

    def keeps(self, record: Record) -> bool:
        """Whether it stores what it says that it has stored."""
        if self.kind is LyingKind.BORROWS:
            said = heartbeat_of(record.message)
            if said is not None and said[0] != self.key.address:
                self._borrowed = said[1]
            return False
        return self.kind is not LyingKind.OMITS or record.leaf[0] >= 256 // ONE_IN

    def kept(self, records: Sequence[Record]) -> list[Record]:
        """What of these it stores, and what it adds to them."""
        found = [record for record in records if self.keeps(record)]
        if self.kind is LyingKind.ADDS:
            twins = [forge(record) for record in found if record.leaf[0] < 256 // ONE_IN]
            found += [twin for twin in twins if twin is not None]
        return found

    # --- to brokers

    def say(self, own: Heartbeat) -> Heartbeat:
        """What it says that it holds, once a second."""
        if self.kind is LyingKind.STALE:
            self._first = self._first or own
            return self._first
        if self.kind is LyingKind.BORROWS and self._borrowed is not None:
            return replace(own, recent=self._borrowed.recent, kept=self._borrowed.kept)
        if self.kind in _ROOTS:
            return replace(own, recent=_misread(own.recent), kept=_misread(own.kept))
        return own

    def perform(
        self, path: str, body: bytes, honest: Callable[[], bytes], store: MessageStore, sums: SliceSums
    ) -> bytes:
        """An answer to a broker, over what it holds. Raises what the honest one does."""
        if self.kind is LyingKind.TRUNCATES and path == wire.BODIES:
            page = decode_page(honest(), MAX_LEAVES)
            return encode_page(page[: len(page) // 2])
        if self.kind not in _ROOTS:
            return honest()
        if path == wire.SUMS:
            slices = {start for start, length in cut(*wire.decode_span(body)) if length == SLICE_MS}
            said = wire.decode_sums(honest())
            return wire.encode_sums(
                sum_parts(s.start_ms, self._claim(s.start_ms, store, sums)) if s.start_ms in slices else _misread(s)
                for s in said
            )
        if path == wire.PARTS:
            asked = wire.decode_slices(body)
            return wire.encode_parts({start: self._claim(start, store, sums) for start in asked})
        if path == wire.LEAVES and self.kind is LyingKind.REORDERS:
            part, start, _ = wire.decode_listing(body)
            return b"".join(_swapped(store, part, start))
        return honest()

    def _claim(self, start: int, store: MessageStore, sums: SliceSums) -> list[PartSum]:
        """Of the partitions of a slice; those of one message have but one order."""
        if self.kind is LyingKind.WRONG_ROOT:
            return [replace(p, root=GARBAGE) for p in sums.parts(start)]
        return [replace(p, root=compute_root(_swapped(store, p.part, start))) for p in sums.parts(start)]


_ROOTS = frozenset({LyingKind.REORDERS, LyingKind.WRONG_ROOT})
_CHANGES = {
    LyingKind.OMITS: Liar._omit,
    LyingKind.ADDS: Liar._add,
    LyingKind.REORDERS: Liar._reorder,
    LyingKind.TRUNCATES: Liar._truncate,
    LyingKind.STALE: Liar._age,
    LyingKind.WRONG_ROOT: Liar._misstate,
    LyingKind.BORROWS: Liar._borrow,
}


def is_message(data: bytes) -> bool:
    return data[1:].startswith(_MESSAGE)


def forge(record: Record) -> Record | None:
    """The same message with another content under its signature; None where only a contract could say that it is none,
    or it says this already."""
    message = record.message
    if message.signature_type is SignatureType.ERC_1271 or message.content == FORGED:
        return None
    return make_record(msgspec.structs.replace(message, content=FORGED))


def _swapped(store: MessageStore, part: StreamPart, start: int) -> list[Digest]:
    """Leaves that are held of a partition in a slice, the first two in each other's place."""
    leaves = [leaf for page in store.keys(part, start, start + SLICE_MS) for _, leaf in page]
    return leaves[1::-1] + leaves[2:]


def _misread(total: Sum) -> Sum:
    return replace(total, root=Root(sha256(total.root).digest())) if total.count else total


class LyingStore(PassingStore):
    """Where what arrives goes: what the liar keeps of it is stored, and nobody hears of the rest."""

    def __init__(self, store: MessageStore, liar: Liar) -> None:
        super().__init__(store)
        self._liar = liar

    def insert(self, records: Sequence[Record], arrived_ms: int) -> int:
        return super().insert(self._liar.kept(records), arrived_ms)


class LyingApp:
    """The public paths, with answers changed where a consumer asked for proof."""

    def __init__(self, app: ASGIApp, liar: Liar) -> None:
        self._app = app
        self._liar = liar

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"")
        if scope["type"] != "http" or not (b"proof=full" in query or b"proof=commitment" in query):
            await self._app(scope, receive, send)
            return
        began: list[Message] = []
        body = bytearray()

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                began.append(message)
            else:
                body.extend(message.get("body", b""))

        await self._app(scope, receive, hold)
        said = bytes(body)
        if began and began[0]["status"] == 200:
            said = b"".join(map(write_frame, self._liar.change_answer(list(split_frames(said, len(said))))))
        for message in began:
            named = [(name, value) for name, value in message["headers"] if name != b"content-length"]
            await send({**message, "headers": named})
        await send({"type": "http.response.body", "body": said})
