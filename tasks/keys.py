"""What each task's key names, looked at before anything is noted or asked: people call tasks by hand, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tasks.answers import WrongKey
from validator.ports.queue import Task
from validator.protocol.model import InstanceId
from validator.steps.asking import Fetch


class KeyKind(NamedTuple):
    """``check`` raises an error for what is none; ``words``: what it should be."""

    check: Callable[[str], object]
    words: str


def require_key(task: Task, key: str) -> None:
    """Raises WrongKey, which says what the task's key is."""
    kind = KINDS[task]
    try:
        kind.check(key)
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise WrongKey(f"{task.value} {str(key)[:80]!r}: the key is {kind.words}") from error


def _check_number(key: str) -> None:
    if not key.isascii() or not key.isdecimal() or len(key) > 18:
        raise ValueError(key)


def _check_word(key: str) -> None:
    if len(key) > 80:
        raise ValueError(key)


_NUMBER = KeyKind(_check_number, "a number: the start of a window in Unix ms, or a bundle's number")
_WORD = KeyKind(_check_word, "one word")
KINDS: Mapping[Task, KeyKind] = {
    **dict.fromkeys(Task, _NUMBER),
    Task.ROUND_ADVANCE: KeyKind(InstanceId.parse, "an instance, such as window:1700000000000 or late:7"),
    Task.ROUND_OBTAIN: KeyKind(Fetch.parse, "what a round has noted down to be fetched"),
    **dict.fromkeys((Task.ROUND_DUE, Task.ROUND_CATCH_UP, Task.SETS_MEND, Task.RETENTION_SWEEP), _WORD),
}
