import pytest

from app.db import Database
from app.settings import Settings
from tests.tasks.tasks import Desk


@pytest.fixture
def desk(database: Database, settings: Settings) -> Desk:
    return Desk(database, settings)
