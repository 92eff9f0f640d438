from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import (
    Settings,
    check_host,
    is_loopback,
    read_settings,
    settings_table,
    shipped_model,
)
from core.errors import ConfigError

DOC = Path(__file__).parents[2] / "docs" / "operations.md"


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_table_in_the_docs_is_fresh() -> None:
    assert settings_table() in DOC.read_text("utf-8"), "paste fewstroke serve --list-settings"


def test_overrides_win_over_the_environment_and_none_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEWSTROKE_PORT", "9001")
    monkeypatch.setenv("FEWSTROKE_MAX_STEPS", "7")
    settings = read_settings(port=9002, max_steps=None)
    assert (settings.port, settings.max_steps) == (9002, 7)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FEWSTROKE_PORT", "http", "FEWSTROKE_PORT='http'"),
        ("FEWSTROKE_PORT", "70000", "less than or equal to 65535"),
        ("FEWSTROKE_QUEUE_CAPACITY", "0", "greater than or equal to 1"),
        ("FEWSTROKE_LOG_FORMAT", "xml", "'json' or 'console'"),
        ("FEWSTROKE_PROT", "1", "Did you mean FEWSTROKE_PORT?"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="FEWSTROKE_") as caught:
        read_settings()
    assert said in caught.value.message


def test_settings_do_not_change_after_the_start() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])  # noqa: S104
def test_a_public_host_is_refused_without_keys_unless_allowed(host: str) -> None:
    settings = read_settings(host=host)
    with pytest.raises(ConfigError, match=r"keys create.*--allow-public"):
        check_host(settings, 0)
    check_host(settings, 1)
    check_host(read_settings(host=host, allow_public=True), 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_leave(host: str) -> None:
    assert is_loopback(host)
    check_host(read_settings(host=host), 0)


def test_the_shipped_model_is_looked_for_beside_the_source() -> None:
    assert shipped_model().parts[-2:] == ("checkpoints", "emoji-scenes")
    assert Settings().model == str(shipped_model())


def test_variables_of_the_planner_do_not_stop_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTROKE_LLM_MODEL", "qwen3")
    assert read_settings().port == 8000
