"""The status page in a browser: it fits a phone, updates itself without being loaded anew, and runs nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.broker_parts import serving
from tests.browser import BROWSER, PICTURES, run_browser
from tests.unit.server.test_operator import FakeView
from tests.unit.server.test_status_page import AROUND
from validator.server.operator import create_app
from validator.store.view.status import Status

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
Browse = Callable[..., str]


class CountingView(FakeView):
    """Whose number of due rows grows with each look."""

    def load_status(self, limit: int = 100) -> Status:
        return replace(super().load_status(limit), due=1_000 + len(self.asked))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = create_app(CountingView(), lambda: AROUND)
    with serving(app) as url:
        yield f"{url}/"


@pytest.fixture
def browse(tmp_path: Path, url: str) -> Browse:
    def run(*words: str) -> str:
        return run_browser(tmp_path, url, *words)

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return Path(os.environ.get(PICTURES, str(tmp_path)))


def test_it_updates_itself_and_stays_the_page_it_was(browse: Browse) -> None:
    page = browse("--virtual-time-budget=9000", "--dump-dom")
    (times,) = re.findall(r'data-updated="(\d+)"', page)
    assert int(times) >= 2
    assert int(re.findall(r"<b>(\d+)</b> due", page)[0]) > 1_001
    assert page.count("<script>") == 1


def test_only_tables_are_wider_than_a_phone(browse: Browse, pictures: Path) -> None:
    browse("--window-size=500,1600", "--virtual-time-budget=3000", f"--screenshot={pictures / 'phone.png'}")
    page = browse("--window-size=500,1600", "--virtual-time-budget=3000", "--dump-dom")
    assert '<meta name="viewport" content="width=device-width"' in page
    (width,) = re.findall(r'data-overflow="(-?\d+)"', page)
    assert int(width) <= 0


def test_it_is_shown_in_both_themes(browse: Browse, pictures: Path) -> None:
    seen = []
    for name, scheme in (("light", "1"), ("dark", "0")):
        picture = pictures / f"{name}.png"
        words = (f"--screenshot={picture}", f"--blink-settings=preferredColorScheme={scheme}")
        browse("--window-size=1400,1700", "--virtual-time-budget=3000", *words)
        seen.append(picture.read_bytes())
    assert seen[0] != seen[1]
