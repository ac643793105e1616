"""Who this validator is: its voting key, if it has one here, and what may keep it from voting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.codec.statement import SigningContext
from validator.protocol.model import Address

NOBODY = Address(bytes(20))
"""The observer in observations of a validator without a seat; nobody counts them."""

FOLLOWS = "the members' certificate (this validator observes)"
"""What an instance of an observer waits for."""


@dataclass(frozen=True, slots=True)
class Origin:
    """When the database began: time of the newest block then, and the config count."""

    created_s: int
    config_count: int


def unblocked() -> str:
    """Where nothing keeps a validator from voting."""
    return ""


@dataclass(frozen=True, slots=True)
class Identity:
    """``voting_key`` is None for an observer and in workers that never vote."""

    signing: SigningContext
    voting_key: Signer | None
    may_vote: bool = True
    origin: Origin | None = None
    voting_block: Callable[[], str] = unblocked
    """What keeps us from voting now (a full disk, a retired database), or ""."""

    @property
    def address(self) -> Address | None:
        return self.voting_key.address if self.voting_key is not None else None

    @property
    def is_observer(self) -> bool:
        """Whether the operator wants it to follow and sign nothing."""
        return not self.may_vote

    def others(self, members: Iterable[Address]) -> list[Address]:
        """The members without ourselves, in their order."""
        return [member for member in members if member != self.address]
