"""What browsers are given besides pages: style, programs, the libraries below them. They are read once, at start.

Their folder's name is a digest over all of them, so a browser may keep each for ever and never mixes two releases.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files

from validator.broker.explorer.look import stylesheet

TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
CURVES = (
    *("secp256k1.js", "nist.js", "_shortw_utils.js", "utils.js"),
    *("abstract/weierstrass.js", "abstract/modular.js", "abstract/curve.js", "abstract/hash-to-curve.js"),
)
HASHES = ("sha2.js", "sha3.js", "hmac.js", "_md.js", "_u64.js", "utils.js", "crypto.js")
LIBRARIES = (*(f"noble-curves/{name}" for name in CURVES), *(f"noble-hashes/{name}" for name in HASHES))
OWN = ("every.js", "page.js", "checks.js", "cbor.js", "icon.svg")
CHECKING = ("page.js", "checks.js", "cbor.js", *LIBRARIES)
"""What the page of a message runs, so that a browser fetches all of it at once."""


@dataclass(frozen=True, slots=True)
class Asset:
    """As it is sent: plain, or packed to whoever takes gzip."""

    kind: str
    plain: bytes
    packed: bytes


class Assets:
    """By path below ``folder``."""

    def __init__(self) -> None:
        web = files(__package__).joinpath("web")
        read = {name: web.joinpath(name).read_bytes() for name in (*OWN, *LIBRARIES)}
        read["explorer.css"] = stylesheet().encode()
        digest = hashlib.sha256()
        for name, data in sorted(read.items()):
            digest.update(b"%d %b %d %b" % (len(name), name.encode(), len(data), data))
        self.folder = f"assets/{digest.hexdigest()[:16]}"
        self._known = {
            name: Asset(TYPES[name.rpartition(".")[2]], data, gzip.compress(data, 9, mtime=0))
            for name, data in read.items()
        }
        self.import_map = json.dumps({"imports": self._imports()}, separators=(",", ":"))

    def find(self, name: str) -> Asset | None:
        return self._known.get(name)

    def url(self, name: str) -> str:
        """Relative to a page."""
        return f"{self.folder}/{name}"

    @property
    def import_map_hash(self) -> str:
        """As Content-Security-Policy names the one script that stands in pages."""
        return "sha256-" + base64.b64encode(hashlib.sha256(self.import_map.encode()).digest()).decode()

    def _imports(self) -> dict[str, str]:
        """The names by which the libraries call each other, one of them also without its ending."""
        named = {f"@noble/curves/{name}": f"noble-curves/{name}" for name in CURVES}
        named |= {f"@noble/hashes/{name}": f"noble-hashes/{name}" for name in HASHES}
        named |= {f"@noble/hashes/{name[:-3]}": f"noble-hashes/{name}" for name in ("utils.js", "crypto.js")}
        return {name: f"./{self.url(path)}" for name, path in named.items()}
