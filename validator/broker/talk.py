"""One visit to one broker: questions in order, from the coarse to the fine, and what its answers must be.

Whatever a broker signs that cannot be so ends the visit (``Caught``) with its words as evidence. What merely changed
meanwhile, or does not answer, is no lie: it ends the visit too, and another comes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from validator.broker.evidence import Lie, Suspicions
from validator.broker.slices import SliceSums
from validator.net.mutual import wire
from validator.net.mutual.client import Line
from validator.net.signed.client import Spoken
from validator.net.signed.pages import MAX_LEAVES, decode_page, encode_page, split_pages
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.consensus.reconcile import FRAME_LIMIT, ID_BYTES, Records, initiate, reconcile
from validator.protocol.errors import MalformedInput, TransientError
from validator.protocol.model import Address, Digest, Record, Root, StreamPart
from validator.protocol.slices import SLICE_MS, PartSum, Sum, cut, sum_parts

T = TypeVar("T")
_ROUNDS = 16


class Run(Protocol):
    """Calls what may take a while: ``asyncio.to_thread``, or at once where time is simulated."""

    def __call__(self, function: Callable[..., T], /, *arguments: Any) -> Awaitable[T]: ...


class Caught(Exception):
    """A lie, with the words that show it."""

    def __init__(self, lie: Lie, detail: str, words: Sequence[Spoken], proofs: Sequence[bytes] = ()) -> None:
        super().__init__(detail)
        self.lie = lie
        self.detail = detail
        self.words = tuple(words)
        self.proofs = tuple(proofs)


@dataclass(slots=True)
class Progress:
    """What was done with one broker since the start."""

    visits: int = 0
    sessions: int = 0
    rounds: int = 0
    fetched: int = 0
    stored: int = 0
    offered: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    refused: Counter[StrEnum] = field(default_factory=Counter)
    equal_ms: int = 0
    """When it last held what we hold."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A slice that differs: what the broker says of it, of each of its partitions, and in which words."""

    start_ms: int
    parts: dict[StreamPart, PartSum]
    said: Spoken


class Talk:
    """With one broker. Every method raises TransientError, RemoteFault, or Caught."""

    def __init__(self, line: Line, broker: Address, progress: Progress, suspicions: Suspicions) -> None:
        self._line = line
        self.broker = broker
        self.progress = progress
        self.suspicions = suspicions

    async def ask(self, path: str, body: bytes) -> Spoken:
        spoken = await self._line.ask(self.broker, path, body)
        self.progress.sent_bytes += len(body)
        self.progress.received_bytes += len(spoken.body)
        return spoken

    def _read(self, decode: Callable[[bytes], T], spoken: Spoken) -> T:
        try:
            return decode(spoken.body)
        except MalformedInput as error:
            raise Caught(Lie.UNFIT, f"{spoken.path}: {error}", [spoken]) from error

    async def fetch_sums(self, from_ms: int, until_ms: int) -> tuple[dict[int, Sum], Spoken]:
        spoken = await self.ask(wire.SUMS, wire.encode_span(from_ms, until_ms))
        sums = self._read(wire.decode_sums, spoken)
        places = [(s.start_ms, s.length_ms) for s in sums]
        if (
            not set(places) <= set(cut(from_ms, until_ms))
            or sorted(set(places)) != places
            or not all(s.count for s in sums)
        ):
            raise Caught(Lie.UNFIT, "sums that are no nodes of the span", [spoken])
        return {s.start_ms: s for s in sums}, spoken

    async def find_differing(
        self, sums: SliceSums, from_ms: int, until_ms: int, most: int, skip: Callable[[int, Sum | None], bool]
    ) -> list[tuple[int, Sum | None]]:
        """Starts of slices that differ, newest first, at most so many, each with what the broker says of it."""
        found: list[tuple[int, Sum | None]] = []
        theirs, _ = await self.fetch_sums(from_ms, until_ms)
        ours = {s.start_ms: s for s in sums.below(from_ms, until_ms)}
        for start, length in reversed(cut(from_ms, until_ms)):
            if ours.get(start) == theirs.get(start):
                continue
            if length > SLICE_MS:
                found += await self.find_differing(sums, start, start + length, most - len(found), skip)
            elif not skip(start, theirs.get(start)):
                found.append((start, theirs.get(start)))
            if len(found) >= most:
                break
        return found

    async def fetch_parts(self, slices: Sequence[tuple[int, Sum | None]]) -> list[Difference]:
        """The partitions of slices; fewer slices where they do not fit one answer."""
        asked = [start for start, _ in slices]
        spoken = await self.ask(wire.PARTS, wire.encode_slices(asked))
        answered = self._read(wire.decode_parts, spoken)
        if list(answered) != asked[: len(answered)] or not answered:
            raise Caught(Lie.UNFIT, "partitions of slices that were not asked for", [spoken])
        differences = []
        for start, claimed in slices:
            if start not in answered:
                break
            parts = {p.part: p for p in answered[start]}
            if len(parts) != len(answered[start]) or not all(p.count for p in parts.values()):
                raise Caught(Lie.UNFIT, "a partition twice, or without a message", [spoken])
            if claimed is not None and sum_parts(start, parts.values()) != claimed:
                await self._prove_contradiction(start, claimed, spoken)
                continue
            differences.append(Difference(start, parts, spoken))
        return differences

    async def _prove_contradiction(self, start: int, claimed: Sum, parts: Spoken) -> None:
        """A slice may have grown meanwhile. If it is, after that, what it was before, its partitions were not so."""
        again, spoken = await self.fetch_sums(start, start + SLICE_MS)
        if again.get(start) == claimed and self.suspicions.is_confirmed(self.broker, wire.SUMS):
            raise Caught(Lie.WRONG_ROOT, f"partitions of {start} do not give the slice's sum", [parts, spoken])

    async def compare(
        self, records: Records, from_ms: int, until_ms: int, parts: Iterable[StreamPart], most: int
    ) -> tuple[set[Digest], set[Digest]]:
        """One session: (leaves only we have, leaves only they have). ``most``: how many they claimed at all."""
        have: set[Digest] = set()
        need: set[Digest] = set()
        ordered = list(parts)
        message: bytes | None = initiate(records)
        self.progress.sessions += 1
        limit = _ROUNDS + 4 * (len(records) + most) * ID_BYTES // FRAME_LIMIT
        for _ in range(limit):
            assert message is not None
            spoken = await self.ask(wire.RECONCILE, wire.encode_reconcile(from_ms, until_ms, ordered, message))
            self.progress.rounds += 1
            try:
                message, only_ours, only_theirs = reconcile(records, spoken.body)
            except MalformedInput as error:
                raise Caught(Lie.UNFIT, str(error), [spoken]) from error
            have.update(only_ours)
            named = set(only_theirs) - need
            need |= named - records.among(named)
            if len(need) > 2 * most + 1024:
                raise TransientError(f"a session that names more than the {most} messages claimed a moment ago")
            if message is None:
                return have, need
        raise Caught(Lie.UNFIT, f"a session of more than {limit} rounds", [spoken])

    async def fetch_bodies(
        self, from_ms: int, until_ms: int, parts: Iterable[StreamPart], leaves: Iterable[Digest]
    ) -> tuple[list[tuple[Record, Spoken]], set[Digest], Spoken | None]:
        """Page after page: (records, each with the words that brought it; leaves that did not come; the last words)."""
        missing = set(leaves)
        found: list[tuple[Record, Spoken]] = []
        spoken: Spoken | None = None
        ordered = list(parts)
        while missing:
            asked = sorted(missing)[:MAX_LEAVES]
            spoken = await self.ask(wire.BODIES, wire.encode_bodies(from_ms, until_ms, ordered, asked))
            came = 0
            for item in self._read(lambda body, n=len(asked): decode_page(body, n), spoken):  # type: ignore[misc]
                try:
                    record = record_from_canonical(item)
                except MalformedInput as error:
                    raise Caught(Lie.UNFIT, f"a message that is none: {error}", [spoken]) from error
                if record.leaf not in missing:
                    raise Caught(Lie.UNFIT, "a message that was not asked for, or twice", [spoken])
                missing.discard(record.leaf)
                found.append((record, spoken))
                came += 1
            if not came:
                break
        self.progress.fetched += len(found)
        return found, missing, spoken

    async def list_leaves(self, part: StreamPart, start: int, root: Root) -> tuple[list[Digest], Spoken]:
        """All of a partition's leaves behind a root that the broker claims. Raises TransientError if it has changed."""
        spoken = await self.ask(wire.LEAVES, wire.encode_listing(part, start, root))
        return self._read(wire.decode_leaves, spoken), spoken

    async def offer(self, canonical: Iterable[bytes]) -> list[tuple[Spoken, int, dict[Digest, str]]]:
        """Messages that the broker lacks: per page its words, how many were offered, which it refused."""
        answers = []
        for page in split_pages(canonical):
            spoken = await self.ask(wire.OFFER, encode_page(page))
            _, refused = self._read(wire.decode_offered, spoken)
            self.progress.offered += len(page)
            answers.append((spoken, len(page), refused))
            await asyncio.sleep(0)
        return answers
