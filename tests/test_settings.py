from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.settings import Settings, set_in_vain


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")


def test_an_example_value_counts_as_unset_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/YOUR/WEBHOOK")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-...")
    settings = Settings.load()
    assert (settings.slack_webhook_url, settings.openai_api_key) == (None, None)
    assert set_in_vain() == [
        "OPENAI_API_KEY still holds its example value and counts as unset",
        "SLACK_WEBHOOK_URL still holds its example value and counts as unset",
    ]


def test_a_setting_of_a_later_version_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LANGFUSE_HOST=https://x.example\nSMTP_HOST=mail.example.com\n")
    assert Settings.load().smtp_host == "mail.example.com"
    assert set_in_vain() == ["LANGFUSE_HOST is not used by this version"]


def test_a_secret_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret-key\n")
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(tmp_path / "key"))
    key = Settings.load().anthropic_api_key
    assert key
    assert key.get_secret_value() == "secret-key"


def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_PORT", "many")
    with pytest.raises(ConfigurationError, match="PARLEY_PORT"):
        Settings.load()


@pytest.mark.parametrize("auth", ["off", None])
def test_without_authentication_only_this_machine_is_served(auth: str | None) -> None:
    open_to_all = Settings.of(parley_host="0.0.0.0", parley_auth=auth)
    if auth is None:
        assert open_to_all.auth_on
        return
    with pytest.raises(ConfigurationError, match="PARLEY_AUTH"):
        _ = open_to_all.auth_on
