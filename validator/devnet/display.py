"""What one sees while the network runs: a live table on a terminal, one plain line per change elsewhere.

Texts from outside (states, reasons, names) are shown without markup, control characters as ``\\x1b``. The table fits
the terminal, 80 columns too: where states have no room they are cut to three letters, which the legend spells out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from validator.ports.states import AnnouncedState, BundleState, ReportState, WindowState

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from validator.devnet.progress import Progress

SHOWN_LINES = 8
MAX_WINDOWS_SHOWN = 16
MARK = 3
"""Letters of a state where there is no room for the word: no two states of a table begin alike."""
_GOOD = frozenset({WindowState.AGREED, WindowState.HELD, BundleState.VERIFIED, BundleState.FINAL})
_BAD = frozenset({"away", AnnouncedState.REFUSED, ReportState.REVERTED})
_WINDOW_HEADS = ("window", "leader", "round", "votes")
_BUNDLE_HEADS = ("bundle", "upload", "report")
_COLUMNS = "votes: observations · prevotes · precommits; report: its state (signers)"
_COLOURS = (("done", "green"), ("under way", "yellow"), ("away or refused", "red"))


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

        if self._live is None:
            self._live = Live(console=Console(file=self._stream), auto_refresh=False, redirect_stdout=False)
            self._live.start()
        self._live.update(self._picture(progress, self._live.console.width), refresh=True)

    def end_live(self) -> None:
        """Leave the last picture standing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _picture(self, progress: Progress, width: int) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        windows, bundles = progress.window_rows()[-MAX_WINDOWS_SHOWN:], progress.bundle_rows()
        names = progress.short_names
        is_short = width < max(
            _needed_width(heads, names, rows) for heads, rows in ((_WINDOW_HEADS, windows), (_BUNDLE_HEADS, bundles))
        )
        states = {cell for rows, first in ((windows, 4), (bundles, 3)) for row in rows for cell in row[first:] if cell}
        return Group(
            _line(progress.headline()),
            Text(""),
            _table(_WINDOW_HEADS, names, windows, is_short),
            Text(""),
            _table(_BUNDLE_HEADS, names, bundles, is_short),
            Text(""),
            _legend(sorted(states) if is_short else ()),
            *(_line(line) for line in self._lines),
        )


def _needed_width(heads: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Columns that a table takes with whole words."""
    columns = zip((*heads, *names), *rows, strict=True)
    return sum(max(len(clean(cell, 60)) for cell in column) + 2 for column in columns)


def _table(heads: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[str]], is_short: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1 if is_short else 2, 0, 0), pad_edge=False)
    for title in (*heads, *names):
        table.add_column(Text(title), no_wrap=True)
    for row in rows:
        plain = [Text(clean(cell, 60)) for cell in row[: len(heads)]]
        table.add_row(*plain, *(_state(cell, is_short) for cell in row[len(heads) :]))
    return table


def _state(state: str, is_short: bool) -> Text:
    from rich.text import Text

    shown = clean(state, 60)
    return Text(shown[:MARK] if is_short else shown, style=_style(state))


def _style(state: str) -> str:
    return "green" if state in _GOOD else "red" if state in _BAD else "yellow"


def _legend(cut: Sequence[str]) -> Text:
    """What the columns and colours mean, and the words that were cut."""
    from rich.text import Text

    text = Text(f"{_COLUMNS}\n", style="dim")
    for word, colour in _COLOURS:
        text.append("■ ", style=colour).append(f"{word}  ")
    for state in cut:
        text.append(f"{clean(state, 60)[:MARK]} {clean(state, 60)}  ")
    return text


def _line(text: str) -> Text:
    """One line, cut where the terminal ends."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")
