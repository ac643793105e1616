"""An account at the network's contracts, from the words of a command and the settings: of these only what it needs, so
that a cold machine gets by with the network's file and a key.
"""

from __future__ import annotations

from pathlib import Path

from validator.keys import ask_password, load_signer, trust_of_signers, variable_of
from validator.net.chain.account import Account
from validator.net.chain.reader import ChainReader
from validator.net.signer.source import open_signer, shown_address
from validator.protocol.errors import ConfigError
from validator.protocol.model import Address
from validator.settings import Settings, given_values, load_settings, read_secret_file
from validator.wiring import load_network, make_sender

NO_GATEWAY = "https://gateway.invalid"
"""No gateway is asked here, so none need be set."""


def open_account(
    network_file: Path | None, rpc_urls: list[str], key: Path | None, password_file: Path | None
) -> Account:
    """``key`` None: the voting key of the settings. Raises ConfigError."""
    settings = _settings(network_file, rpc_urls, password_file)
    network = load_network(settings.network_file)
    if key is None:
        signer = load_signer(settings, "voting")
    else:
        text = read_secret_file(key, "--key")
        signer = open_signer(
            text,
            f"--key {key}",
            ask_password=lambda: ask_password(settings, str(key)),
            tls=lambda: trust_of_signers(settings),
        )
    reader = ChainReader(
        settings.rpc_urls,
        network.contracts,
        deployment_block=network.deployment_block,
        chain_id=network.chain_id,
    )
    reader.check()
    return Account(network, reader, make_sender(settings, network, signer))


def own_address(purpose: str, option: str, network_file: Path | None, rpc_urls: list[str]) -> Address:
    """The address of a key that is set here, where ``option`` does not name one. Raises ConfigError."""
    settings = _settings(network_file, rpc_urls, None)
    variable = variable_of(purpose)
    address = shown_address(settings.key_text(purpose), variable) if settings.has_secret(purpose) else None
    if address is None:
        raise ConfigError(f"{option}: not named, and {variable}_FILE names none", field=option)
    return address


def _settings(network_file: Path | None, rpc_urls: list[str], password_file: Path | None) -> Settings:
    given = given_values()
    named = network_file or given.get("LOGSTORE_NETWORK_FILE")
    if named is None:
        raise ConfigError("--network: name the network's file, or set LOGSTORE_NETWORK_FILE", field="--network")
    urls = tuple(rpc_urls)
    if not urls and "LOGSTORE_RPC_URLS" not in given:
        urls = load_network(Path(named)).consumers.rpc_urls
        if not urls:
            raise ConfigError("--rpc: name a chain node, or set LOGSTORE_RPC_URLS", field="--rpc")
    changes = {"network_file": network_file, "rpc_urls": urls or None, "key_password_file": password_file}
    return load_settings(
        gateway_urls=(NO_GATEWAY,), **{name: value for name, value in changes.items() if value is not None}
    )
