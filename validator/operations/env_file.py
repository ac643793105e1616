"""The ``.env`` that ``init`` writes: every setting with its meaning, those that matter first, the others commented out.

Written once and never again: from then on it is the operator's. Made from ``Settings`` itself, so that no setting is
missing and none has another meaning here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from validator.settings import PREFIX, Settings

WIDTH = 118
HEAD = """\
Settings of one validator. Read by every command and process that starts in this folder, and by Docker Compose.
A variable of the environment counts more than a line here. chmod 600: URLs of chain nodes often hold a key.
`logstore-validator check` judges all of it, `check --join` says what is missing before a seat.
"""
COMPOSE = """\
Only for compose.yaml: who owns the files in secrets/ (mode 600), the public name in the node's URL, for which the
proxy gets a certificate, and where the files are that containers are given.
"""
ASKED = ("rpc_urls", "gateway_urls")
PLACES = ("network_file", "data_dir", "database_url", "redis_url")
SECRETS = ("voting_key_file", "gas_key_file", "query_key_file", "wallet_file", "key_password_file")
GROUPS = (
    ("What network, and where the parts are.", (*PLACES, *ASKED)),
    ("Keys, as `logstore-validator keys new` makes them; each process needs those that it uses.", SECRETS),
    (
        "What peers and operators reach.",
        ("peers_host", "peers_port", "operator_host", "operator_port", "allow_nets"),
    ),
)


@dataclass(frozen=True, slots=True)
class Start:
    """What a new validator is told at its beginning. ``borrowed``: names of settings that are the network file's
    public places, good enough to begin with."""

    values: Mapping[str, str]
    borrowed: frozenset[str] = frozenset()


def render_env(start: Start) -> str:
    """Text of ``.env``. Values are quoted nowhere: whoever reads the file takes the line as it is."""
    lines = [*_comment(HEAD)]
    shown: set[str] = set()
    for title, names in GROUPS:
        lines += ["", *_comment(f"--- {title}")]
        for name in names:
            lines += _setting(name, start)
            shown.add(name)
    lines += ["", *_comment("--- Everything else, at its default.")]
    for name in Settings.model_fields:
        if name not in shown and not name.endswith("_fd") and name not in ("voting_key", "gas_key", "query_key"):
            lines += _setting(name, start)
    lines += ["", *_comment(f"--- {COMPOSE}"), *_compose(start)]
    return "\n".join(lines) + "\n"


def _setting(name: str, start: Start) -> list[str]:
    field = Settings.model_fields[name]
    variable = f"{PREFIX}{name.upper()}"
    lines = ["", *_comment(field.description)] if field.description else [""]
    if name in start.borrowed:
        lines += _comment("From the network's file, public and shared: name your own.")
    value = start.values.get(name)
    if value is not None:
        return [*lines, f"{variable}={value}"]
    if name in ASKED:
        return [*lines, f"{variable}="]
    default = field.default
    text = "" if default is None or default == () else str(default).lower() if isinstance(default, bool) else default
    return [*lines, f"# {variable}={text}"]


def _compose(start: Start) -> list[str]:
    lines = [
        "VALIDATOR_UID=10001",
        "VALIDATOR_NAME=",
        "PEERS_PORT=7180",
        "COLLECT_CHILDREN=2",
    ]
    names = {
        "voting_key_file": "VOTING_KEY_FILE",
        "gas_key_file": "GAS_KEY_FILE",
        "query_key_file": "QUERY_KEY_FILE",
        "wallet_file": "WALLET_FILE",
        "key_password_file": "KEY_PASSWORD_FILE",
        "network_file": "NETWORK_FILE",
        "postgres_password_file": "POSTGRES_PASSWORD_FILE",
        "flower_login_file": "FLOWER_LOGIN_FILE",
    }
    lines += [f"{variable}=./{start.values[name]}" for name, variable in names.items() if name in start.values]
    return lines


def _comment(text: str | None) -> list[str]:
    wrapped = [line for part in (text or "").splitlines() for line in textwrap.wrap(part, WIDTH - 2)]
    return [f"# {line}" for line in wrapped]


def describe_values(folder: Path, rpc_urls: tuple[str, ...], gateway_urls: tuple[str, ...]) -> dict[str, str]:
    """The values that a validator in the current folder begins with, its key files in ``folder``."""
    values = {
        "network_file": "network.toml",
        "data_dir": "data",
        "key_password_file": f"{folder}/password",
        "voting_key_file": f"{folder}/voting.json",
        "gas_key_file": f"{folder}/gas.json",
        "query_key_file": f"{folder}/query.json",
        "wallet_file": f"{folder}/wallet.json",
        "postgres_password_file": f"{folder}/postgres",
        "flower_login_file": f"{folder}/flower",
    }
    if rpc_urls:
        values["rpc_urls"] = ",".join(rpc_urls)
    if gateway_urls:
        values["gateway_urls"] = ",".join(gateway_urls)
    return values
