"""How the status page looks and keeps itself up to date: one style for both themes and any width, one small program.

Its colours are those of all our pages (``validator.look``).

Addresses and hashes are whole in the page and cut by the style, so that a click selects, and a copy takes, all of it.
"""

from __future__ import annotations

import base64
import hashlib

from validator.look import DARK, LIGHT, theme_style

REFRESH_MS = 2_000

STYLE = (
    theme_style(LIGHT, DARK)
    + """
body{margin:0;padding:.8em 1em;font:14px/1.4 system-ui,sans-serif;background:var(--ground);color:var(--text)}
h1{font-size:1.1em;margin:0 0 .3em;overflow-wrap:anywhere}h2{font-size:1.05em;margin:1.2em 0 .2em;
border-bottom:1px solid var(--line)}h3{font-size:1em;margin:.5em 0 .1em}
.verdict{font-size:1.25em;font-weight:600;margin:.2em 0;overflow-wrap:anywhere}
.reasons{margin:.2em 0 .6em;padding-left:1.2em}
.facts{display:flex;flex-wrap:wrap;gap:.1em 1.4em;margin:.3em 0}.facts b{font-weight:600}
.group{display:flex;flex-wrap:wrap;gap:.2em 2.2em;align-items:flex-start}section{max-width:100%;min-width:0}
.scroll{overflow-x:auto}table{border-collapse:collapse}td,th{padding:.12em .9em .12em 0;text-align:left;
vertical-align:top;border-bottom:1px solid var(--line);white-space:nowrap}th{font-weight:600;color:var(--dim)}
td.text{white-space:normal;overflow-wrap:anywhere;min-width:10em;max-width:48em}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{font:12.5px ui-monospace,monospace}
code.id{display:inline-block;max-width:10ch;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;
vertical-align:text-bottom;user-select:all;cursor:copy}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}.dim{color:var(--dim)}
abbr{text-decoration:underline dotted;text-underline-offset:2px;cursor:help}a{color:inherit}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1em;max-width:70em}dt{font-weight:600}dd{margin:0}
details{margin-top:1.4em}summary{cursor:pointer}
@media(max-width:600px){body{padding:.5em .6em;font-size:13px}td,th{padding-right:.6em}dl{grid-template-columns:1fr}}
"""
)

SCRIPT = f"""
"use strict";
const ids = () => Array.from(document.querySelectorAll("[data-live]"));
async function refresh() {{
  if (document.hidden || String(getSelection()) !== "") return;
  let answer;
  try {{ answer = await (await fetch(location.href)).text(); }} catch (error) {{
    document.querySelector(".verdict").textContent = "this page gets no answer";
    return;
  }}
  const next = new DOMParser().parseFromString(answer, "text/html");
  if (ids().length !== next.querySelectorAll("[data-live]").length) {{ location.reload(); return; }}
  for (const old of ids()) {{
    const other = next.getElementById(old.id);
    if (other && other.innerHTML !== old.innerHTML) old.innerHTML = other.innerHTML;
  }}
  document.body.dataset.updated = String(Number(document.body.dataset.updated || 0) + 1);
}}
document.addEventListener("click", (event) => {{
  const id = event.target.closest("code.id");
  if (id && navigator.clipboard) navigator.clipboard.writeText(id.textContent).catch(() => {{}});
}});
document.body.dataset.overflow = String(document.documentElement.scrollWidth - innerWidth);
setInterval(refresh, {REFRESH_MS});
"""

SCRIPT_HASH = "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
"""The only program that the page may run (Content-Security-Policy)."""
