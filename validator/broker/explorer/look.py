"""How the explorer looks: the colours of all our pages and three more, and one style for both themes and any width."""

from __future__ import annotations

from importlib.resources import files

from validator import look

LIGHT = {**look.LIGHT, "page": "#f4f5f7", "accent": "#1d5cb8"}
DARK = {**look.DARK, "page": "#0d0f12", "accent": "#86b6ff"}
"""``page`` lies behind the cards, whose background is ``ground``; ``accent`` is for links and bars."""


def stylesheet() -> str:
    return look.theme_style(LIGHT, DARK) + files(__package__).joinpath("web/explorer.css").read_text(encoding="utf-8")
