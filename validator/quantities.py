"""How many of something, as people say it."""

from __future__ import annotations


def show_count(number: int, what: str, several: str = "") -> str:
    """ "1 validator", "4 validators", "1,000 messages"; ``several`` where the plural is not made by an s."""
    return f"{number:,} {what if number == 1 else several or what + 's'}"
