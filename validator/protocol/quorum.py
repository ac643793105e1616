"""How many of n members are enough for what. Each function is named by its guarantee.

At most f = floor((n - 1) / 3) members are faulty. Two quorums of n - f share n - 2f >= f + 1 members, so at least
one honest one, also where n is not 3f + 1. Nobody agrees on anything in an empty committee: one vote is asked of
it, and it has none.
"""

from __future__ import annotations

from collections.abc import Iterable

from validator.protocol.model import Address, Node


def faulty(n: int) -> int:
    """f: the number of faulty members that n members survive."""
    return max(0, (n - 1) // 3)


def quorum(n: int) -> int:
    """Votes that decide: any two sets of this size share an honest member."""
    return max(1, n - faulty(n))


def one_honest(n: int) -> int:
    """Members of whom at least one is honest."""
    return faulty(n) + 1


def choose_committee(nodes: Iterable[Node], limit: int) -> tuple[Address, ...]:
    """The members among staked nodes, ascending: of those that name a validator URL the first ``limit`` by stake, then
    address. Empty where there is none: then the committee stays as it is.

    A function of what is on chain (chain.metadata says which texts are URLs), never of who answers.
    """
    willing = sorted((n for n in nodes if n.validator_url), key=lambda n: (-n.stake, n.address))
    return tuple(sorted(node.address for node in willing[:limit]))
