"""Providers that limit those who ask, each in its own way, before a real node: state is read all the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests import servers
from tests.contract_network import ContractNetwork
from tests.fakes.rpc_provider import Call, Provider, Said, refusal, whole_refusal
from validator.net.chain.jsonrpc import Request
from validator.net.chain.reader import ChainReader
from validator.net.chain.rpc import Rpc
from validator.net.chain.values import parse_quantity
from validator.net.http.pacing import Pace
from validator.protocol.errors import TransientError

STREAMS = 60


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with servers.run_anvil("--slots-in-an-epoch", "1") as url:
        yield url


@pytest.fixture(scope="module")
def many(node: str) -> Iterator[ContractNetwork]:
    network = ContractNetwork.create(node, streams=STREAMS)
    network.chain.mine(3)
    yield network
    network.chain.close()


@pytest.fixture
def provider(node: str) -> Iterator[Provider]:
    with Provider(node) as provider:
        yield provider


def a_reader(urls: list[str], network: ContractNetwork, deadline_s: float = 15.0) -> ChainReader:
    deployment = network.chain.deployment
    return ChainReader(
        urls, deployment.contracts, deployment_block=deployment.block, chain_id=31337, deadline_s=deadline_s
    )


def too_long(limit: int, said: Said) -> Callable[[list[Call]], Said | None]:
    return lambda calls: said if len(calls) > limit else None


WORDS = "Batch of more than 3 requests are not allowed on free tier"
REFUSALS = {
    "an error in the place of all answers": whole_refusal(200, 31, WORDS),
    "the same with HTTP 400": whole_refusal(400, -32600, WORDS),
    "the same with HTTP 500": whole_refusal(500, 31, WORDS),
    "the same with HTTP 403": whole_refusal(403, 31, WORDS),
    "HTTP 413 without a word": Said(413),
    "HTTP 429 without a word": Said(429),
    "HTTP 502 and a page": Said(502, b"<html>"),
    "a page": Said(200, b"<html>"),
    "an empty list": Said(200, b"[]"),
}


@pytest.mark.parametrize("said", REFUSALS.values(), ids=REFUSALS.keys())
@pytest.mark.parametrize("limit", [1, 3, 20])
def test_batches_shrink_to_what_a_provider_takes_however_it_refuses(
    many: ContractNetwork, provider: Provider, said: Said, limit: int
) -> None:
    provider.gate = too_long(limit, said)
    reader = a_reader([provider.url], many)
    assert len(reader.fetch_state(reader.fetch_head()).stores) == STREAMS
    before = len(provider.bodies)
    assert len(reader.fetch_state(reader.fetch_head()).stores) == STREAMS
    refused = [body for body in provider.bodies[before:] if len(body) > limit]
    assert len(refused) <= 2  # it is remembered
    reader.close()


def test_a_limit_said_per_call_shrinks_batches_too(many: ContractNetwork, provider: Provider) -> None:
    lone: list[int] = []
    provider.gate = lambda calls: lone.append(len(calls))
    provider.instead = lambda _: refusal(-32000, "batch too big") if lone[-1] > 3 else None
    reader = a_reader([provider.url], many)
    assert len(reader.fetch_state(reader.fetch_head()).stores) == STREAMS
    reader.close()


def test_answers_that_are_cut_off_are_kept_and_the_rest_is_asked_for(many: ContractNetwork, provider: Provider) -> None:
    """A provider that answers the first twenty of a batch."""
    seen = {"position": 0}
    provider.gate = lambda _: seen.update(position=0)

    def only_twenty(call: Call) -> dict[str, object] | None:
        seen["position"] += 1
        return {} if seen["position"] > 20 else None

    provider.instead = only_twenty
    reader = a_reader([provider.url], many)
    assert len(reader.fetch_state(reader.fetch_head()).stores) == STREAMS
    assert provider.methods().count("eth_call") < 3 * STREAMS
    reader.close()


@pytest.mark.parametrize(
    "refused",
    [refusal(429, "Too Many Requests"), refusal(-32005, "daily request count exceeded, request rate limited")],
    ids=["429", "-32005"],
)
def test_one_refusal_in_a_batch_throws_no_good_answer_away(
    many: ContractNetwork, provider: Provider, refused: dict[str, object]
) -> None:
    chance = random.Random(1)
    provider.instead = lambda call: refused if call["method"] == "eth_call" and chance.random() < 0.1 else None
    reader = a_reader([provider.url], many)
    assert len(reader.fetch_state(reader.fetch_head()).stores) == STREAMS
    assert provider.methods().count("eth_call") < 1.6 * STREAMS
    reader.close()


def test_what_was_answered_before_a_long_rest_is_not_asked_again(many: ContractNetwork, provider: Provider) -> None:
    """A provider that answers eight bodies of ten calls at most, and then asks for an hour's rest."""
    reader = a_reader([provider.url], many)
    head = reader.fetch_head()
    answered: Counter[str] = Counter()
    left = 8

    def gate(calls: list[Call]) -> Said | None:
        nonlocal left
        if len(calls) > 10:
            return Said(413)
        left -= 1
        if left < 0:
            return Said(429, headers={"retry-after": "3600"})
        answered.update(str(call["params"]) for call in calls if "blockHash" in str(call["params"]))
        return None

    provider.gate = gate
    for _ in range(10):
        try:
            state = reader.fetch_state(head)
            break
        except TransientError as error:
            assert error.fields["retry_after_s"] > 50
            left = 8
            for source in reader.rpc._sources:
                source.pace = Pace()  # the rest is over
    assert len(state.stores) == STREAMS
    metadata = [count for params, count in answered.items() if count == 1]
    assert len(metadata) >= STREAMS
    reader.close()


HEAD = Request("eth_blockNumber", (), parse_quantity)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_source_is_left_alone_for_as_long_as_it_asks(node: str, provider: Provider, status: int, form: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    said = Said(status, headers={"retry-after": "2" if form == "seconds" else date})
    provider.gate = lambda _: said if len(provider.bodies) == 1 else None
    rpc = Rpc([provider.url], deadline_s=8.0)
    assert rpc.agree([HEAD])[0] >= 0
    assert len(provider.at) == 2
    assert provider.at[1] - provider.at[0] >= 1.9
    rpc.close()


def test_a_rest_that_is_longer_than_the_call_ends_it_at_once_and_says_so(node: str, provider: Provider) -> None:
    provider.gate = lambda _: Said(429, headers={"retry-after": "3600"})
    rpc = Rpc([provider.url], deadline_s=5.0)
    for _ in range(20):
        with pytest.raises(TransientError, match=r"rests for .* after: HTTP 429") as caught:
            rpc.agree([HEAD])
        assert 30 < caught.value.retry_after_s < 62
    assert len(provider.bodies) == 1
    rpc.close()


def test_who_rests_is_not_asked_while_the_others_can_answer(node: str, provider: Provider) -> None:
    with Provider(node) as other, Provider(node) as third:
        provider.gate = lambda _: Said(429, headers={"retry-after": "30"})
        rpc = Rpc([provider.url, other.url, third.url], deadline_s=5.0)
        for _ in range(15):
            assert rpc.agree([HEAD])[0] >= 0
            assert len(rpc.each_at_least(HEAD, 2)) == 2
        assert len(provider.bodies) <= 2
        rpc.close()


def test_who_rests_is_asked_where_the_others_cannot_decide(node: str, provider: Provider) -> None:
    with Provider(node) as liar, Provider(node) as third:
        provider.gate = lambda _: Said(429, headers={"retry-after": "1"}) if len(provider.bodies) == 1 else None
        liar.instead = lambda _: {"result": "0xffffff"}
        rpc = Rpc([provider.url, liar.url, third.url], deadline_s=8.0)
        assert rpc.agree([HEAD])[0] < 0xFFFFFF
        rpc.close()


def test_a_source_that_is_gone_is_asked_less_and_less(node: str, provider: Provider) -> None:
    provider.gate = lambda _: Said(502)
    rpc = Rpc([provider.url], deadline_s=3.0)
    source = rpc._sources[0]
    source.pace = Pace(longest_s=1_000.0)  # however slow this machine is, a rest is longer than its calls in the end
    for _ in range(12):
        with pytest.raises(TransientError):
            rpc.agree([HEAD])
    assert len(provider.bodies) <= 5
    assert source.pace.rest_s() > 1
    rpc.close()


def test_a_request_that_no_source_answers_does_not_make_batches_smaller(node: str, provider: Provider) -> None:
    rpc = Rpc([provider.url])
    unknown = Request("eth_thereIsNoSuchMethod", (), parse_quantity)
    for _ in range(3):
        with pytest.raises(TransientError, match="eth_thereIsNoSuchMethod"):
            rpc.agree([HEAD] * 30 + [unknown] * 5)
    assert [len(body) for body in provider.bodies] == [35, 1] * 3
    rpc.close()
