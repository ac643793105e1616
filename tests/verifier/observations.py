"""Observations: what members said they saw, whether an outcome used the words of a quorum, and what follows from them.

An outcome names the observations it used by digest only; their bytes are not stored for ever. While a network runs they
are fetched from its validators, each with its signature:

    DIR/observations.jsonl    {"statement": hex, "body": hex} per observation, canonical bytes

Whoever hands them over cannot forge them: a body counts for the digest it has, a statement for the member that signed
it. What is missing is a failure, by name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.verifier.account import lower_median
from tests.verifier.bundles import Archived, faulty_of, instances_of, quorum_of, signing_context
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from tests.verifier.folder import Run, read_lines
from validator.protocol.codec.outcome import decode_observation
from validator.protocol.codec.statement import decode_statement, verify_statement
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_object
from validator.protocol.model import (
    Address,
    BrokerShare,
    Digest,
    Flag,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    Statement,
    StatementKind,
    StreamPart,
)
from validator.protocol.parameters import ParameterSet


@dataclass(frozen=True, slots=True)
class Said:
    """An observation with the statement that signs it."""

    statement: Statement
    observation: Observation


Heard = Mapping[Digest, Sequence[Said]]
"""What was collected, by the observation's digest."""
Used = Mapping[InstanceId, Sequence[Observation]]
"""The genuine observations behind each outcome."""


def read_observations(run: Run) -> Heard:
    """All that can be decoded; signatures are checked where an outcome uses them. What is none helps nobody."""
    heard: dict[Digest, list[Said]] = defaultdict(list)
    for line in read_lines(run.folder / "observations.jsonl"):
        body = bytes.fromhex(str(line["body"]))
        try:
            said = Said(decode_statement(bytes.fromhex(str(line["statement"]))), decode_observation(body))
        except MalformedInput:
            continue
        heard[hash_object(body)].append(said)
    return heard


def check_observations(run: Run, bundles: Sequence[Archived], heard: Heard, findings: Findings) -> Used:
    """Of every outcome: who was heard, and prices, shares and flags that follow from what they said.

    Returns what each outcome used, as far as it is held and genuine.
    """
    all_used: dict[InstanceId, list[Observation]] = {}
    for bundle in bundles:
        for instance, outcome, where in instances_of(bundle):
            used = all_used[instance] = list(_used(run, bundle, outcome, heard, where, findings))
            n = len(bundle.accepted.committee)
            _check_quorum(outcome, used, n, where, findings)
            if len(used) < len(outcome.observations):
                continue  # said already; what follows from them cannot be known
            _check_price(outcome, used, n, bundle.parameters, where, findings)
            _check_shares(outcome, used, where, findings)
            _check_incomplete(outcome, used, n, where, findings)
    return all_used


def _used(
    run: Run, bundle: Archived, outcome: Outcome, heard: Heard, where: str, findings: Findings
) -> Iterator[Observation]:
    for digest in outcome.observations:
        candidates = heard.get(digest, ())
        faults = [_find_fault(run, bundle, outcome, digest, said) for said in candidates]
        good = [said for said, fault in zip(candidates, faults, strict=True) if not fault]
        reasons = sorted(set(faults)) if faults else ["is held by no validator that was asked"]
        named = f"observation {digest.hex()[:16]}"
        if findings.faultless(Claim.OBSERVATIONS, where, () if good else [f"{named} {r}" for r in reasons]):
            yield good[0].observation


def _find_fault(run: Run, bundle: Archived, outcome: Outcome, digest: Digest, said: Said) -> str:
    """Why a statement and body are not a member's own word about this instance; "" if they are."""
    statement, observation = said.statement, said.observation
    if statement.kind is not StatementKind.OBSERVATION or statement.value != digest:
        return "comes with a statement of something else"
    if statement.config_digest != bundle.accepted.config_digest:
        return "was made under another config"
    if not statement.instance == observation.instance == outcome.instance:
        return f"is about {observation.instance}"
    if statement.signer not in bundle.accepted.committee:
        return f"is of 0x{statement.signer.hex()}, who is no member"
    if observation.observer != statement.signer:
        return f"names 0x{observation.observer.hex()} as observer and is signed by 0x{statement.signer.hex()}"
    try:
        verify_statement(statement, signing_context(run))
    except MalformedInput as error:
        return f"is not signed: {error}"
    return ""


# --- what follows ---------------------------------------------------------------------------------


def _check_quorum(outcome: Outcome, used: Sequence[Observation], n: int, where: str, findings: Findings) -> None:
    observers = len({observation.observer for observation in used})
    needed = quorum_of(n)
    faults = []
    if len(outcome.observations) < needed:
        faults.append(f"used {len(outcome.observations)} observations where {needed} are needed")
    if observers < min(len(used), needed):
        faults.append(f"used the observations of {observers} members where {needed} are needed")
    if observers < len(used):
        faults.append("used two observations of one member")
    findings.faultless(Claim.QUORUMS, where, faults)


def _check_price(
    outcome: Outcome,
    used: Sequence[Observation],
    n: int,
    parameters: ParameterSet,
    where: str,
    findings: Findings,
) -> None:
    right = 0 if outcome.instance.kind is InstanceKind.LATE else price_of(used, n, parameters)
    findings.expect(outcome.price == right, Claim.PRICES, where, f"has price {outcome.price}, not {right}")


def price_of(used: Sequence[Observation], n: int, parameters: ParameterSet) -> int:
    """The lower median of what was read if 2f + 1 observers read one, else the default; within its bounds."""
    readings = [o.price for o in used if o.price is not None]
    price = lower_median(readings) if len(readings) >= 2 * faulty_of(n) + 1 else parameters.price_default
    return min(max(price, parameters.price_min), parameters.price_max)


def _check_shares(outcome: Outcome, used: Sequence[Observation], where: str, findings: Findings) -> None:
    late = outcome.instance.kind is InstanceKind.LATE
    right = {} if late else shares_of(used, outcome.signed_bytes)
    said = {share.broker: share for share in outcome.shares}
    for broker in sorted(set(right) | set(said)):
        r, s = (side.get(broker, BrokerShare(broker, 0, 0)) for side in (right, said))
        wrong = f"broker 0x{broker.hex()} served {s.served} and missed {s.missed}, not {r.served} and {r.missed}"
        findings.expect(r == s, Claim.SHARES, where, wrong)


def shares_of(used: Sequence[Observation], signed_bytes: int) -> dict[Address, BrokerShare]:
    """Lower medians by broker; who is not named served and missed nothing, and nothing exceeds the window's bytes."""
    said = [{share.broker: share for share in o.shares} for o in used]
    result = {}
    for broker in {broker for shares in said for broker in shares}:
        of_broker = [shares.get(broker, BrokerShare(broker, 0, 0)) for shares in said]
        served = lower_median([min(share.served, signed_bytes) for share in of_broker])
        missed = lower_median([min(share.missed, signed_bytes) for share in of_broker])
        if served or missed:
            result[broker] = BrokerShare(broker, served, missed)
    return result


def _check_incomplete(outcome: Outcome, used: Sequence[Observation], n: int, where: str, findings: Findings) -> None:
    right = incomplete_of(used, n)
    for entry in outcome.entries:
        marked, should = Flag.INCOMPLETE in entry.flags, entry.stream_part in right
        word = "is marked" if marked else "is not marked"
        findings.expect(
            marked == should, Claim.INCOMPLETE, where, f"{entry.stream_id}#{entry.partition} {word} incomplete"
        )


def incomplete_of(used: Sequence[Observation], n: int) -> set[StreamPart]:
    """Partitions that fewer than f + 1 of the observers had complete."""
    listed = Counter(part for o in used for part in o.incomplete)
    return {part for part, times in listed.items() if len(used) - times <= faulty_of(n)}


def contract_signed(used: Sequence[Observation], n: int) -> set[Digest]:
    """Signed digests that f + 1 of the observers found valid by asking a contract."""
    listed = Counter(digest for o in used for digest in o.erc1271)
    return {digest for digest, times in listed.items() if times > faulty_of(n)}
