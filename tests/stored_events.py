"""Events as they were stored, with all their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from validator.store import schema
from validator.store.database import Database
from validator.store.events import LEVELS


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. Level "error" is an alarm: a human must act."""

    at_ms: int
    level: str
    event: str
    fields: Mapping[str, Any]


def load_events(database: Database, *, levels: tuple[str, ...] = LEVELS, limit: int = 100) -> list[Event]:
    """Newest first."""
    t = schema.events
    query = select(t).where(t.c.level.in_(levels)).order_by(t.c.id.desc()).limit(limit)
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [Event(row.at_ms, row.level, row.event, json.loads(row.fields)) for row in rows]
