"""The port ``Store`` over one database and one folder of sets."""

from __future__ import annotations

from validator.ports.clock import Clock
from validator.store.archive import ArchiveRows
from validator.store.bundles import BundleRows
from validator.store.chain import ChainRows
from validator.store.database import Database
from validator.store.due import DueRows
from validator.store.events import EventRows
from validator.store.instances import InstanceRows
from validator.store.reports import ReportRows
from validator.store.retention import RetentionRows
from validator.store.segments import SegmentStore
from validator.store.sets import SetRows
from validator.store.weave import WeaveRows
from validator.store.windows import WindowRows


class SqlStore:
    """All rooms of one validator's database. Thread-safe; after a fork call ``database.forget_connections``."""

    def __init__(self, database: Database, segments: SegmentStore, clock: Clock) -> None:
        self.database = database
        self.due = DueRows(database, clock)
        self.windows = WindowRows(database, clock)
        self.instances = InstanceRows(database, clock)
        self.sets = SetRows(database, segments, clock)
        self.archive = ArchiveRows(database, clock)
        self.bundles = BundleRows(database, clock)
        self.reports = ReportRows(database, clock)
        self.weave = WeaveRows(database, clock)
        self.chain = ChainRows(database, clock)
        self.events = EventRows(database, clock)
        self.retention = RetentionRows(database, self.sets, clock)
