"""Proofs and certificates: a quorum of votes of one kind, one config digest, one instance, one round, one value.

A polka is of prevotes, a certificate of precommits; neither is ever for nil. A vote of another round does not help:
genuine precommits of rounds 0, 2 and 9 for v can stand beside a decision for w. That the window lies in the epoch
of the config digest is for the caller to check, who knows the epochs.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

from validator.protocol.codec.statement import SigningContext, verify_signatures
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import NIL, Address, Digest, InstanceId, Statement, StatementKind, VoteQuorum
from validator.protocol.quorum import quorum


def build_quorum(statements: Iterable[Statement]) -> VoteQuorum:
    """Join signed votes of one content; signers in ascending order. One vote per signer is the caller's duty."""
    votes = sorted(statements, key=lambda s: s.signer)
    first = votes[0]
    for one, next_one in itertools.pairwise(votes):
        if one.content != next_one.content or one.signer == next_one.signer:
            raise InvariantError("a quorum is of distinct signers of one content")
    return VoteQuorum(
        first.kind,
        first.config_digest,
        first.instance,
        first.round,
        first.value,
        tuple((s.signer, s.signature) for s in votes),
    )


def check_quorum(
    votes: VoteQuorum, config_digest: Digest, instance: InstanceId, committee: Collection[Address]
) -> None:
    """Everything but the signatures.

    Raises:
        MalformedInput: names the first thing that is wrong.
    """
    if votes.kind not in (StatementKind.PREVOTE, StatementKind.PRECOMMIT):
        raise MalformedInput("quorum.kind", "neither prevotes nor precommits")
    if votes.config_digest != config_digest:
        raise MalformedInput("quorum.config_digest", "another config digest")
    if votes.instance != instance:
        raise MalformedInput("quorum.instance", f"of {votes.instance}, not of {instance}")
    if votes.round < 0:
        raise MalformedInput("quorum.round", "negative")
    if votes.value == NIL:
        raise MalformedInput("quorum.value", "nil is never proven or decided")
    signers = [signer for signer, _ in votes.signatures]
    if any(not a < b for a, b in itertools.pairwise(signers)):
        raise MalformedInput("quorum.signatures", "signers not distinct and ascending")
    for signer in signers:
        if signer not in committee:
            raise MalformedInput("quorum.signatures", f"0x{signer.hex()} is not in the committee")
    needed = quorum(len(committee))
    if len(signers) < needed:
        raise MalformedInput("quorum.signatures", f"{len(signers)} signers where {needed} are needed")


def verify_quorum(
    votes: VoteQuorum,
    config_digest: Digest,
    instance: InstanceId,
    committee: Collection[Address],
    context: SigningContext,
) -> None:
    """Whether it is genuine, signatures last because they cost most: the one answer, for whoever is handed a quorum.

    Raises:
        MalformedInput: names the first thing that is wrong.
    """
    check_quorum(votes, config_digest, instance, committee)
    verify_signatures(votes, context)


def verify_certificate(
    certificate: VoteQuorum,
    config_digest: Digest,
    instance: InstanceId,
    committee: Collection[Address],
    context: SigningContext,
    value: Digest | None = None,
) -> None:
    """The same for a quorum that is to decide, and to decide ``value`` where that is given.

    Raises:
        MalformedInput: names the first thing that is wrong.
    """
    if certificate.kind is not StatementKind.PRECOMMIT:
        raise MalformedInput("quorum.kind", "a certificate is of precommits")
    if value is not None and certificate.value != value:
        raise MalformedInput("quorum.value", "another outcome")
    verify_quorum(certificate, config_digest, instance, committee, context)
