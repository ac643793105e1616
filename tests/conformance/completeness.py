"""Vectors of what an answer says of its sets (``validator/protocol/codec/completeness.py``).

    python -m tests.conformance completeness FILE             judge a file as below
    python -m tests.conformance completeness --write FOLDER   make completeness.json anew

One answer about one partition and span, of one window of a bundle: what its reader knows (``part``, ``span``,
``bundle``: number and root, ``messages``: leaf, publisher and time of those that came), and under ``objects`` what it
is told, as hex. Whatever is a proof proves the messages complete, or another partition absent (``absent``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.proving import START_MS, STEP_MS, a_bundle, a_part
from tests.vector_file import AGREED, Section, judge
from validator.protocol.codec.completeness import (
    decode_climb,
    decode_commitment,
    decode_marks,
    decode_set_proof,
    encode_climb,
    encode_commitment,
    encode_marks,
    encode_set_proof,
)
from validator.protocol.completeness import CompletenessCheck, SetClimb, SetCommitment, SetProof, without_publishers
from validator.protocol.leaves import hash_publisher
from validator.protocol.merkle import range_proof
from validator.protocol.model import Digest, StreamPart
from validator.protocol.proof import RangeProof, build_absence

SCHEMA = "logstore-completeness/1"
PART, ABSENT = a_part(1), ("nobody", 0)
SPAN = (START_MS + 2 * STEP_MS, START_MS + 6 * STEP_MS)
BUNDLE = 7
KNOWN = ("part", "absent", "span", "bundle", "messages")


def make_vectors() -> dict[str, Any]:
    proven = a_bundle((2, 9, 1, 2))
    instance = proven.outcome.instance
    whole, _ = proven.prove_range(PART, *SPAN, proven.bundle)
    chosen = [r for r in proven.records[PART] if SPAN[0] <= r.message.timestamp_ms < SPAN[1]]
    publisher = Digest(hash_publisher(chosen[0].message.publisher_id))
    short = _without(replace(whole, bundle=None), publisher)
    leaves = proven.bundle
    entry = next(e for e in proven.outcome.entries if e.stream_part == PART)
    objects = {
        "proof": encode_set_proof(SetProof(BUNDLE, instance, whole), *SPAN),
        "climb": encode_climb(SetClimb(BUNDLE, 1, len(leaves), tuple(leaves[1:4]), range_proof(leaves, 1, 4))),
        "proof_under_climb": encode_set_proof(SetProof(BUNDLE, instance, short), *SPAN),
        "absence": encode_set_proof(SetProof(BUNDLE, instance, build_absence(proven.outcome, ABSENT, leaves)), *SPAN),
        "commitment": encode_commitment(SetCommitment(BUNDLE, instance, entry)),
        "marks": encode_marks([(leaves[1], BUNDLE), (leaves[2], None)]),
    }
    return {
        "schema": SCHEMA,
        "part": list(PART),
        "absent": list(ABSENT),
        "span": list(SPAN),
        "bundle": {"number": BUNDLE, "root": proven.root.hex()},
        "messages": [
            {"leaf": r.leaf.hex(), "publisher": r.message.publisher_id.hex(), "ms": r.message.timestamp_ms}
            for r in chosen
        ],
        "objects": [{"name": name, "bytes": data.hex()} for name, data in objects.items()],
    }


def _without(proof: RangeProof, publisher: Digest) -> RangeProof:
    before, after = without_publishers(proof.before, proof.after, publisher, publisher)
    return replace(proof, before=before, after=after)


def _judges(vectors: Mapping[str, Any]) -> Mapping[str, Section]:
    return {"objects": Section("sets of an answer: bytes, and what they prove", partial(_judge, vectors))}


def _judge(vectors: Mapping[str, Any], case: Mapping[str, Any]) -> Iterator[str]:
    data, (from_ms, until_ms) = bytes.fromhex(case["bytes"]), vectors["span"]
    stream_id, partition = vectors["part"]
    part = (stream_id, partition)
    match case["name"]:
        case "climb":
            again = encode_climb(decode_climb(data))
        case "commitment":
            again = encode_commitment(decode_commitment(data, part))
        case "marks":
            again = encode_marks(list(decode_marks(data).items()))
        case name:
            said = decode_set_proof(data, from_ms, until_ms)
            again = encode_set_proof(said, from_ms, until_ms)
            yield from _judge_proof(vectors, said, tuple(vectors["absent"]) if name == "absence" else part)
    if again != data:
        yield "written otherwise"


def _judge_proof(vectors: Mapping[str, Any], said: SetProof, part: StreamPart) -> Iterator[str]:
    roots = {vectors["bundle"]["number"]: bytes.fromhex(vectors["bundle"]["root"])}
    from_ms, until_ms = vectors["span"]
    check = CompletenessCheck(part, from_ms, until_ms, [said.instance], roots.__getitem__)
    if said.proof.bundle is None:
        (climb,) = (case for case in vectors["objects"] if case["name"] == "climb")
        check.climb(decode_climb(bytes.fromhex(climb["bytes"])))
    for m in vectors["messages"] if list(part) == vectors["part"] else ():
        check.add(said.instance, m["ms"], Digest(bytes.fromhex(m["leaf"])), bytes.fromhex(m["publisher"]))
    entry = check.prove(said)
    if (entry is None) != (list(part) == vectors["absent"]):
        yield "what is proven is not what it says"


def main(arguments: list[str]) -> int:
    if len(arguments) == 2 and arguments[0] == "--write":
        (Path(arguments[1]) / "completeness.json").write_text(json.dumps(make_vectors(), indent=1) + "\n")
        return AGREED
    return judge(arguments, "completeness", SCHEMA, _judges, KNOWN)
