"""A broker's settings: environment variables with the prefix LOGSTORE_BROKER_, or a .env file; judged whole at start.

They may stand beside a validator's. What is equal for everybody is in network.toml; secrets are given as files.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from validator.broker.dialects import Era
from validator.net.signer.source import KeyKind, kind_of, read_secret
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import ConfigError
from validator.settings import (
    ENV_ENCODING,
    ENV_FILE,
    OTHER_ROLES,
    Floor,
    LogLevel,
    Networks,
    Words,
    given_values,
    load_class,
    read_password_file,
    read_secret_file,
    with_password,
)

PREFIX = OTHER_ROLES
ROLES = ("all", "ingest", "serve")


class BrokerSettings(BaseSettings):
    """Everything a broker's operator sets. Each field says its unit, and what goes wrong if it is wrong."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding=ENV_ENCODING,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    network_file: Path = Field(description="network.toml of the network")
    data_dir: Path = Field(
        default=Path("broker-data"), description="folder of the day files and accounts, on a local disk"
    )
    database_url: str = Field(
        default="",
        description="postgresql://user@host/name, where processes on several machines are one broker; none: day files",
    )
    database_password_file: Path | None = Field(
        default=None, description="file with the password that database_url leaves out"
    )
    rpc_urls: Words = Field(description="EVM nodes, comma-separated; three of different operators advised")
    gateway_urls: Words = Field(
        default=(), description="Arweave gateways to read bundles from; none: nothing is certified, nothing proven"
    )
    lake_mib: int = Field(default=1_024, ge=16, description="of bundles' chunks on disk, for what is older")
    bridge_sockets: Words = Field(
        default=(), description="Unix sockets of the bridges to Streamr's network; none: only HTTP brings messages"
    )
    storage_registry: str = Field(
        default="", description="Streamr's StreamStorageRegistry, 0x hex: who assigns a stream here hears it is stored"
    )
    role: str = Field(
        default="all", description="all, or ingest or serve where several processes share folder or database"
    )
    shards: int = Field(default=1, ge=1, le=64, description="files per day; as many may be written at once")

    # the node's key: trailers, receipts' messages and heartbeats are signed with it, a hundred times a second
    key: SecretStr | None = Field(default=None, description="hex or keystore; the address that is staked as a broker")
    key_file: Path | None = Field(default=None, description="or a file with it, that others cannot read")
    key_password_file: Path | None = Field(default=None, description="file with the keystore's password")

    # listeners
    host: str = "0.0.0.0"  # noqa: S104  (public by design)
    port: int = Field(default=7171, ge=0, le=65535)
    operator_host: str = "127.0.0.1"
    operator_port: int = Field(default=7172, ge=0, le=65535)
    fd: int | None = Field(default=None, description="inherited socket, bound, instead of host and port")
    operator_fd: int | None = Field(default=None, description="the same for the operator's listener")
    allow_nets: Networks = Field(
        default=(), description="networks without a limit of connections per address, where other brokers may be too"
    )
    allow_http: bool = Field(default=False, description="accept http:// of other brokers; development networks only")
    connections: int = Field(default=1_000, ge=1, le=100_000, description="open at once")
    connections_per_address: int = Field(default=50, ge=1)
    stall_s: float = Field(default=30.0, gt=0, description="how long a reader may read nothing")

    # what is kept
    retention_days: int = Field(default=30, ge=1, le=36_500, description="older days are deleted")
    disk_floor: Floor = Field(default="", description="free bytes or percent below which nothing is taken in any more")
    future_s: float = Field(default=300.0, ge=0, description="how far ahead of our clock a message may be")
    part_per_s: float = Field(default=5_000.0, gt=0, description="messages a second of one stream partition")
    publisher_per_s: float = Field(default=5_000.0, gt=0, description="messages a second of one publisher")
    max_parts: int = Field(default=10_000, ge=1, description="stream partitions that are joined; the rest are refused")
    verify_threads: int = Field(default=1, ge=1, le=64, description="threads that check one batch's signatures")

    # who is answered
    balance: bool = Field(default=True, description="whether consumers need a balance in QueryManager, and so a login")
    streamr: bool = Field(default=True, description="whether Streamr's own interface, without login, is answered")
    unpaid_mib: int = Field(default=0, ge=0, description="MiB after which a consumer must send a receipt; 0: none")
    dialects: Words = Field(default=tuple(era.value for era in Era), description="old paths that are spoken")
    explorer: bool = Field(default=True, description="whether /explorer shows what is held, to everybody, as pages")
    explorer_rpc_url: str = Field(
        default="",
        description="an EVM node that readers' browsers may ask for the contract's word; none: they ask nobody",
    )
    chain_every_s: float = Field(default=5.0, gt=0, description="how often registry and nodes are read")

    log_level: LogLevel = "INFO"
    log_format: str = Field(default="json", pattern="^(json|console)$")

    @field_validator("dialects")
    @classmethod
    def _eras(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = [era.value for era in Era]
        for word in value:
            if word not in known:
                raise ValueError(f"{word!r} is none of {', '.join(known)}")
        return value

    @field_validator("storage_registry")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not re.fullmatch("0x[0-9a-fA-F]{40}", value):
            raise ValueError("is not 0x and 40 hex digits")
        return value

    @field_validator("explorer_rpc_url")
    @classmethod
    def _node_url(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./~-]*)?", value, re.ASCII):
            raise ValueError("is not a plain http or https URL")
        return value

    @field_validator("role")
    @classmethod
    def _role(cls, value: str) -> str:
        if value not in ROLES:
            raise ValueError(f"is none of {', '.join(ROLES)}")
        return value

    def database_link(self) -> str:
        """The database's URL with its password in it, never shown; empty without one. Raises ConfigError."""
        if self.database_password_file is None or not self.database_url:
            return self.database_url
        variable = f"{PREFIX}DATABASE_PASSWORD_FILE"
        password = read_password_file(self.database_password_file, variable)
        return with_password(self.database_url, password, f"{PREFIX}DATABASE_URL", variable)

    @property
    def nets(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(net) for net in self.allow_nets)

    @property
    def eras(self) -> frozenset[Era]:
        return frozenset(Era(word) for word in self.dialects)

    def signing_key(self) -> SigningKey:
        """Raises ConfigError, which never shows it."""
        variable = f"{PREFIX}KEY"
        if self.key_file is not None:
            variable = f"{PREFIX}KEY_FILE"
            text = read_secret_file(self.key_file, variable)
        elif self.key is not None:
            text = self.key.get_secret_value()
        else:
            raise ConfigError(f"{variable}_FILE: not set; name the file of the node's key", field=f"{variable}_FILE")
        if kind_of(text) is KeyKind.REMOTE:
            raise ConfigError(f"{variable}: a broker's key must be here; name hex or a keystore", field=variable)
        return SigningKey(read_secret(text, variable, ask_password=self._password))

    def _password(self) -> str:
        variable = f"{PREFIX}KEY_PASSWORD_FILE"
        if self.key_password_file is None:
            raise ConfigError(f"{variable}: not set; the broker's key is a keystore", field=variable)
        return read_password_file(self.key_password_file, variable)


def load_broker_settings(**said: Any) -> BrokerSettings:
    """From the environment and .env. Raises ConfigError: one line with every fault."""
    given = {name: value for name, value in given_values().items() if name.startswith(PREFIX)}
    return load_class(BrokerSettings, given, **said)
