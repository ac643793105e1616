"""What one sees while the network runs: a live table on a terminal, one plain line per change elsewhere.

Texts from outside (states, reasons, names) are shown without markup, control characters as ``\\x1b``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from validator.devnet.progress import Progress

SHOWN_LINES = 8
MAX_WINDOWS_SHOWN = 16


def clean(text: str, limit: int = 200) -> str:
    """A text safe to print: what is not printable as its escape, and not too much of it."""
    shown = "".join(c if c.isprintable() else _escape(c) for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Display:
    """Lines that stay, and on a terminal a table below them that is drawn anew. Use as a context manager."""

    def __init__(self, stream: TextIO | None = None, *, is_live: bool | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._is_live = self._stream.isatty() if is_live is None else is_live
        self._live: Live | None = None
        self._lines: list[str] = []
        self._started = time.monotonic()

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_details: object) -> None:
        self.end_live()

    def say(self, text: str) -> None:
        """A line that stays: set-up, addresses, the result."""
        line = clean(text, 2_000)
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text(line), soft_wrap=True)
            return
        self._stream.write(line + "\n")
        self._stream.flush()

    def change(self, text: str) -> None:
        """A change of state: its own line on a pipe, one of the newest few on a terminal."""
        line = f"{time.monotonic() - self._started:6.1f} s  {clean(text, 300)}"
        if self._is_live:
            self._lines = [*self._lines[-(SHOWN_LINES - 1) :], line]
            return
        self._stream.write(line + "\n")
        self._stream.flush()

    def show(self, progress: Progress) -> None:
        """Draw the table; nothing on a pipe."""
        if not self._is_live:
            return
        from rich.console import Console
        from rich.live import Live

        picture = self._picture(progress)
        if self._live is None:
            console = Console(file=self._stream)
            self._live = Live(picture, console=console, auto_refresh=False, redirect_stdout=False)
            self._live.start()
        self._live.update(picture, refresh=True)

    def end_live(self) -> None:
        """Leave the last picture standing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _picture(self, progress: Progress) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        head = Text(progress.headline())
        windows = Table(box=None, padding=(0, 1), title=None)
        for title in ("window", "leader", "round", "votes", *progress.short_names):
            windows.add_column(Text(title), no_wrap=True)
        for row in progress.window_rows()[-MAX_WINDOWS_SHOWN:]:
            windows.add_row(*_texts(row))
        bundles = Table(box=None, padding=(0, 1))
        for title in ("bundle", "upload", "report", *progress.short_names):
            bundles.add_column(Text(title), no_wrap=True)
        for row in progress.bundle_rows():
            bundles.add_row(*_texts(row))
        return Group(head, Text(""), windows, Text(""), bundles, Text(""), *(Text(line) for line in self._lines))


def _texts(row: Sequence[str]) -> list[RenderableType]:
    from rich.text import Text

    return [Text(clean(cell, 60)) for cell in row]
