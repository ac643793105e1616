"""What is done about slices that differ: compare, fetch, check, store, offer; and then hold the broker to its word.

After a session we know what the broker must hold: our leaves without those it lacks, with those it has more. Their root
must be the one it claimed. Where it is not, it is asked for the list behind that very root; a list that does not give
the root, a listed message that it cannot serve, a message that its earlier word had and its later has not: each is a
lie that its own signed words show. A claim of an honest broker may have changed between two questions; so what is no
contradiction in signed words is never counted as one.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from validator.broker.answers import Admit, load_records
from validator.broker.evidence import Lie
from validator.broker.talk import Caught, Difference, Run, Talk
from validator.net.mutual import wire
from validator.net.signed.client import Spoken
from validator.net.signed.pages import MAX_LEAVES
from validator.ports.message_store import MessageStore
from validator.protocol.codec import cbor
from validator.protocol.codec.message import decode_message, leaf_of_canonical
from validator.protocol.codec.slice_claim import SliceClaim, encode_claim
from validator.protocol.errors import TransientError
from validator.protocol.hashing import EMPTY_ROOT
from validator.protocol.model import Address, Digest, Reason, Record, SignatureType, StreamPart
from validator.protocol.omission import build_omission
from validator.protocol.slices import SLICE_MS, PartSum, sum_messages

SESSION_RECORDS = 50_000
"""Messages that one session compares, ours and theirs together; a slice that has more is a session of its own."""
VOUCHED_BYTES = 16 << 20
TAKEN = 50_000
TAKEN_MS = 30_000
"""Between taking a message and claiming it lie at most the closing of its slice and a heartbeat."""
REFUSED = 50_000
REFUSED_MS = 60_000
"""What was refused is not fetched again for so long: it may have been the chain that did not answer."""

Place = tuple[Address, int, StreamPart]


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a broker has shown to hold of a partition in a slice: its words, and the leaves behind the root in them."""

    said: Spoken
    sum: PartSum
    leaves: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """Words by which a broker has a message that it lacked later: at most two, and the time of the last."""

    words: tuple[Spoken, ...]
    at_ms: int


class Mending:
    """With all brokers. Belongs to one event loop; what takes a while runs through ``run``."""

    def __init__(
        self,
        store: MessageStore,
        admit: Admit,
        run: Run,
        now_ms: Callable[[], int],
        on_stored: Callable[[Record], None],
    ) -> None:
        self._store = store
        self._admit = admit
        self._run = run
        self._now_ms = now_ms
        self._on_stored = on_stored
        self._refused: OrderedDict[Digest, int] = OrderedDict()
        self._vouched: OrderedDict[Place, Vouched] = OrderedDict()
        self._vouched_bytes = 0
        self._taken: OrderedDict[tuple[Address, Digest], Taken] = OrderedDict()

    async def mend(
        self, talk: Talk, differences: Sequence[Difference], ours: dict[int, dict[StreamPart, PartSum]]
    ) -> None:
        """Slices that differ, in sessions over neighbours. ``ours``: our sums of the same slices."""
        for run in _sessions(differences, ours):
            await self._mend_run(talk, run, ours)

    async def _mend_run(
        self, talk: Talk, run: Sequence[Difference], ours: dict[int, dict[StreamPart, PartSum]]
    ) -> None:
        from_ms, until_ms = run[0].start_ms, run[-1].start_ms + SLICE_MS
        parts = sorted({part for d in run for part in _differing(d, ours[d.start_ms])})
        records = await self._run(load_records, self._store, from_ms, until_ms, parts)
        own = set(records.list_ids(0, len(records)))
        claimed = sum(p.count for d in run for p in d.parts.values())
        have, need = await talk.compare(records, from_ms, until_ms, parts, claimed)
        wanted = {leaf for leaf in need if not self._is_refused(leaf)}
        await self._obtain(talk, from_ms, until_ms, parts, wanted)
        if have:
            await self._give(talk, from_ms, until_ms, parts, have)
        theirs = (own | need) - have
        for difference in run:
            for part in _differing(difference, ours[difference.start_ms]):
                await self._hold_to_word(talk, difference, part, theirs)

    # --- what they have more

    async def _obtain(
        self, talk: Talk, from_ms: int, until_ms: int, parts: Sequence[StreamPart], leaves: set[Digest]
    ) -> set[Digest]:
        """Fetch, check, store; returns the leaves that did not come."""
        if not leaves:
            return set()
        found, missing, _ = await talk.fetch_bodies(from_ms, until_ms, parts, leaves)
        for at in range(0, len(found), MAX_LEAVES):
            await self._store_checked(talk, found[at : at + MAX_LEAVES])
        return missing

    async def _store_checked(self, talk: Talk, found: Sequence[tuple[Record, Spoken]]) -> None:
        reasons = await self._run(self._admit, [record for record, _ in found])
        forged: tuple[Record, Spoken] | None = None
        for (record, said), reason in zip(found, reasons, strict=True):
            if reason is None:
                talk.progress.stored += 1
                self._on_stored(record)
                continue
            talk.progress.refused[reason] += 1
            self._refused[record.leaf] = self._now_ms()
            if reason == Reason.BAD_SIGNATURE and record.message.signature_type is not SignatureType.ERC_1271:
                forged = forged or (record, said)
        while len(self._refused) > REFUSED:
            self._refused.popitem(last=False)
        if forged is not None:
            record, said = forged
            detail = f"0x{record.leaf.hex()} of 0x{record.message.publisher_id.hex()[:80]} is not signed by it"
            raise Caught(Lie.FORGED, detail, [said], [record.canonical])

    def _is_refused(self, leaf: Digest) -> bool:
        at_ms = self._refused.get(leaf)
        return at_ms is not None and self._now_ms() - at_ms < REFUSED_MS

    # --- what they lack

    async def _give(
        self, talk: Talk, from_ms: int, until_ms: int, parts: Sequence[StreamPart], leaves: set[Digest]
    ) -> None:
        def load() -> Iterator[bytes]:
            for part in parts:
                for page in self._store.keys(part, from_ms, until_ms):
                    named = [key for key in page if key[1] in leaves]
                    for at in range(0, len(named), 500):
                        yield from (row.canonical for row in self._store.fetch(part, named[at : at + 500]))

        offered: list[bytes] = await self._run(list, load())
        at = 0
        for said, count, refused in await talk.offer(offered):
            for canonical in offered[at : at + count]:
                leaf = Digest(leaf_of_canonical(canonical))
                if leaf not in refused:
                    self._note_taken(talk.broker, leaf, said)
            at += count

    # --- their word

    async def _hold_to_word(self, talk: Talk, difference: Difference, part: StreamPart, theirs: set[Digest]) -> None:
        """``theirs``: leaves that the broker must hold in all of the session's range, by what it said in it."""
        start = difference.start_ms
        claimed = difference.parts.get(part, PartSum(part, 0, EMPTY_ROOT))
        keys = await self._run(self._own_keys, part, start)
        shown = [leaf for _, leaf in keys if leaf in theirs]
        if sum_messages(part, shown) == claimed:
            vouched = Vouched(difference.said, claimed, tuple(shown))
            self._vouch(talk, start, vouched)
            lacking = [leaf for _, leaf in keys if leaf not in theirs]
            await self._run(self._hold_to_acceptance, talk.broker, start, vouched, lacking)
            return
        if not claimed.count:
            return
        try:
            listed, said = await talk.list_leaves(part, start, claimed.root)
        except TransientError as error:
            await self._prove_unlisted(talk, part, difference, error.fields.get("spoken"))
            return  # it has changed: another visit
        if sum_messages(part, listed) != claimed:
            detail = f"its leaves of {part[0]}#{part[1]} at {start} do not give the root that it claims"
            raise Caught(Lie.WRONG_ROOT, detail, [difference.said, said])
        self._check_order(part, start, [leaf for _, leaf in keys], listed, [difference.said, said])
        strangers = set(listed).difference(leaf for _, leaf in keys)
        missing = await self._obtain(
            talk, start, start + SLICE_MS, [part], {leaf for leaf in strangers if not self._is_refused(leaf)}
        )
        if missing:
            await self._prove_not_held(talk, part, start, missing, [difference.said, said])
        self._vouch(talk, start, Vouched(difference.said, claimed, tuple(listed)))

    def _check_order(
        self, part: StreamPart, start: int, own: Sequence[Digest], listed: Sequence[Digest], words: Sequence[Spoken]
    ) -> None:
        """What we hold too must stand in its list as in ours; two neighbours of those that do not are the proof."""
        place = {leaf: number for number, leaf in enumerate(own)}
        shared = [leaf for leaf in listed if leaf in place]
        for first, second in itertools.pairwise(shared):
            if place[first] >= place[second]:
                by_leaf = {key[1]: key for key in self._own_keys(part, start)}
                rows = [self._store.fetch(part, [by_leaf[leaf]]) for leaf in (first, second)]
                detail = f"its leaves of {part[0]}#{part[1]} at {start} do not stand in the order of messages"
                raise Caught(Lie.OUT_OF_ORDER, detail, words, [row.canonical for found in rows for row in found])

    async def _prove_unlisted(
        self, talk: Talk, part: StreamPart, difference: Difference, refusal: Spoken | None
    ) -> None:
        """What is claimed before and after must be there in between."""
        if refusal is None:
            return
        for again in await talk.fetch_parts([(difference.start_ms, None)]):
            same = again.parts.get(part) == difference.parts[part]
            if same and talk.suspicions.is_confirmed(talk.broker, wire.LEAVES):
                detail = (
                    f"claims a root of {part[0]}#{part[1]} at {difference.start_ms}, and will not list what it is of"
                )
                raise Caught(Lie.WRONG_ROOT, detail, [difference.said, refusal, again.said])

    async def _prove_not_held(
        self, talk: Talk, part: StreamPart, start: int, leaves: Iterable[Digest], words: Sequence[Spoken]
    ) -> None:
        """Ask for these alone: an answer that is empty says that none of them is there."""
        found, missing, said = await talk.fetch_bodies(start, start + SLICE_MS, [part], sorted(leaves)[:64])
        if missing and said is not None:
            detail = f"claims {len(missing)} messages of {part[0]}#{part[1]} at {start} that it cannot serve"
            raise Caught(Lie.NOT_HELD, detail, [*words, said])
        await self._store_checked(talk, found)

    async def spot_check(self, talk: Talk, difference: Difference, mine: PartSum, leaves: Sequence[Digest]) -> None:
        """A broker that claims what we hold must be able to serve some of it: a claim is quickly copied."""
        start, part = difference.start_ms, mine.part
        if difference.parts.get(part) != mine:
            return
        found, missing, said = await talk.fetch_bodies(start, start + SLICE_MS, [part], leaves)
        if missing and said is not None:
            detail = f"claims our messages of {part[0]}#{part[1]} at {start} and cannot serve {len(missing)} of them"
            raise Caught(Lie.NOT_HELD, detail, [difference.said, said])
        talk.progress.fetched -= len(found)
        keys = await self._run(self._own_keys, part, start)
        if sum_messages(part, [leaf for _, leaf in keys]) == mine:
            self._vouch(talk, start, Vouched(difference.said, mine, tuple(leaf for _, leaf in keys)))

    def _own_keys(self, part: StreamPart, start: int) -> list[tuple[int, Digest]]:
        return [key for page in self._store.keys(part, start, start + SLICE_MS) for key in page]

    # --- their earlier word

    def _hold_to_acceptance(self, broker: Address, start: int, new: Vouched, lacking: Sequence[Digest]) -> None:
        """What it had or took by two words of its own, it must claim before long.

        One word is not enough: a broker that lost its disk since has not lied, and is mended by then.
        """
        for leaf in lacking:
            taken = self._taken.get((broker, leaf))
            if taken is None or len(taken.words) < 2 or self._now_ms() - taken.at_ms < TAKEN_MS:
                continue
            canonical, proofs = self._prove_omitted(broker, start, new, leaf)
            message = decode_message(canonical)
            detail = (
                f"took {message.timestamp_ms}/{message.sequence_number} of {new.sum.part[0]}, and claims to have none"
            )
            raise Caught(Lie.WITHHELD, detail, [*taken.words, new.said], proofs)

    def _note_taken(self, broker: Address, leaf: Digest, said: Spoken) -> None:
        key = (broker, leaf)
        words = self._taken[key].words if key in self._taken else ()
        if len(words) < 2:
            self._taken[key] = Taken((*words, said), self._now_ms())
        while len(self._taken) > TAKEN:
            self._taken.popitem(last=False)

    def _vouch(self, talk: Talk, start: int, new: Vouched) -> None:
        """Remember what the broker holds. What it held before, by its own word, it must hold still."""
        place = (talk.broker, start, new.sum.part)
        old = self._vouched.pop(place, None)
        if old is not None:
            self._vouched_bytes -= 32 * len(old.leaves)
        self._vouched[place] = new
        self._vouched_bytes += 32 * len(new.leaves)
        while self._vouched_bytes > VOUCHED_BYTES and len(self._vouched) > 1:
            self._vouched_bytes -= 32 * len(self._vouched.popitem(last=False)[1].leaves)
        for leaf in set(old.leaves).difference(new.leaves) if old is not None else ():
            assert old is not None
            self._note_taken(talk.broker, leaf, old.said)

    def _prove_omitted(self, broker: Address, start: int, new: Vouched, leaf: Digest) -> tuple[bytes, list[bytes]]:
        """The message, and what shows that it is none of what is claimed: message, claim, proof."""
        part = new.sum.part
        by_leaf = {key[1]: key for key in self._own_keys(part, start)}

        def load(wanted: Digest) -> bytes:
            (row,) = self._store.fetch(part, [by_leaf[wanted]])
            return row.canonical

        canonical = load(leaf)
        omitted = build_omission(new.leaves, lambda number: load(new.leaves[number]), canonical)
        proof = cbor.encode_object("omission/1", omitted.before, omitted.after, omitted.index, list(omitted.path))
        return canonical, [canonical, encode_claim(_unsigned(broker, start, new.sum)), proof]


def _unsigned(broker: Address, start: int, s: PartSum) -> SliceClaim:
    """The row of a signed answer in the form that proofs are checked with."""
    return SliceClaim(broker, s.part, start, start + SLICE_MS, s.count, s.root, 0, bytes(65))


def _differing(difference: Difference, ours: dict[StreamPart, PartSum]) -> list[StreamPart]:
    parts = {*difference.parts, *ours}
    return sorted(part for part in parts if difference.parts.get(part) != ours.get(part))


def _sessions(
    differences: Sequence[Difference], ours: dict[int, dict[StreamPart, PartSum]]
) -> Iterator[list[Difference]]:
    """Runs of neighbours in time, newest run first, each of at most ``SESSION_RECORDS``."""
    ordered = sorted(differences, key=lambda d: d.start_ms, reverse=True)
    run: list[Difference] = []
    size = 0
    for d in ordered:
        own = sum(p.count for p in d.parts.values()) + sum(p.count for p in ours[d.start_ms].values())
        if run and (run[0].start_ms != d.start_ms + SLICE_MS or size + own > SESSION_RECORDS):
            yield run
            run, size = [], 0
        run.insert(0, d)
        size += own
    if run:
        yield run
