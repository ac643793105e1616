"""What the pages of all roles have in common: their colours, and how text from anywhere becomes HTML.

Colour has one meaning each and never stands alone: green is done, amber waits or is degraded, red needs somebody. Each
text has a contrast of at least 4.5 on its background, in both themes (a test computes it).
"""

from __future__ import annotations

import html
import unicodedata

MAX_TEXT = 200

LIGHT = {
    "ground": "#ffffff",
    "text": "#1b1e22",
    "dim": "#5a626c",
    "good": "#146c2e",
    "warn": "#8a4b00",
    "bad": "#b3141c",
    "line": "#d5d9de",
}
DARK = {
    "ground": "#15181c",
    "text": "#e4e7ea",
    "dim": "#a3abb5",
    "good": "#5fd38a",
    "warn": "#f0b35a",
    "bad": "#ff8d8d",
    "line": "#353b43",
}


def theme_style(light: dict[str, str], dark: dict[str, str]) -> str:
    """The colours as variables of the style, for both themes."""
    return (
        f":root{{color-scheme:light dark;{_variables(light)}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{_variables(dark)}}}}}"
    )


def show(text: object, limit: int = MAX_TEXT) -> str:
    """Text from anywhere as HTML: escaped, cut, and with control characters spelt out as \\x1b or \\u202e."""
    whole = str(text)
    spelt = "".join(char if _is_printable(char) else _spell(char) for char in whole[:limit])
    return html.escape(spelt + ("…" if len(whole) > limit else ""))


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def _is_printable(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn")


def _spell(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
