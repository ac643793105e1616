"""The generations of brokers that the development network's brokers speak like, one each.

| Era | Path | Password | Messages | No message | Another password |
|---|---|---|---|---|---|
| 2023 | /streams | 0x hex | lines of arrays, metadata as last line | an empty line, metadata | 500 |
| January 2024 | /stores | 0x hex | the same | the same | 500 |
| April 2024 | /stores | base64 | frames of protobuf | no type, no body | 500 |

Source: reference of the Log Store broker layer, HTTP API. The newest can hold every kind of message and comes first, so
that a network of one broker has one; arrays have no form for most of them.
"""

from __future__ import annotations

from enum import StrEnum

from validator.net.brokers.dialects import Dialect
from validator.protocol.codec.received import ARRAY, PROTOBUF


class Era(StrEnum):
    """A generation of brokers."""

    APRIL_2024 = "2024-04"
    JANUARY_2024 = "2024-01"
    YEAR_2023 = "2023"

    @property
    def dialect(self) -> Dialect:
        """Path and form of password."""
        return Dialect("streams" if self is Era.YEAR_2023 else "stores", self is not Era.APRIL_2024)

    @property
    def form(self) -> str:
        """In which form it holds and gives messages: ARRAY or PROTOBUF."""
        return PROTOBUF if self is Era.APRIL_2024 else ARRAY


def era_of(index: int) -> Era:
    """The era of the network's ``index``-th broker: all in turn, so that three brokers are one of each."""
    eras = list(Era)
    return eras[index % len(eras)]
