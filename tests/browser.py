"""Chromium without a window, where it is there, for pages that must work in a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = "PAGE_PICTURES"
"""Names a folder in which pictures are kept, for whoever wants to look at them."""
_WORDS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"),
    *("--no-first-run", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


def run_browser(folder: Path, url: str, *words: str) -> str:
    """What it prints of the page; ``folder`` holds its profile."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *_WORDS, f"--user-data-dir={folder / 'profile'}", *words, url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "HOME": str(folder)},
    )
    return done.stdout
