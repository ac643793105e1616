"""Signed messages by HTTP to several brokers at once, and what each says of every message."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec

from logstore.brokers import FRAMES, Place, reason_of
from validator.net.http.client import BoundedClient
from validator.protocol.codec.frames import write_frame
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.model import Record, StreamPart

TRIES = 4
PAUSE_S = 0.5
DEADLINE_S = 30.0
MAX_ANSWER_BYTES = 8 << 20
MAX_THREADS = 8
REST_S = 30.0
"""So long a broker that did not answer is not asked, if others are there."""
UNREACHABLE = "unreachable"
ACCEPTED = frozenset({"stored", "known"})
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Told(msgspec.Struct):
    """What a broker says of one message."""

    fate: str
    reason: str = ""
    detail: str = ""
    again: bool = False


class _Answer(msgspec.Struct):
    messages: list[_Told]


@dataclass(slots=True)
class Taken:
    """What became of one message: URLs of the brokers that have it, and the others' words."""

    record: Record
    by: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)

    def hear(self, url: str, said: _Told) -> None:
        words = f"{said.reason}: {said.detail}" if said.detail else said.reason
        if said.fate in ACCEPTED:
            self.by.append(url)
            return
        self.refused.pop(url, None)
        self.unreachable.pop(url, None)
        (self.unreachable if said.fate == UNREACHABLE else self.refused)[url] = words


class Brokers:
    """Whom messages are handed to. Who did not answer is left alone for a while, as long as another takes them."""

    def __init__(
        self, places: Sequence[Place], http: BoundedClient, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._places = list(places)
        self._http = http
        self._pause = pause
        self._down: dict[Place, tuple[float, str]] = {}

    def hand_over(self, part: StreamPart, records: Sequence[Record]) -> list[Taken]:
        """To all brokers at once; again what nobody has, and may be taken yet. Never raises for a broker."""
        taken = [Taken(record) for record in records]
        left = taken
        for number in range(TRIES):
            if number:
                self._pause(PAUSE_S * 2 ** (number - 1))
            left = self._offer(part, left, everybody=number > 0)
            if not left:
                break
        return taken

    def _offer(self, part: StreamPart, items: Sequence[Taken], *, everybody: bool) -> list[Taken]:
        """One round; what nobody has, and somebody may take yet."""
        now_s = time.monotonic()
        resting = {place: why for place, (until_s, why) in self._down.items() if until_s > now_s and not everybody}
        asked = [place for place in self._places if place not in resting] or self._places
        again: set[int] = set()
        with ThreadPoolExecutor(min(len(asked), MAX_THREADS)) as threads:
            records = [item.record for item in items]
            told_by_all = threads.map(lambda place: self._ask(place, part, records), asked)
            for place, told in zip(asked, told_by_all, strict=True):
                for at, (item, said) in enumerate(zip(items, told, strict=True)):
                    item.hear(str(place.url), said)
                    if said.again:
                        again.add(at)
        for item in items:
            item.unreachable |= {str(place.url): why for place, why in resting.items()}
        return [item for at, item in enumerate(items) if not item.by and (at in again or resting)]

    def _ask(self, place: Place, part: StreamPart, records: Sequence[Record]) -> list[_Told]:
        try:
            told = _post(place, self._http, part, records)
        except TransientError as error:
            self._down[place] = time.monotonic() + REST_S, str(error)
            return [_Told(UNREACHABLE, str(error), again=True)] * len(records)
        except RemoteFault as error:
            return [_Told("refused", str(error))] * len(records)
        self._down.pop(place, None)
        return told


def _post(place: Place, http: BoundedClient, part: StreamPart, records: Sequence[Record]) -> list[_Told]:
    """Raises TransientError, RemoteFault."""
    target = f"/v1/streams/{quote(part[0], safe='')}/partitions/{part[1]}/messages"
    body = b"".join(write_frame(record.canonical) for record in records)
    answer = http.fetch(
        "POST",
        place.url,
        target,
        max_bytes=MAX_ANSWER_BYTES,
        deadline_s=DEADLINE_S,
        headers=[("Content-Type", FRAMES)],
        body=body,
    )
    if answer.status != 200:
        kind = TransientError if answer.status in BUSY else RemoteFault
        raise kind(f"HTTP {answer.status}: {reason_of(answer.body)}", status=answer.status, url=str(place.url))
    try:
        told = msgspec.json.decode(answer.body, type=_Answer).messages
    except msgspec.MsgspecError as error:
        raise MalformedInput("answer", str(error)[:200]) from error
    if len(told) != len(records):
        raise MalformedInput("answer", f"on {len(told)} messages, where {len(records)} were sent")
    return told
