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

KEY_VARIABLE = "FEWSTROKE_API_KEY"
"""What commands that call a server send as their key; no setting of a server."""

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
    backend: Literal[
        "auto", "torch", "torch-compiled", "openvino", "openvino-int8", "openvino-lean"
    ] = Field(
        default="auto",
        description="What computes the networks; `auto`: OpenVINO where it is installed and the "
        "model is on the CPU in `float32`, else torch. `torch-compiled` lets torch compile float "
        "variants; `openvino-int8` also rounds to 8 bits; `openvino-lean` keeps low-bit weights "
        "packed.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    allow_public: bool = Field(
        default=False,
        description="Permit a `host` that other machines reach although there is no API key: "
        "whoever reaches the port may use it.",
    )
    queue_capacity: int = Field(
        default=32,
        ge=1,
        le=100_000,
        description="Requests that may wait for the device; the next one gets 429.",
    )
    rows_per_pass: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Pictures that go through the network together; none: as many as pay, measured "
        "when a model is new, and on the CPU only as many as keep every bit of every picture.",
    )
    serve_variants: str | None = Field(
        default=None,
        description="Further variants of the model to load and serve, as names with commas, or "
        "`all`; each takes memory of its own.",
    )
    max_steps: int = Field(
        default=100, ge=1, le=1000, description="Most denoising steps that a request may ask for."
    )
    max_prompt_chars: int = Field(
        default=4000, ge=1, le=32_000, description="Longest prompt, in characters."
    )
    max_regions: int = Field(
        default=16, ge=1, le=16, description="Most regions that a picture may have."
    )
    max_images: int = Field(
        default=10, ge=1, le=10, description="Most pictures that one request may ask for."
    )
    max_body_bytes: int = Field(
        default=1_048_576, ge=1024, description="Largest request body, in bytes."
    )
    max_header_bytes: int = Field(
        default=65_536,
        ge=4096,
        le=1_048_576,
        description="Largest head of a request (its first line and all headers), in bytes.",
    )
    body_timeout_s: float = Field(
        default=30.0, ge=0.1, le=3600, description="Seconds that a client gets to send its body."
    )
    public_url: str | None = Field(
        default=None,
        description="Where clients reach the service, as in `https://images.example.org`, for the "
        "links in answers; none: where the request says that it went.",
    )
    url_lifetime_s: int = Field(
        default=3600,
        ge=60,
        le=30 * 86_400,
        description="Seconds that a link to a picture works; the picture is deleted afterwards.",
    )
    idempotency_lifetime_s: int = Field(
        default=86_400,
        ge=60,
        le=30 * 86_400,
        description="Seconds that an answer is kept for its `Idempotency-Key`.",
    )
    max_queue_age_s: float = Field(
        default=60.0,
        ge=0.1,
        le=86_400,
        description="Seconds after which a waiting request goes before all younger ones.",
    )
    batch_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of the device that batches get while others wait as well.",
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
    cache_dir: str = Field(
        default="~/.cache/fewstroke",
        description="Folder for compiled networks, so that the next start is quick; up to 8 GiB.",
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
    planner: Literal["none", "grammar", "openai"] = Field(
        default="none",
        description="Who plans requests that name no planner; `none` paints prompts as they are.",
    )
    llm_model: str | None = Field(
        default=None, description="Language model that plans, as its server names it."
    )
    llm_url: str = Field(
        default="https://api.openai.com/v1",
        description="That server, of any make that speaks OpenAI's API, with its `/v1`.",
    )
    llm_key: SecretStr | None = Field(default=None, description="Key for that server.")
    llm_timeout_s: float = Field(
        default=20.0,
        ge=0.1,
        le=600,
        description="Seconds for a whole plan, after which the grammar plans instead.",
    )
    plan_cache_entries: int = Field(
        default=1024, ge=0, le=1_000_000, description="Plans that are remembered; 0 keeps none."
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

    @property
    def data_folder(self) -> Path:
        """Where the default database, the default storage and the releases lie."""
        return Path(self.data_dir).expanduser()

    @property
    def database_location(self) -> str:
        """URL of the database."""
        return self.database_url or f"sqlite:///{self.data_folder / 'fewstroke.db'}"

    @property
    def storage_location(self) -> str:
        """Folder or URL of the storage."""
        return self.storage or str(self.data_folder / "files")

    @property
    def releases_folder(self) -> Path:
        """Where published models lie."""
        return self.data_folder / "models"


def read_settings(**overrides: object) -> Settings:
    """Read the settings from the environment, with overrides from the command line.

    Args:
        overrides: Settings by field name that win over the environment; None leaves a field as is.

    Returns:
        The checked, frozen settings.

    Raises:
        ConfigError: If a value does not fit, or a variable with our prefix is no setting.
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
    return settings


def check_host(settings: Settings, num_keys: int) -> None:
    """Refuse to listen where other machines can reach a server that has no keys.

    Args:
        settings: The deployment to check.
        num_keys: API keys that work.

    Raises:
        ConfigError: If the host is not loopback, there is no key, and `allow_public` is off.
    """
    if num_keys or settings.allow_public or is_loopback(settings.host):
        return
    raise ConfigError(
        f"Refusing to listen on {settings.host!r}: other machines could reach it, and there is no "
        "API key. Make one with `fewstroke keys create`, listen on 127.0.0.1, or pass "
        "--allow-public if the network is trusted.",
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
        ours = name.startswith(ENV_PREFIX) and not name.startswith(KEY_VARIABLE)
        if ours and name not in known:
            guess = get_close_matches(name, known, n=1)
            hint = f" Did you mean {guess[0]}?" if guess else ""
            raise ConfigError(
                f"{name} is set, but there is no such setting.{hint} Known: {', '.join(known)}.",
                param=name,
            )
