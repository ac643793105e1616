"""Rows to values and back: frozen dataclasses whose fields are named like the columns.

SQLAlchemy keeps the text of a statement, but building its expressions anew costs more than running it. So what runs
many times a second is built once, with parameters: inserts here, the queries about one instance beside their tables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Row, Table, and_, bindparam, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from validator.protocol.errors import InvariantError
from validator.protocol.model import InstanceId, InstanceKind

T = TypeVar("T")
S = TypeVar("S", bound=StrEnum)

CHUNK = 500
"""Values per IN list and rows per statement: below every engine's limit of bound parameters."""


def from_row(kind: type[T], row: Row[*tuple[Any, ...]], **parse: Callable[[Any], Any]) -> T:
    """Build a dataclass from a row with its columns; instance_kind and instance_number become ``instance``.

    ``parse``: what makes a value of the column of that name.
    """
    values = dict(row._mapping)
    values |= {name: read(values[name]) for name, read in parse.items()}
    if "instance_kind" in values:
        values["instance"] = InstanceId(InstanceKind(values.pop("instance_kind")), values.pop("instance_number"))
    return kind(**values)


def as_row(value: Any) -> dict[str, Any]:
    """Column values of a dataclass; the inverse of ``from_row``."""
    row = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    instance = row.pop("instance", None)
    if instance is not None:
        row["instance_kind"] = int(instance.kind)
        row["instance_number"] = instance.number
    return row


def is_instance(table: Table, instance: InstanceId, config_digest: bytes | None = None) -> ColumnElement[bool]:
    """Condition: the row belongs to this instance (of this config, where the table names one)."""
    conditions = [table.c.instance_kind == int(instance.kind), table.c.instance_number == instance.number]
    if config_digest is not None:
        conditions.append(table.c.config_digest == config_digest)
    return and_(*conditions)


def of_instance(table: Table, *, of_config: bool = False) -> ColumnElement[bool]:
    """``is_instance`` for statements that are built once; ``at_instance`` gives the parameters."""
    conditions = [table.c.instance_kind == bindparam("at_kind"), table.c.instance_number == bindparam("at_number")]
    if of_config:
        conditions.append(table.c.config_digest == bindparam("at_config"))
    return and_(*conditions)


def at_instance(instance: InstanceId, config_digest: bytes | None = None) -> dict[str, Any]:
    """Parameters for ``of_instance``."""
    place = {"at_kind": int(instance.kind), "at_number": instance.number}
    return place if config_digest is None else {**place, "at_config": config_digest}


def insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert one row; False if one with the same key is there already (it stays as it is)."""
    statement = _inserting_one_new(connection.dialect.name, table)
    return connection.execute(statement, row).first() is not None  # a row count is not to be had from every driver


def insert_all_new(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows; those whose key is there already stay as they are."""
    statement = _inserting_new(connection.dialect.name, table)
    for chunk in chunks(rows):
        connection.execute(statement, chunk)


def insert_or_replace(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert one row, or give the one with the same primary key these values."""
    connection.execute(_replacing(connection.dialect.name, table, tuple(row)), row)


def count_by(connection: Connection, column: Column[Any]) -> dict[str, int]:
    """Rows of the column's table per value."""
    return dict(connection.execute(select(column, func.count()).group_by(column)).all())


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Cut into lists of at most ``size``."""
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def states_below(state: S) -> list[S]:
    """The rungs below ``state``, in the order of its enum: only from these does a row climb to it."""
    ladder = list(type(state))
    return ladder[: ladder.index(state)]


def require_word(value: str, words: Sequence[str], what: str) -> None:
    """A state's name must be one of the ladder's. Raises InvariantError."""
    if value not in words:
        raise InvariantError(f"{what}: {value!r} is none of {', '.join(words)}")


def _insert(dialect: str, table: Table) -> Any:
    return (sqlite if dialect == "sqlite" else postgresql).insert(table)


@cache
def _inserting_new(dialect: str, table: Table) -> Any:
    return _insert(dialect, table).on_conflict_do_nothing()


@cache
def _inserting_one_new(dialect: str, table: Table) -> Any:
    return _inserting_new(dialect, table).returning(literal(1))


@cache
def _replacing(dialect: str, table: Table, names: tuple[str, ...]) -> Any:
    keys = [column.name for column in table.primary_key]
    statement = _insert(dialect, table)
    changes = {name: statement.excluded[name] for name in names if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changes)
