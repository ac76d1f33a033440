"""The server's settings: flags, TRIMTAB_* environment variables and a settings file, from one source."""

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


class Settings(BaseSettings):
    """Serve a bundle over gRPC. Every flag is an environment variable too: TRIMTAB_METRICS_PORT, say."""

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
        description="URL of a Redis or Valkey server (redis, rediss, unix); 'embedded' starts one of our own",
    )
    data_dir: Path = Field(
        Path("trimtab-data"), description="where the embedded Valkey keeps its data"
    )
    workers: int = Field(
        1,
        ge=1,
        le=1_024,
        description="processes that serve behind the one port; one for each core uses all",
    )
    max_n: int = Field(1_000, ge=1, le=10_000, description="most recommendations in one reply")
    max_in_flight: int = Field(
        256,
        ge=1,
        description="permits of each worker: calls answered at once before others are refused",
    )
    compute_threads: int = Field(
        2,
        ge=0,
        description="threads of each worker for encoding, search and ranking; 0 for that of its event loop",
    )
    max_history: int = Field(
        1_000, ge=1, description="positive events stored a user (the encoder may read fewer)"
    )
    history_ttl_s: int = Field(
        0, ge=0, description="seconds until an unchanged history goes; 0 keeps it"
    )
    embedding_ttl_s: int = Field(
        604_800, ge=1, description="seconds that a cached user embedding lives"
    )
    embedding_precision: Literal["float16", "int8"] = Field(
        "float16",
        description="float16, or int8: about half the memory in Redis for lists that are nearly the same",
    )
    store_timeout_s: float = Field(
        0.25, gt=0, description="seconds that a read from Redis may take"
    )
    user_tier_mb: int = Field(
        256, ge=0, description="megabytes of users kept in each worker, over Redis; 0 keeps none"
    )
    drain_s: float = Field(
        10.0, ge=0, description="seconds that calls in flight are given at shutdown"
    )

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"found {value!r}, expected host:port")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then flags (added by pydantic-settings), then environment, then the settings file."""
        file = TomlConfigSettingsSource(settings_cls, _settings_file())
        return init_settings, env_settings, file


def _settings_file() -> Path | None:
    name = os.environ.get(SETTINGS_FILE_VARIABLE)
    return Path(name) if name else None


def read_settings(arguments: list[str] | None = None, **values: Any) -> Settings:
    """Reads the settings; arguments as given, or the program's own.

    Raises:
        SystemExit: with a readable message if something does not fit.
    """
    if (file := _settings_file()) is not None:
        try:
            tomllib.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise SystemExit(f"trimtab-serve: settings file {file}: {error}") from error
    try:
        source: Any = {"_cli_parse_args": True if arguments is None else arguments}
        return Settings(**source, **values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SystemExit("trimtab-serve: " + "; ".join(lines)) from error
