"""A short log for the operator's screen: the newest events, with their fields. Not the log of record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from validator.store import schema
from validator.store.rows import require_word

LEVELS = ("info", "warning", "error")
MAX_EVENTS = 10_000
MAX_FIELDS = 4_000
"""Characters kept of an event's fields."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; an alarm is an event of level "error"."""

    at_ms: int
    level: str
    event: str
    fields: Mapping[str, Any]


def save_event(connection: Connection, at_ms: int, level: str, event: str, fields: Mapping[str, Any]) -> None:
    """Add an event and drop the oldest beyond ``MAX_EVENTS``."""
    require_word(level, LEVELS, "event.level")
    text = json.dumps(fields, default=str, sort_keys=True)
    if len(text) > MAX_FIELDS:
        text = json.dumps({"cut": text[: MAX_FIELDS // 2]})
    t = schema.events
    row = {"at_ms": at_ms, "level": level, "event": event[:64], "fields": text}
    key = connection.execute(insert(t).values(**row)).inserted_primary_key
    assert key is not None
    connection.execute(delete(t).where(t.c.id <= key[0] - MAX_EVENTS))


def load_events(connection: Connection, *, levels: tuple[str, ...] = LEVELS, limit: int = 100) -> list[Event]:
    """Newest first."""
    t = schema.events
    query = select(t).where(t.c.level.in_(levels)).order_by(t.c.id.desc()).limit(limit)
    return [Event(r.at_ms, r.level, r.event, json.loads(r.fields)) for r in connection.execute(query)]
