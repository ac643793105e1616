"""Operator settings: environment variables with the prefix LOGSTORE_, or a .env file. Parsed once, in wiring.

They say where this validator's parts are and what this machine may use. None of them can change a signed byte:
what is equal on all validators is in network.toml (validator.parameters). Secrets are given as files or as
``SecretStr``; a value in a ``*_FILE`` variable is a path whose content is read once.
"""

from __future__ import annotations

import stat
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from validator.errors import ConfigError

Words = Annotated[tuple[str, ...], NoDecode]
"""A comma-separated list."""


class Settings(BaseSettings):
    """Everything an operator sets. Each field says its unit, and what goes wrong if it is wrong."""

    model_config = SettingsConfigDict(env_prefix="LOGSTORE_", env_file=".env", frozen=True, extra="ignore")

    # what network
    network_file: Path = Field(
        description="network.toml of the network; a wrong one shows as config digests that differ"
    )
    data_dir: Path = Field(default=Path("data"), description="folder for sets, bundles and downloads")

    # where the parts are
    database_url: str = Field(
        default="sqlite:///data/validator.sqlite",
        description="SQLAlchemy URL: sqlite:///… on a local disk, or postgresql+psycopg://… for fleets",
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0", description="Celery broker; redis+socket:///path?virtual_host=N works"
    )
    rpc_urls: Words = Field(description="EVM nodes, comma-separated; three of different operators advised")
    gateway_urls: Words = Field(description="Arweave gateways, comma-separated; two or more advised")
    segments_url: str = Field(
        default="", description="fsspec URL for sets shared by several machines; empty: data_dir/sets"
    )

    # keys: hex private keys, and the Arweave JWK. Whoever speaks to peers signs with the voting key; the others
    # are needed by one queue each: gas by `report`, query by `collect`, the wallet by `bundle`
    voting_key: SecretStr | None = Field(default=None, description="signs statements and reports; the node's address")
    voting_key_file: Path | None = None
    gas_key: SecretStr | None = Field(default=None, description="pays for transactions; any funded account")
    gas_key_file: Path | None = None
    query_key: SecretStr | None = Field(
        default=None, description="logs in at brokers; holds a QueryManager balance only"
    )
    query_key_file: Path | None = None
    database_id_file: Path | None = Field(
        default=None,
        description="names the one database that may be used with the voting key; empty: beside the key's file",
    )
    wallet_file: Path | None = Field(default=None, description="Arweave JWK that pays for uploads")

    # listeners
    peers_host: str = "0.0.0.0"  # noqa: S104  (the peers listener is public by design)
    peers_port: int = Field(default=7180, ge=0, le=65535)
    operator_host: str = "127.0.0.1"
    operator_port: int = Field(default=7181, ge=0, le=65535)
    peers_fd: int | None = Field(default=None, description="inherited listening socket instead of peers_host and port")
    operator_fd: int | None = Field(
        default=None, description="inherited listening socket instead of operator_host and port"
    )

    # limits of this machine
    allow_nets: Words = Field(
        default=(),
        description="private networks that broker and peer URLs, or a TLS proxy of ours, may lie in, e.g. 10.0.0.0/8",
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM certificates trusted beside the public ones for broker and peer URLs; for private networks",
    )
    allow_http: bool = Field(default=False, description="accept http:// in metadata; development networks only")
    disk_floor: str = Field(
        default="", description="bytes or percent of free disk below which voting stops; empty: 10 %% or 5 GiB"
    )
    tick_s: float = Field(default=5.0, gt=0, le=60, description="how often beat looks for rows that are due")
    max_reward_winston: int = Field(default=10**13, gt=0, description="most winston that one upload may cost")
    log_level: str = "INFO"
    log_format: str = Field(default="json", pattern="^(json|console)$")
    observer: bool = Field(default=False, description="follow, verify and serve, sign nothing")

    @field_validator("rpc_urls", "gateway_urls", "allow_nets", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value

    @field_validator("rpc_urls", "gateway_urls")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one URL")
        for url in value:
            if not url.startswith(("http://", "https://")):
                raise ValueError("must be http:// or https:// URLs")
        return value

    @field_validator("redis_url")
    @classmethod
    def _known_transport(cls, value: str) -> str:
        if not value.startswith(("redis://", "rediss://", "redis+socket://")):
            raise ValueError("must be a redis://, rediss:// or redis+socket:// URL")
        return value

    @property
    def nets(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(net) for net in self.allow_nets)

    @property
    def sets_url(self) -> str:
        return self.segments_url or str(self.data_dir / "sets")

    @property
    def id_file(self) -> Path:
        """Where the id of the key's database is written: beside the key, or in data_dir where the key has no file."""
        if self.database_id_file is not None:
            return self.database_id_file
        key = self.voting_key_file
        return key.with_name(f"{key.name}.database") if key is not None else self.data_dir / "voting.database"

    @property
    def metrics_dir(self) -> Path:
        """Counters of all processes of this validator on this machine."""
        return self.data_dir / "metrics"

    @property
    def disk_floor_bytes(self) -> int | None:
        """The floor in bytes, None for the default (10 % of the disk, at most 5 GiB)."""
        return int(self.disk_floor) if self.disk_floor.isdecimal() else None

    def secret(self, name: str) -> bytes:
        """32 bytes of the key ``name`` ("voting", "gas", "query").

        Raises:
            ConfigError: missing, unreadable, readable by others, or not 32 bytes of hex; never shows the value.
        """
        value: SecretStr | None = getattr(self, f"{name}_key")
        path: Path | None = getattr(self, f"{name}_key_file")
        variable = f"LOGSTORE_{name.upper()}_KEY"
        if value is not None:
            text = value.get_secret_value()
        elif path is not None:
            text = read_secret_file(path, f"{variable}_FILE")
        else:
            raise ConfigError(f"{variable}_FILE: not set; name a file with the key in hex", field=variable)
        try:
            secret = bytes.fromhex(text.strip().removeprefix("0x"))
        except ValueError:
            secret = b""
        if len(secret) != 32:
            raise ConfigError(f"{variable}: not 32 bytes of hex", field=variable)
        return secret


def read_secret_file(path: Path, variable: str) -> str:
    """Content of a secret file. Raises ConfigError naming the variable and the remedy."""
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(f"{variable}: {path} is readable by others; chmod 600 it", field=variable)
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{variable}: cannot read {path}: {error.strerror}", field=variable) from error


def load_settings() -> Settings:
    """Settings from the environment.

    Raises:
        ConfigError: one line that names the variable and the reason.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "LOGSTORE_" + "_".join(str(part) for part in first["loc"]).upper()
        field = Settings.model_fields.get(str(first["loc"][0]))
        if first["type"] == "missing" and field is not None:
            raise ConfigError(f"{name}: not set; {field.description}", field=name) from error
        raise ConfigError(f"{name}: {first['msg'].removeprefix('Value error, ')}", field=name) from error
