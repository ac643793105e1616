"""The message bus: the network that carries messages between publishers and brokers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from validator.protocol.model import StreamPart

MAX_BATCH = 256
"""Messages that one batch holds at most."""


class Delivered(NamedTuple):
    """One message as the network handed it over: nobody has checked it.

    ``data`` is a protobuf StreamMessage (reference: Streamr, protobuf), of whatever content; ``part`` is what the
    network carried it under, which the message itself may deny.
    """

    part: StreamPart
    data: bytes


class MessageBus(Protocol):
    """Join stream partitions, hand over what arrives, publish.

    The network loses, repeats and reorders messages, and verifies none. All calls belong to one event loop, and raise
    only errors of ``validator.protocol.errors``.
    """

    async def join(self, parts: Sequence[StreamPart]) -> None:
        """Ask for the messages of these parts from now on; asking twice is no news.

        Raises:
            TransientError: the network is away; the parts are joined once it is back.
            RemoteFault: the network refuses a part.
        """

    async def leave(self, parts: Sequence[StreamPart]) -> None:
        """Ask for them no more; raises as ``join``. Messages under way may still be handed over."""

    async def publish(self, part: StreamPart, data: bytes) -> None:
        """Hand a message to the network, joined or not. That it arrives anywhere is not promised.

        Who has joined the part gets what it publishes itself, too.

        Raises:
            TransientError: the network is away, or takes no more at the moment.
        """

    def batches(self) -> AsyncIterator[Sequence[Delivered]]:
        """Messages as they arrive, ``MAX_BATCH`` at a time at most; ends when the bus is closed. One reader."""

    def dropped(self) -> int:
        """How many messages were let go because nobody read fast enough. Never silent, never reset."""

    async def close(self) -> None:
        """End; ``batches`` ends when it has handed over what is here. Closing twice is harmless."""
