from pathlib import Path

import pytest

from app.embedded import Home, with_running_servers
from app.settings import Settings


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A home in which this very process seems to be the supervisor."""
    home = Home(tmp_path)
    home.secret("secret", lambda: "kept-secret")
    home.write_run({"url": "http://localhost:1", "database_url": "postgresql://up/db", "redis_url": "redis://up"})
    return tmp_path


def test_the_servers_and_secrets_of_a_running_home_complete_the_settings(published: Path) -> None:
    found = with_running_servers(Settings.of(parley_home=published))
    assert found.dsn() == "postgresql://up/db"
    assert found.redis_dsn() == "redis://up"
    assert found.parley_secret
    assert found.parley_secret.get_secret_value() == "kept-secret"
    assert found.parley_encryption_keys is None


def test_what_is_set_stays(published: Path) -> None:
    given = Settings.of(parley_home=published, database_url="postgresql://mine/db")
    found = with_running_servers(given)
    assert found.dsn() == "postgresql://mine/db"
    assert found.redis_dsn() == "redis://up"


def test_nothing_changes_where_nothing_runs(tmp_path: Path) -> None:
    given = Settings.of(parley_home=tmp_path)
    assert with_running_servers(given) is given
