"""How a server is deployed: every knob, its unit, its range and its environment variable."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigError

ENV_PREFIX = "FEWSTROKE_"
PLANNER_PREFIX = "FEWSTROKE_LLM_"
"""Variables that `fewstroke plan` reads itself."""

SHIPPED_MODEL = Path("checkpoints") / "emoji-scenes"


class Settings(BaseSettings):
    """One server's deployment, fixed at start; read in `app/main.py` alone."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, env_ignore_empty=True
    )

    model: str = Field(
        default_factory=lambda: str(shipped_model()),
        description="Model to serve: a diffusers folder on this machine, or a hub name. "
        "By default the model that comes with the source tree.",
    )
    variant: str | None = Field(
        default=None, description="Variant of the model to serve; none: the model's own default."
    )
    device: str | None = Field(
        default=None,
        description="Device that paints: `cpu`, `cuda`, `cuda:1`, `mps`; none: the fastest there.",
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description="Number format that the model computes in; none: `bfloat16` on CUDA, "
        "`float32` elsewhere.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    allow_public: bool = Field(
        default=False,
        description="Permit a `host` that other machines reach. There are no API keys: "
        "whoever reaches the port may use it.",
    )
    queue_capacity: int = Field(
        default=32,
        ge=1,
        le=100_000,
        description="Requests that may wait for the device; the next one gets 429.",
    )
    max_steps: int = Field(
        default=100, ge=1, le=1000, description="Most denoising steps that a request may ask for."
    )
    max_prompt_chars: int = Field(
        default=4000, ge=1, le=32_000, description="Longest prompt, in characters."
    )
    max_body_bytes: int = Field(
        default=1_048_576, ge=1024, description="Largest request body, in bytes."
    )
    drain_timeout_s: int = Field(
        default=30,
        ge=0,
        le=3600,
        description="Seconds that accepted requests get to finish after SIGTERM or Ctrl-C.",
    )
    data_dir: str = Field(
        default="~/.local/share/fewstroke",
        description="Folder for the default database and the default storage; made when missing.",
    )
    database_url: str | None = Field(
        default=None,
        description="`sqlite:///file` or `postgresql://user:password@host/name`; "
        "none: `fewstroke.db` in the data folder.",
    )
    storage: str | None = Field(
        default=None,
        description="Where files lie: a folder, or a URL that fsspec knows (`s3://bucket/prefix`); "
        "none: `files` in the data folder. All replicas and workers need the same.",
    )
    run_batches: bool = Field(
        default=True, description="Work on batches in the server itself, beside live requests."
    )
    batch_concurrency: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="Lines of batches that one process paints at a time.",
    )
    batch_lease_s: float = Field(
        default=60.0,
        ge=0.2,
        le=3600,
        description="Seconds after which the lines of a worker that fell silent go to another.",
    )
    batch_max_tries: int = Field(
        default=10,
        ge=3,
        le=1000,
        description="Workers that a line may take down with it before it fails alone.",
    )
    max_batch_lines: int = Field(
        default=50_000, ge=1, le=1_000_000, description="Most lines of one batch."
    )
    max_file_bytes: int = Field(
        default=200 * 1024 * 1024, ge=1024, description="Largest file that is taken, in bytes."
    )
    webhook_url: str | None = Field(
        default=None, description="Who is told about ended batches that name no address themselves."
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        description="Key that signs webhooks, `whsec_` and base64; without it there are none.",
    )
    allow_private_webhooks: bool = Field(
        default=False,
        description="Permit webhooks to addresses that are not on the public internet, and to "
        "plain http.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line that is written."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or coloured text for people."
    )
    log_prompts: bool = Field(
        default=False, description="Write prompts into the log; they may be private."
    )


def read_settings(**overrides: object) -> Settings:
    """Read the settings from the environment, with overrides from the command line.

    Args:
        overrides: Settings by field name that win over the environment; None leaves a field as is.

    Returns:
        The checked, frozen settings.

    Raises:
        ConfigError: If a value does not fit, a variable with our prefix is no setting, or the
            host is public without leave.
    """
    _refuse_unknown_variables(os.environ)
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{ENV_PREFIX}{name.upper()}={first['input']!r}: {first['msg']}.", param=name
        ) from error
    check_host(settings)
    return settings


def check_host(settings: Settings) -> None:
    """Refuse to listen where other machines can reach a server that has no keys.

    Args:
        settings: The deployment to check.

    Raises:
        ConfigError: If the host is not loopback and `allow_public` is off.
    """
    if settings.allow_public or is_loopback(settings.host):
        return
    raise ConfigError(
        f"Refusing to listen on {settings.host!r}: other machines could reach it, and there are "
        "no API keys. Listen on 127.0.0.1, or pass --allow-public if the network is trusted.",
        param="host",
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server that listens on `host`.

    Args:
        host: A name or an IP address.
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def shipped_model() -> Path:
    """Return where the model that comes with the source tree lies, there or not.

    The tree is the one this file is part of; a wheel has none, so there the working folder counts.
    """
    tree = Path(__file__).resolve().parent.parent
    beside_source = tree / SHIPPED_MODEL
    return beside_source if beside_source.is_dir() else Path.cwd() / SHIPPED_MODEL


def settings_table() -> str:
    """Return the Markdown table of every setting, as `docs/operations.md` shows it."""
    rows = ["| variable | default | values | what it does |", "|---|---|---|---|"]
    schema = Settings.model_json_schema()["properties"]
    for name, field in Settings.model_fields.items():
        default = SHIPPED_MODEL.as_posix() if name == "model" else field.get_default()
        shown = "none" if default is None else str(default).lower()
        rows.append(
            f"| `{ENV_PREFIX}{name.upper()}` | `{shown}` | {_values(schema[name])} "
            f"| {field.description} |"
        )
    return "\n".join(rows)


def _values(schema: dict[str, object]) -> str:
    options = schema.get("enum")
    if isinstance(options, list):
        return ", ".join(f"`{option}`" for option in options)
    if "minimum" in schema:
        return (
            f"{schema['minimum']} to {schema['maximum']}"
            if "maximum" in schema
            else (f"at least {schema['minimum']}")
        )
    return {"boolean": "`true`, `false`"}.get(str(schema.get("type")), "text")


def _refuse_unknown_variables(environment: Iterable[str]) -> None:
    known = [f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name in environment:
        ours = name.startswith(ENV_PREFIX) and not name.startswith(PLANNER_PREFIX)
        if ours and name not in known:
            guess = get_close_matches(name, known, n=1)
            hint = f" Did you mean {guess[0]}?" if guess else ""
            raise ConfigError(
                f"{name} is set, but there is no such setting.{hint} Known: {', '.join(known)}.",
                param=name,
            )
