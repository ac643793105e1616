"""What others claim of a span is asked once for all answers of that moment, and counts only as what was asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.builders import a_key
from validator.broker.claims import LIVES_S, Claims
from validator.protocol.codec.answer import Request
from validator.protocol.codec.slice_claim import SliceClaim, encode_claim, sign_claim
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import TransientError
from validator.protocol.model import Address, Root

CONTEXT = SigningContext(31337, Address(b"\x05" * 20))
KEYS = {key.address: key for key in map(a_key, (1, 2))}
BROKERS = sorted(KEYS)
REQUEST = Request("0x01/s", 0, 1_000, 2_000)


class Others:
    """Other brokers, and how often each was asked; ``change`` alters what they sign, ``away`` do not answer."""

    def __init__(self, *away: Address, **change: Any) -> None:
        self.asked: list[Address] = []
        self._away, self._change = away, change

    async def ask(self, broker: Address, _path: str, _body: bytes) -> Any:
        self.asked.append(broker)
        await asyncio.sleep(0)
        if broker in self._away:
            raise TransientError("no answer")
        claim = SliceClaim(broker, ("0x01/s", 0), 1_000, 2_000, 3, Root(b"\x01" * 32), 5_000)
        body = encode_claim(sign_claim(replace(claim, **self._change), KEYS[broker], CONTEXT))
        return SimpleNamespace(body=body)


async def test_answers_of_one_moment_share_what_others_say_and_later_ones_ask_anew() -> None:
    others, now = Others(), {"s": 0.0}
    claims = Claims(cast(Any, others), CONTEXT, monotonic=lambda: now["s"])
    answers = await asyncio.gather(*(claims.ask(BROKERS, REQUEST) for _ in range(4)))
    assert sorted(others.asked) == BROKERS
    assert [c.broker for c in answers[0]] == BROKERS
    assert all(c.claim for c in answers[0])
    assert answers[1:] == answers[:1] * 3
    await claims.ask(BROKERS, Request("0x01/s", 1, 1_000, 2_000))
    assert len(others.asked) == 4
    now["s"] = LIVES_S
    await claims.ask(BROKERS, REQUEST)
    assert len(others.asked) == 6


async def test_an_answer_that_is_given_up_takes_nothing_from_the_others() -> None:
    others = Others()
    claims = Claims(cast(Any, others), CONTEXT)
    given_up = asyncio.create_task(claims.ask(BROKERS, REQUEST))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(claims.ask(BROKERS, REQUEST))
    await asyncio.sleep(0)
    given_up.cancel()
    assert all(c.claim for c in await waiting)
    assert sorted(others.asked) == BROKERS


async def test_who_does_not_answer_claims_nothing() -> None:
    claims = Claims(cast(Any, Others(BROKERS[0])), CONTEXT)
    assert [bool(c.claim) for c in await claims.ask(BROKERS, REQUEST)] == [False, True]


@pytest.mark.parametrize("change", [{"until_ms": 2_001}, {"from_ms": 999}, {"part": ("0x01/s", 1)}])
async def test_a_claim_of_something_else_is_none(change: dict[str, Any]) -> None:
    claims = Claims(cast(Any, Others(**change)), CONTEXT)
    assert [c.claim for c in await claims.ask(BROKERS, REQUEST)] == [b"", b""]
