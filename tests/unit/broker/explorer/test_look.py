"""What the explorer's pages look like, as far as it can be computed; what lies beside them; and their pictures."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from pathlib import Path

import httpx
import pytest

import validator.broker.explorer
from tests.asgi import AsgiClient
from tests.builders import GENESIS_MS
from tests.explorer_world import NOW_MS, PART, ExplorerWorld
from validator.broker.explorer import reading, routes
from validator.broker.explorer.assets import LIBRARIES, Assets
from validator.broker.explorer.counting import BARS, Rate, Span, count_all, count_part
from validator.broker.explorer.look import DARK, LIGHT
from validator.broker.explorer.pace import Pace
from validator.broker.explorer.picture import draw_rate

WEB = Path(validator.broker.explorer.__file__).parent / "web"


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_can_be_read_on_cards_and_between_them(theme: dict[str, str]) -> None:
    names = ("text", "dim", "good", "warn", "bad", "accent")
    worst = min((contrast(theme[name], theme[ground]), name, ground) for name in names for ground in ("ground", "page"))
    assert worst[0] >= 4.5, worst
    assert contrast(theme["ground"], theme["text"]) >= 4.5  # the chosen one of several is the other way round


def test_the_style_names_no_colour_of_its_own() -> None:
    style = (WEB / "explorer.css").read_text()
    used = set(re.findall(r"var\(--(\w+)\)", style))
    assert used <= LIGHT.keys()
    assert not re.search(r"#[0-9a-f]{3,8}\b|rgb|hsl", style)


def test_libraries_are_npms_byte_for_byte() -> None:
    told = dict(re.findall(r"^\| (\S+) \| `([0-9a-f]{64})` \|$", (WEB / "SOURCE.md").read_text(), re.MULTILINE))
    files = {str(p.relative_to(WEB)) for name in ("noble-curves", "noble-hashes") for p in (WEB / name).rglob("*.*")}
    assert files == set(LIBRARIES)
    assert told.keys() == {*LIBRARIES, "noble-curves/LICENSE", "noble-hashes/LICENSE"}
    for name, digest in told.items():
        assert hashlib.sha256((WEB / name).read_bytes()).hexdigest() == digest, name


def test_what_lies_beside_pages_is_kept_for_ever_under_a_name_of_its_own(tmp_path: Path) -> None:
    world = ExplorerWorld(tmp_path)
    client = AsgiClient(world.app)
    folder = Assets().folder
    plain = client.get(f"/explorer/{folder}/checks.js", headers={"accept-encoding": "identity"})
    packed = client.get(f"/explorer/{folder}/checks.js", headers={"accept-encoding": "gzip"})
    assert plain.content == packed.content == (WEB / "checks.js").read_bytes()
    assert packed.headers["content-encoding"] == "gzip"
    assert "immutable" in plain.headers["cache-control"]
    assert plain.headers["content-type"].startswith("text/javascript")
    assert client.get(f"/explorer/{folder}/../routes.py").status_code == 404
    assert client.get("/explorer/assets/0000000000000000/checks.js").status_code == 404
    world.close()


def test_a_first_visit_to_a_message_fetches_little() -> None:
    assets = Assets()
    sent = [assets.find(name) for name in (*LIBRARIES, "checks.js", "page.js", "cbor.js", "every.js", "explorer.css")]
    assert all(asset is not None and gzip.decompress(asset.packed) == asset.plain for asset in sent)
    assert sum(len(asset.packed) for asset in sent if asset is not None) < 100_000


# --- pictures


@pytest.mark.parametrize("span", list(Span))
def test_sums_give_the_bars_that_counting_gives(tmp_path: Path, span: Span) -> None:
    world = ExplorerWorld(tmp_path)
    records = [*world.certified, world.late, world.hostile, *world.tail]
    rate = count_all(world.sums, span, NOW_MS)
    number, bar_ms = BARS[span]
    assert (len(rate.counts), rate.bar_ms) == (number, bar_ms)
    starts = range(rate.start_ms, rate.end_ms, bar_ms)
    times = [record.message.timestamp_ms for record in records]
    assert list(rate.counts) == [sum(start <= ms < start + bar_ms for ms in times) for start in starts]
    own = [record.message.timestamp_ms for record in records if record.message.stream_part == PART]
    rate = count_part(world.broker.store, PART, span, NOW_MS)
    starts = range(rate.start_ms, rate.end_ms, bar_ms)
    assert list(rate.counts) == [sum(start <= ms < start + bar_ms for ms in own) for start in starts]
    world.close()


def test_counting_stops_where_its_budget_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validator.broker.explorer.counting.COUNTED", 30)
    world = ExplorerWorld(tmp_path)
    rate = count_part(world.broker.store, PART, Span.MINUTES, NOW_MS)
    assert rate.counts[-1] == 0
    assert not rate.is_whole
    assert 30 <= rate.total <= 30 + 20
    assert "not counted" in draw_rate(rate)
    world.close()


def test_a_picture_says_in_words_what_it_shows() -> None:
    rate = Rate(Span.MINUTES, GENESIS_MS, 10_000, (0, 5, None, 123))
    drawn = draw_rate(rate, lambda start: f"stream?from={start}")
    assert "aria-label='Messages over time: 128 from 2023-11-14 22:13:20" in drawn
    assert "<title>2023-11-14 22:13:50 UTC: 123 messages, 12.3 a second</title>" in drawn
    assert f"<a href='stream?from={GENESIS_MS + 30_000}'>" in drawn
    assert drawn.count("<a ") == 2  # bars that hold something
    assert "NaN" not in draw_rate(Rate(Span.WEEK, 0, 1000, (0,) * 84))


# --- bounds


def test_pages_work_a_fifth_of_the_time_however_many_are_asked_for() -> None:
    now = [100.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    pace = Pace(lambda: now[0], lambda: now[0], pass_time)
    for _ in range(20):
        pace.run(lambda: pass_time(0.01))
    assert now[0] - 100 == pytest.approx(20 * 0.01 + 19 * 0.04)
    pass_time(10)
    begun = now[0]
    pace.run(lambda: pass_time(0.01))
    assert now[0] - begun == pytest.approx(0.01)  # nobody waits for what was long ago


def test_a_page_that_fails_is_rested_from_too() -> None:
    now = [0.0]
    slept: list[float] = []
    pace = Pace(lambda: now[0], lambda: now[0], slept.append)

    def fail() -> None:
        now[0] += 1
        raise ValueError

    with pytest.raises(ValueError):
        pace.run(fail)
    pace.run(lambda: None)
    assert slept == [4.0]


async def test_pages_are_made_once_for_all_who_ask_and_not_more_than_so_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "UNDER_WAY", 3)
    world = ExplorerWorld(tmp_path)
    made = []
    real = reading.read_streams

    def read(parts: object, asked: str, page: int, span: Span) -> object:
        made.append(asked)
        return real(world.parts, asked, page, span)

    monkeypatch.setattr(routes, "read_streams", read)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url="http://b.test") as client:
        answers = await asyncio.gather(*(client.get("/explorer/") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert made == [""]
        answers = await asyncio.gather(*(client.get(f"/explorer/?q={n}") for n in range(5)))
        assert [answer.status_code for answer in answers] == [200, 200, 200, 503, 503]
        assert answers[-1].headers["retry-after"] == "5"
        assert (await client.get("/explorer/?q=4")).status_code == 200
    world.close()
