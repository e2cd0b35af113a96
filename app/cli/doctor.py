"""`parley doctor`: is everything there that Parley needs, and which settings are in force."""

import asyncio
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from app.cli.output import Column, Output
from app.cli.session import AsJson
from app.embedded import with_running_servers
from app.settings import Settings, set_in_vain

CHECKS = [
    Column("CHECK", "check", least=16),
    Column("STATE", "state", least=9),
    Column("DETAIL", "detail", least=20, wraps=True),
]
SETTINGS = [Column("SETTING", "setting"), Column("VALUE", "value", wraps=True), Column("FROM", "source")]
MASK = "****"


def doctor(
    all_settings: Annotated[bool, typer.Option("--all", help="Show settings at their defaults, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything Parley needs and show the settings in force; exit code 1 when something is broken."""
    # Imported here: the checks load the libraries of everything they check.
    from app.cli.checks import run_checks

    out = Output(as_json=as_json)
    given = Settings.load()
    settings = with_running_servers(given)
    found = [check.shown for check in asyncio.run(run_checks(settings))]
    in_force = [each for each in effective(given, settings) if all_settings or each["source"] != "default"]
    if as_json:
        out.json({"checks": found, "settings": in_force, "warnings": set_in_vain()})
    else:
        out.table(found, CHECKS)
        out.text("")
        out.table(in_force, SETTINGS)
        for sentence in set_in_vain():
            out.text(f"warning: {sentence}")
    if any(check["state"] == "broken" for check in found):
        raise typer.Exit(1)


def effective(given: Settings, settings: Settings) -> list[dict[str, str]]:
    """Every setting, its value with secrets masked, and where it comes from."""
    return [
        {"setting": name.upper(), "value": _masked(getattr(settings, name)), "source": _source(name, given, settings)}
        for name in Settings.model_fields
    ]


def _source(name: str, given: Settings, settings: Settings) -> str:
    if name in given.model_fields_set and getattr(given, name) is not None:
        return "set"
    return "running here" if getattr(given, name) != getattr(settings, name) else "default"


def _masked(value: Any) -> str:
    if not isinstance(value, SecretStr):
        return "" if value is None else str(value)
    secret = value.get_secret_value()
    scheme, separator, rest = secret.partition("://")
    if not separator:
        return MASK
    # Of a URL the host and database are worth showing; user, password and query may hold secrets.
    place = rest.rpartition("@")[2].partition("?")[0]
    return f"{scheme}://{place}" if not scheme.startswith("http") else f"{scheme}://{place.partition('/')[0]}/{MASK}"
