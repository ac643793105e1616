"""What a command shows: tables and words for people, one JSON document with ``--json``, progress for who watches.

Results go to standard output, everything else to standard error; into a pipe goes no colour and no progress.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 240
"""Columns of a table that nobody's terminal is to fit."""

Progress = Callable[[int, int], None]
"""(done, total)."""


def quiet(_done: int, _total: int) -> None:
    """Progress that nobody watches."""


def printable(text: str) -> str:
    """The text with what a terminal would obey written out: strangers choose names and contents."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def count_of(count: int, name: str) -> str:
    """1 bundle, 2 bundles."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def shorten(text: str, limit: int) -> str:
    """The text, or its beginning where it is longer: keys may have thousands of digits."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class Output:
    """Where one command writes."""

    def __init__(self, *, as_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self._out = out or sys.stdout
        self._err = err or sys.stderr

    def document(self, values: Any, render: Callable[[Output], None]) -> None:
        """The result: ``values`` as JSON, or what ``render`` writes for people."""
        if self.as_json:
            json.dump(values, self._out, ensure_ascii=False, indent=2 if self._out.isatty() else None)
            self._out.write("\n")
        else:
            render(self)

    def line(self, text: str = "") -> None:
        self._out.write(f"{text}\n")

    def flush(self) -> None:
        """So that what is written to both outputs comes in order."""
        self._out.flush()

    def pairs(self, pairs: Sequence[tuple[str, object]]) -> None:
        """Names and values, one a line."""
        width = max(len(name) for name, _ in pairs) + 2
        for name, value in pairs:
            self.line(f"{name:<{width}}{printable(str(value))}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[str] = ()) -> None:
        """``numbers``: columns that are aligned to the right."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(str(cell))) for cell in row))
        self._console(self._out).print(table)

    def csv(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        from logstore.csv_text import write_csv_rows

        write_csv_rows(self._out, columns, rows)

    def verified(
        self, pairs: Sequence[tuple[str, object]], proves: str, leaves_open: str, remarks: Sequence[str] = ()
    ) -> None:
        """A verdict for people: what it is about, what it proves, and what it does not."""
        rest = [("leaves open", leaves_open)] if leaves_open else []
        rest += [("remark", remark) for remark in remarks]
        self.line("verified")
        self.pairs([*pairs, ("proves", proves), *rest])

    def note(self, text: str) -> None:
        """Something beside the result."""
        self._err.write(f"{text}\n")

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """A bar on standard error, if that is somebody's terminal."""
        if not self._err.isatty():
            yield quiet
            return
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        with Bar(*columns, console=self._console(self._err), transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextmanager
    def busy(self, label: str) -> Iterator[None]:
        """Something that takes time and tells nothing of how much is left."""
        if not self._err.isatty():
            yield
            return
        with self._console(self._err).status(label):
            yield

    def _console(self, file: TextIO) -> Console:
        from rich.console import Console

        class PipeConsole(Console):
            def on_broken_pipe(self) -> None:
                """Leave it to the command line, which knows the status."""
                raise

        return PipeConsole(file=file, highlight=False, width=None if file.isatty() else PIPE_WIDTH)
