"""Reads the server's settings from flags, TRIMTAB_* environment variables and a settings file."""

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

SETTINGS_FILE_VARIABLE = "TRIMTAB_SETTINGS_FILE"
"""Environment variable with the path of a settings file in TOML."""


class Settings(BaseSettings):
    """Serve a bundle over gRPC.

    Every flag is an environment variable too: --metrics-port is TRIMTAB_METRICS_PORT.
    """

    model_config = SettingsConfigDict(
        env_prefix="TRIMTAB_",
        cli_prog_name="trimtab-serve",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_shortcuts={"redis-url": "redis"},
        extra="forbid",
        frozen=True,
    )

    bundle: Path = Field(description="directory of the bundle to serve")
    listen: str = Field(
        "127.0.0.1:50051", description="host:port for gRPC; port 0 takes a free one"
    )
    metrics_port: int = Field(
        9464, ge=0, le=65535, description="HTTP port for Prometheus; 0 takes a free one"
    )
    redis_url: str = Field(
        "embedded",
        description="URL of a Redis or Valkey server (redis, rediss, unix);"
        " 'embedded' starts a Valkey with the server",
    )
    data_dir: Path = Field(
        Path("trimtab-data"), description="directory of the embedded Valkey's data"
    )
    workers: int = Field(
        1,
        ge=1,
        le=1_024,
        description="processes that serve behind the one port; one for each core uses them all",
    )
    max_n: int = Field(
        1_000, ge=1, le=10_000, description="largest number of recommendations in one reply"
    )
    max_in_flight: int = Field(
        256,
        ge=1,
        description="calls that each worker answers at once; further calls are refused",
    )
    compute_threads: int = Field(
        2,
        ge=0,
        description="threads of each worker for encoding, search and ranking;"
        " 0 computes on the event-loop thread",
    )
    max_history: int = Field(
        1_000,
        ge=1,
        description="positive events stored for each user; the encoder may read fewer",
    )
    history_ttl_s: int = Field(
        0,
        ge=0,
        description="seconds until a history that does not change is deleted; 0 keeps it",
    )
    embedding_ttl_s: int = Field(
        604_800, ge=1, description="seconds until a cached user embedding is deleted"
    )
    embedding_precision: Literal["float16", "int8"] = Field(
        "float16",
        description="number format of cached user embeddings: float16, or int8, which takes about"
        " half the memory in Redis and gives nearly the same lists",
    )
    store_timeout_s: float = Field(
        0.25, gt=0, description="seconds until a read from Redis is given up"
    )
    user_tier_mb: int = Field(
        256,
        ge=0,
        description="megabytes of users that each worker caches in memory; 0 caches none",
    )
    drain_s: float = Field(
        10.0, ge=0, description="seconds for calls in flight to finish at shutdown"
    )

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"expected host:port, found {value!r}")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the sources, first to last in precedence.

        pydantic-settings puts the flags between the arguments and the environment.
        """
        file = TomlConfigSettingsSource(settings_cls, _settings_file())
        return init_settings, env_settings, file


def _settings_file() -> Path | None:
    name = os.environ.get(SETTINGS_FILE_VARIABLE)
    return Path(name) if name else None


def read_settings(arguments: list[str] | None = None, **values: Any) -> Settings:
    """Reads the settings from all sources.

    Args:
        arguments: The flags; None for those of this program.
        values: Values that take precedence over every source.

    Raises:
        SystemExit: a value or the settings file does not fit; the message names it.
    """
    file = _settings_file()
    if file is not None:
        try:
            tomllib.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise SystemExit(f"trimtab-serve: settings file {file}: {error}") from error
    try:
        source: Any = {"_cli_parse_args": True if arguments is None else arguments}
        return Settings(**source, **values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise SystemExit("trimtab-serve: " + "; ".join(lines)) from error
