"""What other brokers claim to hold of a span, signed, for the end of an answer.

All validators ask for the same windows at the same time, so what was said of a span serves every answer of that span
for two seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from validator.log import get_logger
from validator.net.mutual import wire
from validator.net.mutual.client import Line
from validator.protocol.codec.answer import Claim, Request
from validator.protocol.codec.slice_claim import decode_claim, verify_claim
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import ValidatorError
from validator.protocol.model import Address, StreamPart

log = get_logger(__name__)

ANSWER_S = 2.0
"""So long an answer's end waits for them."""
LIVES_S = 2.0
"""So long a claim serves other answers of its span."""

_Asked = tuple[Address, StreamPart, int, int]
"""A broker, and a part's span from and until Unix ms."""


class Claims:
    """Other brokers' claims, each asked for once at a time. Belongs to one event loop."""

    def __init__(self, line: Line, context: SigningContext, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._context = context
        self._monotonic = monotonic
        self._asked: OrderedDict[_Asked, tuple[float, asyncio.Task[bytes]]] = OrderedDict()

    async def ask(self, brokers: Sequence[Address], request: Request) -> list[Claim]:
        """Of each broker its claim; empty where it has not answered in time, or with something else."""
        part, span = request.stream_part, (request.from_ms, request.until_ms)
        tasks = [self._begin((broker, part, *span)) for broker in brokers]
        answers = await asyncio.gather(*map(asyncio.shield, tasks))
        return [Claim(broker, answer) for broker, answer in zip(brokers, answers, strict=True)]

    def _begin(self, asked: _Asked) -> asyncio.Task[bytes]:
        """The question to a broker, or the same one that was asked a moment ago."""
        now_s = self._monotonic()
        while self._asked and next(iter(self._asked.values()))[0] + LIVES_S <= now_s:
            self._asked.popitem(last=False)
        if asked not in self._asked:
            self._asked[asked] = (now_s, asyncio.create_task(self._fetch(asked)))
        return self._asked[asked][1]

    async def _fetch(self, asked: _Asked) -> bytes:
        broker, part, from_ms, until_ms = asked
        try:
            async with asyncio.timeout(ANSWER_S):
                spoken = await self._line.ask(broker, wire.CLAIM, wire.encode_range(part, from_ms, until_ms))
            claim = decode_claim(spoken.body)
            verify_claim(claim, self._context)
        except (ValidatorError, TimeoutError) as error:
            log.debug("claim.missing", broker=broker, reason=str(error))
            return b""
        return spoken.body if (claim.broker, claim.part, claim.from_ms, claim.until_ms) == asked else b""
