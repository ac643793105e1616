"""Batches from anybody: recovery's verdicts whatever comes, and a bound on what forgers can make dearer."""

from __future__ import annotations

from functools import cache

from msgspec.structs import replace

from tests.builders import a_key, a_message
from validator.protocol.codec.batch_verifier import PAUSE, BatchVerifier
from validator.protocol.codec.signature_equation import MIN_TOGETHER
from validator.protocol.codec.signatures import VALID, verify_batch
from validator.protocol.model import Message, Reason, SignatureType

PUBLISHERS = 10
COUNT = 2 * MIN_TOGETHER


@cache
def messages() -> tuple[Message, ...]:
    keys = [a_key(1 + number) for number in range(PUBLISHERS)]
    return tuple(a_message(keys[n % PUBLISHERS], timestamp_ms=1_700_000_000_000 + n) for n in range(COUNT))


def forged(number: int, batch: tuple[Message, ...] = ()) -> tuple[Message, ...]:
    """A batch in which one message is not what its publisher signed."""
    batch = batch or messages()
    wrong = replace(batch[number], content=b"[]")
    return (*batch[:number], wrong, *batch[number + 1 :])


def knowing() -> BatchVerifier:
    """It has met all publishers."""
    verifier = BatchVerifier()
    assert verifier.verify(messages()) == [VALID] * COUNT
    return verifier


def test_verdicts_are_those_of_recovery_whatever_the_batch_holds() -> None:
    other = a_message(a_key(99), timestamp_ms=1)
    by_contract = replace(messages()[3], signature_type=SignatureType.ERC_1271)
    odd = (other, replace(other, signature=b""), replace(other, signature=b"x" * 65), by_contract)
    verifier = BatchVerifier()
    for batch in ((), odd, messages(), forged(7), (*odd, *messages()), forged(8, forged(9)), messages()[:3]):
        assert verifier.verify(batch) == verify_batch(batch)
    assert verifier.verify(odd)[-1] is Reason.ERC1271_UNKNOWN


def test_few_messages_are_recovered_at_once() -> None:
    verifier = knowing()
    before = verifier.equations
    assert verifier.verify(messages()[: MIN_TOGETHER - 1]) == [VALID] * (MIN_TOGETHER - 1)
    assert verifier.equations == before


def test_a_publisher_whose_name_was_misused_stands_apart_and_the_others_are_added_up_still() -> None:
    verifier = knowing()
    verifier.verify(forged(3))
    assert verifier.untrue == 1
    for _ in range(5):
        verdicts = verifier.verify(forged(3))
        assert [place for place, verdict in enumerate(verdicts) if verdict is not VALID] == [3]
    assert (verifier.equations, verifier.untrue) == (7, 1)


def test_a_forger_of_ever_other_names_is_answered_by_recovery_most_of_the_time() -> None:
    verifier = knowing()
    batches = 4 * PAUSE
    for number in range(batches):
        assert verifier.verify(forged(number % PUBLISHERS)).count(VALID) == COUNT - 1
    assert 0 < verifier.untrue <= 2 + batches // PAUSE


def test_equations_return_when_the_forger_has_gone() -> None:
    verifier = knowing()
    for number in range(4):
        verifier.verify(forged(number))
    before = verifier.equations
    for _ in range(PAUSE + 2):
        verifier.verify(messages())
    assert verifier.equations > before


def test_a_publisher_does_not_stand_apart_for_ever() -> None:
    verifier = BatchVerifier(apart_for=3 * COUNT)
    own = [message for message in messages() if message.publisher_id == messages()[3].publisher_id] * PUBLISHERS
    verifier.verify(messages())
    verifier.verify(forged(3))
    tried = []
    for _ in range(4):
        assert verifier.verify(own) == [VALID] * COUNT
        tried.append(verifier.equations)
    assert tried == [2, 2, 2, 3]


def test_no_more_keys_are_remembered_than_were_allowed_and_those_in_use_stay() -> None:
    verifier = BatchVerifier(remembered=PUBLISHERS)
    for first in range(100, 160, 5):
        verifier.verify((*messages()[: PUBLISHERS // 2], *(a_message(a_key(first + n)) for n in range(5))))
        assert verifier.known <= PUBLISHERS
    before = verifier.equations
    own = [message for message in messages() if message.publisher_id == messages()[0].publisher_id]
    assert verifier.verify(own * 10) == [VALID] * len(own) * 10
    assert verifier.equations == before + 1
