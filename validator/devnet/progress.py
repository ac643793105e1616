"""How far the network is, from the validators' status pages: what changed, whether it is stuck, whether it is done.

Everything read here is another process's word: fields are taken one by one, with a type check, never trusted to be
there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from validator.devnet.plan import Options, bundle_count
from validator.ports.states import BundleState, ReportState, WindowState
from validator.quantities import show_count

WINDOW_LADDER = (WindowState.OPEN, WindowState.COLLECTED, "observed", WindowState.AGREED, WindowState.HELD)
REPORT_LADDER = tuple(ReportState)
LOOK_S = 2.0
"""So often a run looks at its validators."""
PAUSE_S = 0.2
"""So often it looks at its children meanwhile."""
BEHIND_S = 30.0
"""How long the others are waited for once a quorum has the last report as final."""


def read_field(data: Any, name: str, kind: type, default: Any) -> Any:
    """A field of foreign JSON if it is there and of that type."""
    value = data.get(name) if isinstance(data, Mapping) else None
    return value if isinstance(value, kind) and not (kind is int and isinstance(value, bool)) else default


def read_items(data: Any, name: str) -> list[Mapping[str, Any]]:
    """The objects of a list field."""
    return [item for item in read_field(data, name, list, []) if isinstance(item, Mapping)]


@dataclass(slots=True)
class Progress:
    """The newest status of each validator, and when something last changed. Times: Unix ms, monotonic in ``_s``."""

    options: Options
    genesis_ms: int
    members: Mapping[str, str]
    """Node address (0x hex, lower case) to name, in the order of names."""
    now_ms: int = 0
    statuses: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    changed_s: float = 0.0
    quorum_final_s: float | None = None
    _seen: set[tuple[str, int, str]] = field(default_factory=set)
    _last: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return list(self.members.values())

    @property
    def short_names(self) -> list[str]:
        return [shorten(name) for name in self.names]

    # --- changes ----------------------------------------------------------------------------------

    def take_in(self, statuses: Mapping[str, Mapping[str, Any]], now_ms: int, now_s: float) -> list[str]:
        """Remember new statuses; one line for each state that somebody is the first to reach."""
        self.now_ms = now_ms
        self.statuses.update(statuses)
        if not self.changed_s:
            self.changed_s = now_s
        lines = []
        for name, status in statuses.items():
            for subject, number, state, detail in self._states(status):
                if state and (subject, number, state) not in self._seen:
                    self._seen.add((subject, number, state))
                    lines.append(f"{subject} {number} {state}{detail}, first at {name}")
        signature = self._signature()
        if signature != self._last:
            self._last = signature
            self.changed_s = now_s
        return lines

    def note_change(self, now_s: float) -> None:
        """Something else moved: a validator came back."""
        self.changed_s = now_s

    def _states(self, status: Mapping[str, Any]) -> list[tuple[str, int, str, str]]:
        found = []
        for window in read_items(status, "windows"):
            state = read_field(window, "state", str, "")
            detail = ""
            if state in (WindowState.AGREED, WindowState.HELD):
                detail = f" (round {read_field(window, 'round', int, 0)}, leader {self.name_of(window.get('leader'))})"
            found.append(("window", self.index_of(read_field(window, "start_ms", int, 0)), state, detail))
        for late in read_items(status, "late"):
            found.append(("late set", read_field(late, "number", int, -1), read_field(late, "state", str, ""), ""))
        for bundle in read_items(status, "bundles"):
            number = read_field(bundle, "number", int, -1)
            found.append(("bundle", number, read_field(bundle, "state", str, ""), ""))
            for upload in read_items(bundle, "uploads"):
                if upload.get("own") is True:
                    found.append(("upload of bundle", number, read_field(upload, "state", str, ""), ""))
        for report in read_items(status, "reports"):
            found.append(("report", read_field(report, "number", int, -1), read_field(report, "state", str, ""), ""))
        return found

    def _signature(self) -> tuple[str, ...]:
        """Every state at every validator, as texts that can be compared."""
        return tuple(
            f"{name} {subject} {number} {state}"
            for name in self.names
            for subject, number, state, _ in self._states(self.statuses.get(name, {}))
        )

    # --- the end ----------------------------------------------------------------------------------

    def final_at(self) -> list[str]:
        """Validators for whom the closing bundle's report is final."""
        last = bundle_count(self.options) - 1
        return [
            name
            for name, status in self.statuses.items()
            if any(
                read_field(b, "number", int, -1) >= last
                and read_field(b, "epoch", int, 0) == 1
                and b.get("state") == BundleState.FINAL
                for b in read_items(status, "bundles")
            )
        ]

    def final_reports(self) -> list[int]:
        """Numbers of the bundles that are final for anybody, as far as they are shown."""
        return sorted({read_field(b, "number", int, -1) for s in self.statuses.values() for b in _final(s)})

    def agreed_windows(self) -> list[int]:
        """Windows, from 0, that anybody has agreed on, as far as they are shown."""
        return sorted(
            {
                self.index_of(read_field(window, "start_ms", int, 0))
                for status in self.statuses.values()
                for window in read_items(status, "windows")
                if window.get("state") in (WindowState.AGREED, WindowState.HELD)
            }
        )

    def is_done(self, now_s: float) -> bool:
        """All have the last report as final; or a quorum has, and the others had half a minute more."""
        final = self.final_at()
        if len(final) == len(self.members):
            return True
        count = len(self.members)
        if len(final) >= count - (count - 1) // 3 and self.quorum_final_s is None:
            self.quorum_final_s = now_s
        return self.quorum_final_s is not None and now_s - self.quorum_final_s > BEHIND_S

    def describe_wait(self) -> str:
        """What the validators wait for, for the reason of a stuck run."""
        waits: dict[str, list[str]] = {}
        for name in self.names:
            status = self.statuses.get(name)
            if status is None:
                waits.setdefault("no answer", []).append(name)
                continue
            for window in read_items(status, "windows"):
                if read_field(window, "state", str, "") not in (WindowState.AGREED, WindowState.HELD):
                    what = read_field(window, "waits_for", str, "") or read_field(window, "state", str, "")
                    text = f"window {self.index_of(read_field(window, 'start_ms', int, 0))}: {what}"
                    waits.setdefault(text, []).append(name)
                    break
            else:
                open_bundles = [b for b in read_items(status, "bundles") if b.get("state") != BundleState.FINAL]
                last = open_bundles[0] if open_bundles else {}
                text = f"bundle {read_field(last, 'number', int, -1)} {read_field(last, 'state', str, 'not begun')}"
                waits.setdefault(text, []).append(name)
        return "; ".join(f"{what} ({', '.join(who)})" for what, who in waits.items())

    # --- shown ------------------------------------------------------------------------------------

    def headline(self) -> str:
        """Which window it is, and how many are through."""
        if self.now_ms < self.genesis_ms:
            return f"first window begins in {(self.genesis_ms - self.now_ms + 999) // 1000} s"
        index = self.index_of(self.now_ms)
        final, here = self.final_reports(), show_count(len(self.statuses), "validator")
        if self.options.keep:
            reports = show_count(final[-1] + 1 if final else 0, "report")
            return f"window {index} · {reports} final · {here}"
        total = self.options.windows
        what = f"window {index} of {total}" if index < total else "closing windows"
        return f"{what} · {len(final)} of {show_count(bundle_count(self.options), 'report')} final · {here}"

    def window_rows(self) -> list[list[str]]:
        """Window, leader, round, votes, state per validator."""
        by_index: dict[int, dict[str, Mapping[str, Any]]] = {}
        for name, status in self.statuses.items():
            for window in read_items(status, "windows"):
                by_index.setdefault(self.index_of(read_field(window, "start_ms", int, 0)), {})[name] = window
        rows = []
        for index, views in sorted(by_index.items()):
            furthest = max(
                views.values(), key=lambda w: (_rank(WINDOW_LADDER, w.get("state")), read_field(w, "round", int, 0))
            )
            rows.append(
                [
                    str(index),
                    self.name_of(furthest.get("leader")),
                    str(read_field(furthest, "round", int, 0)),
                    _votes(read_field(furthest, "votes", dict, {})),
                    *(self._cell(name, read_field(views.get(name), "state", str, "")) for name in self.names),
                ]
            )
        return rows

    def bundle_rows(self) -> list[list[str]]:
        """Bundle, who uploads, the report's state and signers, the bundle's state per validator."""
        numbers = sorted(
            {read_field(b, "number", int, -1) for s in self.statuses.values() for b in read_items(s, "bundles")}
        )
        rows = []
        for number in numbers:
            cells, uploads, reports = [], "", ("", 0)
            for name in self.names:
                status = self.statuses.get(name, {})
                bundle = next((b for b in read_items(status, "bundles") if b.get("number") == number), None)
                cells.append(self._cell(name, read_field(bundle, "state", str, "")))
                for upload in read_items(bundle, "uploads"):
                    uploads = f"{read_field(upload, 'storage_id', str, '')[:8]} by {self.name_of(upload.get('by'))}"
                for report in read_items(status, "reports"):
                    if report.get("number") == number:
                        seen = (read_field(report, "state", str, ""), len(read_field(report, "signers", list, [])))
                        reports = max(reports, seen, key=lambda r: (_rank(REPORT_LADDER, r[0]), r[1]))
            report_text = f"{reports[0]} ({reports[1]})" if reports[0] else ""
            rows.append([str(number), uploads, report_text, *cells])
        return rows

    def index_of(self, start_ms: int) -> int:
        """Number of the window in which a time lies, from 0."""
        return (start_ms - self.genesis_ms) // self.options.window_ms

    def name_of(self, address: Any) -> str:
        """A validator's short name by its address; what is no member's address is shown as it is."""
        if not isinstance(address, str):
            return "-"
        name = self.members.get(address.lower())
        return address if name is None else shorten(name)

    def _cell(self, name: str, state: str) -> str:
        return "away" if name in self.away else state


def shorten(name: str) -> str:
    """ "v3" for "validator-3": tables have little room."""
    return name.replace("validator-", "v")


def _final(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [b for b in read_items(status, "bundles") if b.get("state") == BundleState.FINAL]


def _rank(ladder: Sequence[str], state: Any) -> int:
    return ladder.index(state) if state in ladder else -1


def _votes(votes: Mapping[str, Any]) -> str:
    """How many observations, prevotes and precommits are there."""
    counts = (read_field(votes, kind, int, 0) for kind in ("observation", "prevote", "precommit"))
    return " · ".join(str(count) for count in counts)
