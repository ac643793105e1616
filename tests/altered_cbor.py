"""Canonical bytes with one element of their decoded form changed: what a decoder must refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2

Change = Callable[[Any], Any]


def put(*path: Any) -> Change:
    """Set the element at path[:-1] of the decoded form to path[-1]."""

    def change(fields: Any) -> None:
        for step in path[:-2]:
            fields = fields[step]
        fields[path[-2]] = path[-1]

    return change


def turn(*path: int) -> Change:
    """Reverse the list there."""

    def change(fields: Any) -> None:
        for step in path:
            fields = fields[step]
        fields.reverse()

    return change


def double(*path: int) -> Change:
    """Repeat the last element of the list there."""

    def change(fields: Any) -> None:
        for step in path:
            fields = fields[step]
        fields.append(fields[-1])

    return change


def changed(data: bytes, change: Change) -> bytes:
    """The bytes with that change in them."""
    fields = cbor2.loads(data)
    change(fields)
    return cbor2.dumps(fields)
