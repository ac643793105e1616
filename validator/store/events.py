"""A short log for the operator's screen: the newest warnings and alarms, with their fields. Not the log of record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, insert

from validator.ports.clock import Clock
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import require_word

LEVELS = ("info", "warning", "error")
MAX_EVENTS = 10_000
MAX_FIELDS = 4_000
"""Characters kept of an event's fields."""


class EventRows:
    """What log.py hands over, newest kept."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def save_event(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Add an event and drop the oldest beyond ``MAX_EVENTS``."""
        require_word(level, LEVELS, "event.level")
        text = json.dumps(fields, default=str, sort_keys=True)
        if len(text) > MAX_FIELDS:
            text = json.dumps({"cut": text[: MAX_FIELDS // 2]})
        row = {"at_ms": self._clock.now_ms(), "level": level, "event": event[:64], "fields": text}
        t = schema.events
        with self._database.write() as connection:
            key = connection.execute(insert(t).values(**row).returning(t.c.id)).scalar_one()
            connection.execute(delete(t).where(t.c.id <= key - MAX_EVENTS))
