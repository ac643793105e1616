"""``logstore-validator init --network …``: from an empty folder to everything that a validator reads, in this folder.

    network.toml    fetched or copied, and read: what is no network's file is never written
    secrets/        keys that are missing and their password, and those of what compose.yaml runs beside us
    .env            every setting with its meaning

What is there stays, byte for byte, and each line says which it was. A network file that differs from the one that is
named is refused, since everything signed hangs from it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from validator.keys import is_development
from validator.net.network_file import fetch_network_bytes, is_address, parse_network_bytes, split_pin
from validator.operations.env_file import Start, describe_values, render_env
from validator.operations.keys import WALLET, ensure_password_file, make_keys, path_of, write_private
from validator.protocol.errors import ConfigError
from validator.protocol.parameters import Network, parse_network
from validator.quantities import show_count
from validator.settings import ENV_FILE, read_password_file, read_text_file
from validator.version import describe_version

NETWORK_FILE = Path("network.toml")
SECRETS = Path("secrets")
PURPOSES = ("voting", "gas", "query", WALLET)
"""What processes use. The stake's key is cold: it is made on another machine."""


@dataclass(frozen=True, slots=True)
class Made:
    """One line of ``init``: "made" or "kept", what, and what is to be said of it."""

    word: str
    path: str
    text: str = ""


def begin(source: str, rpc_urls: Sequence[str], gateway_urls: Sequence[str]) -> Iterator[Made]:
    """Everything that is missing in this folder, told as it is made.

    Raises:
        ConfigError: the network's file is none, or differs from the one that is here.
        TransientError, RemoteFault: its address does not answer, or with something else.
    """
    network, made = _take_network_file(source)
    yield made
    yield from _make_keys()
    yield from _make_passwords()
    yield _make_env(network, tuple(rpc_urls), tuple(gateway_urls))


def _take_network_file(source: str) -> tuple[Network, Made]:
    data = _read_source(source)
    network = parse_network(data.decode()) if not is_address(source) else parse_network_bytes(*_pinned(source, data))
    text = f"{network.name}, chain {network.chain_id}, {show_count(len(network.sets), 'parameter set')}"
    if not NETWORK_FILE.exists():
        _write_new(NETWORK_FILE, data)
        return network, Made("made", str(NETWORK_FILE), text)
    held = parse_network(read_text_file(NETWORK_FILE, "--network"))
    if held != network:
        raise ConfigError(
            f"--network: {NETWORK_FILE} is there already and says something else; if the new one is meant, move the "
            "old one away",
            field="--network",
        )
    return network, Made("kept", str(NETWORK_FILE), text)


def _read_source(source: str) -> bytes:
    if is_address(source):
        return fetch_network_bytes(split_pin(source)[0], describe_version("logstore-validator").split("\n", 1)[0])
    return read_text_file(Path(source), "--network").encode()


def _pinned(source: str, data: bytes) -> tuple[str, bytes, str]:
    address, digest = split_pin(source)
    return address, data, digest


def _make_keys() -> Iterator[Made]:
    password = SECRETS / "password"
    missing = [purpose for purpose in PURPOSES if not _has_key(purpose)]
    if set(missing) - {WALLET} and ensure_password_file(password):
        yield Made("made", str(password), "random; keep a copy elsewhere")
    elif password.exists():
        yield Made("kept", str(password))
    for purpose in PURPOSES:
        if purpose not in missing:
            yield Made("kept", str(path_of(SECRETS, purpose)), f"{purpose} key")
            continue
        for key in make_keys(SECRETS, [purpose], partial(read_password_file, password, str(password))):
            yield Made("made", key.where, f"{purpose} key, {key.address}")


def _make_passwords() -> Iterator[Made]:
    """Of what compose.yaml runs beside us. Others leave the files unused."""
    for name, text, use in (
        ("postgres", secrets.token_hex(24), "password of the database inside compose.yaml"),
        ("flower", f"operator:{secrets.token_urlsafe(18)}", "Flower's login"),
    ):
        path = SECRETS / name
        if path.exists():
            yield Made("kept", str(path))
            continue
        write_private(path, f"{text}\n")
        yield Made("made", str(path), use)


def _has_key(purpose: str) -> bool:
    """As a keystore, a wallet, or the address of a remote signer: all lie at one path."""
    path = path_of(SECRETS, purpose)
    return path.exists() or path.is_symlink()


def _make_env(network: Network, rpc_urls: tuple[str, ...], gateway_urls: tuple[str, ...]) -> Made:
    path = Path(ENV_FILE)
    if path.exists():
        return Made("kept", str(path))
    public = network.consumers
    borrowed = {
        name
        for name, named, shared in (
            ("rpc_urls", rpc_urls, public.rpc_urls),
            ("gateway_urls", gateway_urls, public.gateway_urls),
        )
        if not named and shared
    }
    values = describe_values(SECRETS, rpc_urls or public.rpc_urls, gateway_urls or public.gateway_urls)
    if is_development(network):
        values |= {"allow_http": "true", "allow_nets": "127.0.0.0/8"}
    write_private(path, render_env(Start(values, frozenset(borrowed))))
    empty = [name for name in ("LOGSTORE_RPC_URLS", "LOGSTORE_GATEWAY_URLS") if name[9:].lower() not in values]
    return Made("made", str(path), f"fill in {' and '.join(empty)}" if empty else "read it through")


def _write_new(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", field=str(path)) from error
