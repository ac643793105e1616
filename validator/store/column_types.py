"""Types of columns that are the same on both engines: what a stranger wrote, amounts, counting keys.

Whatever a stranger may have written can be stored, on both engines alike. Stream ids are names: they come back exactly
as they were (``StreamId``). What people read, such as the detail of a refusal, comes back with the few characters
spelt out that no database takes (``Words``). Columns of 64 bits hold what their door let in: numbers of the chain, of
statements and of messages are bounded where they are read (``chain.rpc.parse_number``, ``cbor.read_u63``).
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, LargeBinary, Numeric, String, Text, TypeDecorator
from sqlalchemy.types import TypeEngine


class Amount(TypeDecorator[int]):
    """An integer of up to 256 bits: NUMERIC(78, 0) on PostgreSQL, text on SQLite."""

    impl = Numeric(78, 0)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        kind: TypeEngine[Any] = String(78) if dialect.name == "sqlite" else Numeric(78, 0)
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return str(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else int(value)


class StreamId(TypeDecorator[str]):
    """A text that names something, kept as its UTF-8: U+0000 is a character of it like any other.

    Bytes that are no UTF-8 are lone surrogates in the text (PEP 383), and are kept as they were.
    """

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002
        return None if value is None else value.encode(errors="surrogateescape")

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else bytes(value).decode(errors="surrogateescape")


class Words(TypeDecorator[str]):
    """A text for people: U+0000, which PostgreSQL refuses, and lone surrogates, which are no UTF-8, are spelt out."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else _UNSTORABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", value)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

Serial = BigInteger().with_variant(Integer, "sqlite")
"""Type of a counting key: SQLite counts up INTEGER only."""
