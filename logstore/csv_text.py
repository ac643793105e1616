"""CSV as RFC 4180 has it: a head, lines that end with CR LF, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

UNSAFE_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet takes for a formula; it gets a ' before it."""


def write_csv_rows(out: TextIO, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """How many rows. Null is an empty cell; true, false, lists and objects are written as JSON has them."""
    writer = csv.writer(out)
    writer.writerow(map(write_cell, names))
    count = 0
    for row in rows:
        writer.writerow(map(write_cell, row))
        count += 1
    return count


def write_cell(value: Any) -> Any:
    """A value as the writer of the standard library takes it."""
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(UNSAFE_STARTS):
        return f"'{value}"
    return value
