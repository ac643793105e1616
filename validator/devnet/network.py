"""The network between publishers and brokers: loses, repeats, reorders and delays, for each broker on its own.

``LinkFaults`` says how badly. What becomes of one message at one broker is drawn when it is sent, from a seeded
generator; deliveries that are due are handed over in batches by ``POST /ingest``: to a broker of arrays as lines, to
one of protobuf as frames. A message that has no array form never reaches a broker of arrays, as in the years of both.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

import httpx

from validator.devnet.process import LineLog, now_ms
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.legacy_array import read_legacy_array, write_legacy_array
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.received import ARRAY, PROTOBUF
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Message

Parcel = Mapping[str, bytes]
"""A message in each of its wire forms."""
MAX_BATCH_BYTES = 4 << 20
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class LinkFaults:
    """Probabilities per message and broker, times in ms.

    ``late_everywhere`` is drawn once per message: then it is late at each broker it reaches, which is how messages come
    to miss their window. No delivery is due later than ``max_delay_ms`` after the message was sent, less the time of
    two batches.
    """

    loss: float = 0.05
    duplicates: float = 0.03
    reordered: float = 0.2
    reorder_ms: int = 400
    late: float = 0.02
    late_everywhere: float = 0.01
    max_delay_ms: int = 16_000

    def draw(self, chance: Random, batch_ms: int, late_everywhere: bool) -> list[int]:
        """Delays of the deliveries of one message to one broker: none if it is lost, two if it is repeated."""
        if chance.random() < self.loss:
            return []
        longest = max(0, self.max_delay_ms - 2 * batch_ms)
        copies = 2 if chance.random() < self.duplicates else 1
        delays = []
        for _ in range(copies):
            if late_everywhere or chance.random() < self.late:
                delay = chance.randint(longest // 4, longest)
            elif chance.random() < self.reordered:
                delay = chance.randint(0, self.reorder_ms)
            else:
                delay = chance.randint(0, 20)
            delays.append(min(delay, longest))
        return delays


def parcel_of(message: Message) -> Parcel:
    """The forms that a message has: protobuf always, an array where arrays know its kind."""
    forms = {PROTOBUF: write_protobuf(message)}
    try:
        forms[ARRAY] = write_legacy_array(message)
    except MalformedInput:
        return forms
    return forms


def parcel_of_line(line: bytes) -> Parcel:
    """The same for an array that somebody else wrote; one that cannot be read travels as it is."""
    try:
        return {ARRAY: line, PROTOBUF: write_protobuf(read_legacy_array(line))}
    except MalformedInput:
        return {ARRAY: line}


def log_forms(parcel: Parcel) -> list[dict[str, str]]:
    """How logs name the forms of a message: an array as it is, protobuf in base64."""
    return [log_form(form, parcel[form]) for form in (ARRAY, PROTOBUF) if form in parcel]


def log_form(form: str, data: bytes) -> dict[str, str]:
    return {"form": form, "line": data.decode() if form == ARRAY else base64.b64encode(data).decode()}


@dataclass(slots=True)
class _Route:
    """Deliveries on their way to one broker, by (due ms, number)."""

    url: str
    form: str
    due: list[tuple[int, int, bytes]] = field(default_factory=list)
    under_way: int = 0


class Network:
    """Takes messages from publishers and brings them to brokers, or not. Lives in one event loop."""

    def __init__(
        self,
        brokers: Sequence[tuple[str, str]],
        faults: LinkFaults,
        seed: str,
        *,
        batch_ms: int = 200,
        log: LineLog | None = None,
    ) -> None:
        """``brokers``: URL and form of each."""
        self._routes = [_Route(url.rstrip("/"), form) for url, form in brokers]
        self._faults = faults
        self._chance = Random(seed)
        self._batch_ms = batch_ms
        self._log = log
        self._number = 0
        self.sent = 0
        self.dropped = 0
        """Deliveries given up because a broker did not take them."""

    @property
    def pending(self) -> int:
        return sum(len(route.due) + route.under_way for route in self._routes)

    def send(self, parcel: Parcel, sent_ms: int) -> None:
        """Decide what becomes of a message at each broker."""
        self.sent += 1
        late = self._chance.random() < self._faults.late_everywhere
        for route in self._routes:
            for delay in self._faults.draw(self._chance, self._batch_ms, late):
                self._number += 1
                if route.form in parcel:
                    heappush(route.due, (sent_ms + delay, self._number, parcel[route.form]))

    async def deliver(self) -> None:
        """Bring due lines to their brokers until cancelled."""
        limits = httpx.Limits(max_connections=len(self._routes) + 1, max_keepalive_connections=len(self._routes))
        async with (
            httpx.AsyncClient(timeout=5.0, trust_env=False, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            for route in self._routes:
                group.create_task(self._serve(route, client))

    async def _serve(self, route: _Route, client: httpx.AsyncClient) -> None:
        while True:
            await asyncio.sleep(self._batch_ms / 1000)
            while batch := _pop_due(route, now_ms()):
                await self._post(route, batch, client)

    async def _post(self, route: _Route, batch: list[bytes], client: httpx.AsyncClient) -> None:
        reason = ""
        body = b"\n".join(batch) if route.form == ARRAY else b"".join(map(write_frame, batch))
        headers = {"content-type": "text/plain" if route.form == ARRAY else "application/octet-stream"}
        for _ in range(ATTEMPTS):
            try:
                answer = await client.post(route.url + "/ingest", content=body, headers=headers)
                if answer.status_code == 200:
                    route.under_way = 0
                    return
                reason = f"status {answer.status_code}"
            except httpx.HTTPError as error:
                reason = type(error).__name__
            await asyncio.sleep(self._batch_ms / 1000)
        route.under_way = 0
        self.dropped += len(batch)
        if self._log is not None:
            self._log.write(
                {"time_ms": now_ms(), "event": "dropped", "broker": route.url, "lines": len(batch), "reason": reason}
            )


def _pop_due(route: _Route, until_ms: int) -> list[bytes]:
    batch: list[bytes] = []
    size = 0
    while route.due and route.due[0][0] <= until_ms and size < MAX_BATCH_BYTES:
        line = heappop(route.due)[2]
        batch.append(line)
        size += len(line)
    route.under_way = len(batch)
    return batch
