"""Which of several records of one identity is kept: one order, the same for everybody who counts the same.

Records of one identity differ in fields that the signature does not cover, or where fields without a separator
slid into each other. A forged variant is valid, so the choice rests on who shows it: first what most of the own
brokers served (two at least: one may lie), then a chain id of the clients' shape, then what most observers hold,
then the smallest leaf hash. The last is arbitrary, and equal for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from validator.protocol.columns import Row
from validator.protocol.errors import InvariantError
from validator.protocol.model import Record

MIN_BROKERS = 2
_CLIENT_CHAIN_ID = re.compile(rb"[0-9A-Za-z]{20}")
R = TypeVar("R", Row, Record)
"""A message in columns, or whole."""


@dataclass(frozen=True, slots=True)
class ServeCounts:
    """How many of the own brokers served exactly this record, and how many observers hold exactly it."""

    served: int = 0
    observers: int = 0


Candidate = tuple[R, ServeCounts]


def variant_rank(record: Row | Record, sighting: ServeCounts) -> tuple[int, bool, int, bytes]:
    """Sort key among variants: the smallest is kept. One broker's word counts as none."""
    return (
        -sighting.served if sighting.served >= MIN_BROKERS else 0,
        not has_client_chain_id(record),
        -sighting.observers,
        record.leaf,
    )


def rank_variants(candidates: Iterable[Candidate[R]]) -> tuple[R, ...]:
    """The variants of one identity, each once, the one to keep first; a leaf given twice counts with its best rank.

    Raises:
        InvariantError: records of different identities, or none.
    """
    ranked = sorted(candidates, key=lambda candidate: variant_rank(*candidate))
    identities = {record.identity for record, _ in ranked}
    if len(identities) != 1:
        raise InvariantError(f"variants of {len(identities)} identities")
    best: dict[bytes, R] = {}
    for record, _ in ranked:
        best.setdefault(record.leaf, record)
    return tuple(best.values())


def choose_variant(candidates: Iterable[Candidate[R]]) -> R:
    """The variant to keep. Raises InvariantError as ``rank_variants``."""
    return rank_variants(candidates)[0]


def ranks_worse(offered: Candidate[R], own: Candidate[R]) -> bool:
    """Whether ``offered`` is a worse choice than ``own`` for one identity; never true of a record and itself."""
    return offered[0].leaf != own[0].leaf and variant_rank(*offered) > variant_rank(*own)


def has_client_chain_id(record: Row | Record) -> bool:
    """Whether the chain id is as clients make it: 20 letters and digits."""
    chain = record.chain if isinstance(record, Row) else record.message.msg_chain_id.encode()
    return _CLIENT_CHAIN_ID.fullmatch(chain) is not None
