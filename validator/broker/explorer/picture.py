"""Message rate over time as one inline picture: no script, colours by the style, each bar with its words on hover."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log10

from validator.broker.explorer.counting import Rate
from validator.broker.explorer.pieces import utc

WIDTH, HEIGHT = 720, 150
LEFT, TOP, BOTTOM = 44, 8, 20


def draw_rate(rate: Rate, link: Callable[[int, int], str] | None = None) -> str:
    """``link``: where a bar leads to, from its start and end."""
    per_s = 1000 / rate.bar_ms
    highest = max((count or 0 for count in rate.counts), default=0) * per_s
    top = _round_up(highest)
    room = HEIGHT - TOP - BOTTOM
    step = (WIDTH - LEFT) / len(rate.counts)
    grid = "".join(
        f"<line x1='{LEFT}' x2='{WIDTH}' y1='{TOP + room * (1 - part):.1f}' y2='{TOP + room * (1 - part):.1f}'/>"
        f"<text x='{LEFT - 8}' y='{TOP + room * (1 - part) + 4:.1f}' text-anchor='end'>{_number(top * part)}</text>"
        for part in (0, 0.5, 1)
    )
    bars = []
    for place, count in enumerate(rate.counts):
        start_ms = rate.start_ms + place * rate.bar_ms
        x = LEFT + place * step
        said = "not counted" if count is None else f"{count:,} messages, {_number((count or 0) * per_s)} a second"
        height = room if count is None else max(room * count * per_s / top, 1.5 if count else 0)
        kind = " class=none" if count is None else ""
        bar = (
            f"<rect class=hit x='{x:.2f}' y='{TOP}' width='{step:.2f}' height='{room}'/>"
            f"<rect{kind} x='{x + step * 0.12:.2f}' y='{TOP + room - height:.2f}' width='{step * 0.76:.2f}'"
            f" height='{height:.2f}' rx='1'/><title>{utc(start_ms)[:19]} UTC: {said}</title>"
        )
        bars.append(
            f"<a href='{link(start_ms, start_ms + rate.bar_ms)}'>{bar}</a>" if link and count else f"<g>{bar}</g>"
        )
    return (
        f"<svg class=rate viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{_describe(rate, highest)}'>"
        f"{grid}{''.join(bars)}{_times(rate)}</svg>"
    )


def _times(rate: Rate) -> str:
    """Under the picture: where it begins, its middle, its end."""
    places = ((LEFT, "start", 0.0), ((LEFT + WIDTH) / 2, "middle", 0.5), (WIDTH, "end", 1.0))
    length_ms = rate.end_ms - rate.start_ms
    cut = slice(5, 16) if length_ms >= 86_400_000 else slice(11, 19) if length_ms < 3_600_000 else slice(11, 16)
    return "".join(
        f"<text x='{x:.0f}' y='{HEIGHT - 4}' text-anchor='{anchor}'>"
        f"{utc(round(rate.start_ms + part * length_ms))[cut]}{' UTC' if part == 1 else ''}</text>"
        for x, anchor, part in places
    )


def _describe(rate: Rate, highest: float) -> str:
    most = f"at most {_number(highest)} messages a second"
    return f"Messages over time: {rate.total:,} from {utc(rate.start_ms)[:19]} to {utc(rate.end_ms)[:19]} UTC, {most}"


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 …, or a fraction of these."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (ceil(log10(value)) - 1)
    return next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= value * 0.999)


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
