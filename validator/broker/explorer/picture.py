"""Message rate over time as one inline picture: no script, colours by the style, each bar with its words on hover."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log10

from validator.broker.explorer.counting import Rate
from validator.broker.explorer.pieces import utc

WIDTH, HEIGHT = 720, 120
"""Of the bars; they are stretched to the page's width, so what is written stands beside them."""


def draw_rate(rate: Rate, link: Callable[[int], str] | None = None) -> str:
    """``link``: where a bar leads to, from its start."""
    per_s = 1000 / rate.bar_ms
    highest = max((count or 0 for count in rate.counts), default=0) * per_s
    top = _round_up(highest)
    step = WIDTH / len(rate.counts)
    bars = []
    for place, count in enumerate(rate.counts):
        start_ms = rate.start_ms + place * rate.bar_ms
        x = place * step
        said = "not counted" if count is None else f"{count:,} messages, {_number(count * per_s)} a second"
        height = HEIGHT if count is None else max(HEIGHT * count * per_s / top, 1.5 if count else 0)
        kind = " class=none" if count is None else ""
        bar = (
            f"<rect class=hit x='{x:.2f}' y='0' width='{step:.2f}' height='{HEIGHT}'/>"
            f"<rect{kind} x='{x + step * 0.12:.2f}' y='{HEIGHT - height:.2f}' width='{step * 0.76:.2f}'"
            f" height='{height:.2f}'/><title>{utc(start_ms)[:19]} UTC: {said}</title>"
        )
        bars.append(f"<a href='{link(start_ms)}'>{bar}</a>" if link is not None and count else f"<g>{bar}</g>")
    grid = "".join(f"<line x1='0' x2='{WIDTH}' y1='{y}' y2='{y}'/>" for y in (0, HEIGHT // 2, HEIGHT))
    heights = "".join(f"<span>{_number(top * part)}</span>" for part in (1, 0.5, 0))
    return (
        f"<div class=rate><div class=heights aria-hidden=true>{heights}</div>"
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' preserveAspectRatio=none role={'group' if link else 'img'}"
        f" aria-label='{_describe(rate, highest)}'>{grid}{''.join(bars)}</svg>"
        f"<div class=times aria-hidden=true>{_times(rate)}</div></div>"
    )


def _times(rate: Rate) -> str:
    """Under the picture: where it begins, its middle, its end."""
    length_ms = rate.end_ms - rate.start_ms
    cut = slice(5, 16) if length_ms >= 86_400_000 else slice(11, 19) if length_ms < 3_600_000 else slice(11, 16)
    places = (rate.start_ms, rate.start_ms + length_ms // 2, rate.end_ms)
    return "".join(f"<span>{utc(ms)[cut]}{' UTC' if ms == rate.end_ms else ''}</span>" for ms in places)


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
