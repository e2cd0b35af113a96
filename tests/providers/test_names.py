import pytest
from pydantic_ai.models import known_model_names
from pydantic_ai.models.test import TestModel

from app.errors import ConfigurationError, InvalidModel, ModelFailed, ModelKeyMissing
from app.providers import Providers, check_model, default_model, missing_key
from app.providers.names import _DEFAULTS
from app.settings import Settings

NOTHING = Settings.of()


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("demo", "demo"),
        (" openai:gpt-6.1-terra ", "openai:gpt-6.1-terra"),
        ("openai-chat:meta/llama-4", "openai-chat:meta/llama-4"),
        ("openai-responses:gpt-6-luna", "openai-responses:gpt-6-luna"),
        ("anthropic:claude-sonnet-5-5", "anthropic:claude-sonnet-5-5"),
        ("google-gla:gemini-3.8-flash", "google:gemini-3.8-flash"),
        ("ollama:qwen3:8b", "ollama:qwen3:8b"),
    ],
)
def test_a_model_string_has_one_spelling(given: str, stored: str) -> None:
    assert check_model(NOTHING, given) == stored


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("gpt-6-luna", "write openai:gpt-6-luna"),
        ("claude-opus-5-5", "write anthropic:claude-opus-5-5"),
        ("gemini-3.8-flash", "write google:gemini-3.8-flash"),
        ("acme:big", "write one of openai:NAME"),
        ("openai:", "write openai:NAME"),
        ("openai:two words", "write openai:NAME"),
        ("openai:nul\x00", "write openai:NAME"),
        ("openai-chat:local@http://10.0.0.1/v1", "set OPENAI_BASE_URL and write openai:local"),
        ("scripted:nobody", "not registered"),
        ("demo:other", "or demo"),
        ("", "or demo"),
    ],
)
def test_a_wrong_model_string_is_answered_with_the_right_one(given: str, right: str) -> None:
    with pytest.raises(InvalidModel) as caught:
        check_model(NOTHING, given, field="fallback_models.0")
    assert right in caught.value.detail
    assert caught.value.field == "fallback_models.0"


def test_an_unknown_provider_is_answered_with_those_that_have_keys() -> None:
    with pytest.raises(InvalidModel, match="keys are set for anthropic"):
        check_model(Settings.of(anthropic_api_key="k"), "acme:big")


def test_a_missing_key_shows_at_run_time_only() -> None:
    assert check_model(NOTHING, "openai:gpt-6-luna") == "openai:gpt-6-luna"
    assert missing_key(NOTHING, "openai:gpt-6-luna") == "OPENAI_API_KEY"
    with pytest.raises(ModelKeyMissing, match="needs OPENAI_API_KEY"):
        Providers(NOTHING).model("openai:gpt-6-luna")


def test_a_fallback_without_its_key_fails_too() -> None:
    with pytest.raises(ModelKeyMissing, match="ANTHROPIC_API_KEY"):
        Providers(NOTHING).model("demo", ["anthropic:claude-haiku-5-5"])


@pytest.mark.parametrize(
    ("values", "string"),
    [
        ({"openai_base_url": "http://localhost:1/v1"}, "openai:local"),
        ({}, "ollama:qwen3"),
        ({}, "demo"),
        ({"google_api_key": "k"}, "google:gemini-3.8-flash"),
    ],
)
def test_a_server_of_ones_own_needs_no_key(values: dict[str, str], string: str) -> None:
    assert missing_key(Settings.of(**values), string) is None


@pytest.mark.parametrize(
    ("values", "model", "reason"),
    [
        ({}, "demo", "no provider key is set"),
        ({"google_api_key": "k"}, "google:gemini-3.8-flash", "GOOGLE_API_KEY is set"),
        ({"google_api_key": "k", "openai_api_key": "k"}, "openai:gpt-6.1-terra", "OPENAI_API_KEY is set"),
        ({"openai_api_key": "your-key-here"}, "demo", "no provider key is set"),
        ({"openai_api_key": "k", "default_model": "demo"}, "demo", "DEFAULT_MODEL names it"),
        ({"default_model": "anthropic:x"}, "anthropic:x", "ANTHROPIC_API_KEY is not set"),
    ],
)
def test_the_default_model_comes_with_its_reason(values: dict[str, str], model: str, reason: str) -> None:
    chosen, why = default_model(Settings.of(**values))
    assert chosen == model
    assert reason in why


def test_a_default_model_of_no_provider_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="write openai:gpt-6-luna") as caught:
        default_model(Settings.of(default_model="gpt-6-luna"))
    assert caught.value.field == "DEFAULT_MODEL"


def test_the_default_models_are_known_to_the_library() -> None:
    assert {model for _, model in _DEFAULTS} <= set(known_model_names())


def test_registered_models_are_offered_by_name() -> None:
    model = TestModel()
    Providers.register("registered", lambda: model)
    assert check_model(NOTHING, "scripted:registered") == "scripted:registered"
    assert Providers(NOTHING).model("scripted:registered") is model


def test_a_scripted_model_unknown_here_does_not_run() -> None:
    with pytest.raises((InvalidModel, ModelFailed)):
        Providers(NOTHING).model("scripted:elsewhere")
