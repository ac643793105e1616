"""A node for one command, closed after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from validator.wiring import Node


@contextmanager
def opened_node() -> Iterator[Node]:
    """A node of the settings here. What a command has to say it prints itself."""
    from validator.settings import load_settings
    from validator.wiring import Node, NoTasks

    log_errors_only()
    node = Node(load_settings(), NoTasks())
    try:
        yield node
    finally:
        node.close()


def log_errors_only() -> None:
    """What a command has to say it prints itself."""
    from validator import log as logs

    logs.configure("ERROR", "console")
