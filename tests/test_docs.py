"""What the pages say is true: everything there is has its line, and nothing in them is out of date."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from app.cli.developer import openapi_text
from app.errors import all_errors
from app.events import EPHEMERAL, EventType
from app.notifications.registry import CHANNELS
from app.patterns import PATTERNS
from app.runs import TRANSITIONS
from app.settings import Settings
from app.tools import BUILT_IN
from tests import daylight

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def first_cells(text: str) -> list[str]:
    """What stands in backticks in the first column of a page's tables."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.M)


# --- settings ---------------------------------------------------------------------------------------


def defaults() -> dict[str, str]:
    return {
        name.upper(): "" if field.default is None else str(field.default)
        for name, field in Settings.model_fields.items()
    }


def example_lines() -> list[tuple[str, str, str]]:
    """`.env.example` as (name, value, the line above)."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return [(name, value, said) for said, name, value in re.findall(r"^# (.*)\n# ([A-Z_]+)=(.*)$", text, re.M)]


def test_the_example_environment_holds_every_setting_with_its_default_and_meaning() -> None:
    assert {name: value for name, value, _ in example_lines()} == defaults()
    meanings = {name.upper(): field.description for name, field in Settings.model_fields.items()}
    assert {name: said for name, _, said in example_lines()} == meanings


def test_copying_the_example_environment_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []
    monkeypatch.chdir(tmp_path)
    as_it_is, all_taken = tmp_path / "as-it-is", tmp_path / "all-taken"
    as_it_is.write_text(text)
    all_taken.write_text("\n".join(f"{name}={value}" for name, value, _ in example_lines()))
    assert Settings.load(_env_file=as_it_is) == Settings.load(_env_file=all_taken) == Settings.load(_env_file=None)


def test_every_setting_is_documented() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`|-) \| (.+) \|$", page("configuration.md"), re.M)
    assert {name: value for name, value, _ in rows} == defaults()


def test_a_setting_of_few_values_names_them() -> None:
    for name, field in Settings.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        values = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
        assert [value for value in values if value not in (field.description or "")] == [], name


# --- closed and open sets ---------------------------------------------------------------------------


def test_every_error_code_is_documented_with_its_status_and_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \| (.+) \|$", page("errors.md"), re.M)
    assert {code: (int(status), said) for code, status, said in rows} == {
        error.code: (error.status, error.meaning()) for error in all_errors()
    }


def test_every_event_is_documented() -> None:
    named = first_cells(page("events.md"))
    assert sorted(named) == sorted([*(str(kind) for kind in EventType), *EPHEMERAL])


@pytest.mark.parametrize(("name", "there"), [("tools.md", BUILT_IN), ("patterns.md", PATTERNS)])
def test_every_entry_of_a_registry_has_its_row(name: str, there: dict[str, object]) -> None:
    assert first_cells(page(name)) == list(there)


def test_every_channel_is_documented() -> None:
    assert set(first_cells(page("notifications.md"))) >= set(CHANNELS)


def test_the_tools_page_tells_what_the_tools_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^|]*)` \| (\w+) \| (yes|no) \| ([\d.]+) s \|", page("tools.md"), re.M)
    said = {
        name: (arguments.split(", "), risk, again, float(seconds)) for name, arguments, risk, again, seconds in rows
    }
    assert said == {
        name: (
            list(tool.parameters["properties"]),
            str(tool.risk),
            "yes" if tool.idempotent else "no",
            tool.timeout_seconds,
        )
        for name, tool in BUILT_IN.items()
    }


def test_the_run_state_diagram_is_the_state_machine() -> None:
    diagram = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", page("run-states.md"), re.S)
    assert diagram
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", diagram[1], re.M))
    assert drawn == {(str(before), str(after)) for before, onward in TRANSITIONS.items() for after in onward}
    begins = set(re.findall(r"\[\*\] --> (\w+)", diagram[1]))
    ends = set(re.findall(r"(\w+) --> \[\*\]", diagram[1]))
    assert begins == {"queued", "running"}
    assert ends == {str(state) for state, onward in TRANSITIONS.items() if not onward}


def layers() -> list[set[str]]:
    """The layers of the contract; brackets stand round what is not built yet."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [found] = [each["layers"] for each in contracts if each["type"] == "layers"]
    return [{name.strip() for name in re.split(r"[|:]", line) if "(" not in name} for line in found]


def test_the_layers_of_the_page_are_those_of_the_contract() -> None:
    drawn = re.search(r"## Layers.*?```text\n(.*?)```", page("architecture.md"), re.S)
    assert drawn
    lines = re.sub(r"\n {4,}", " ", drawn[1]).splitlines()  # A layer that goes on stands further in.
    assert [set(re.findall(r"[\w.]+", line)) for line in lines] == layers()


def test_what_is_below_the_api_is_all_in_its_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [web] = [each["source_modules"] for each in contracts if each["id"] == "web"]
    api = next(index for index, names in enumerate(layers()) if "app.api" in names)
    assert set(web) == {"workers", *(name for names in layers()[api + 1 :] for name in names)}


def test_the_table_of_clock_changes_is_what_the_code_does() -> None:
    assert page("schedules.md") == daylight.page(), "run: python -m tests.daylight"


# --- the pages themselves ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = ["".join(groups).partition("#")[0] for groups in LINK.findall(path.read_text(encoding="utf-8"))]
    local = [target for target in targets if target and "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(path: Path) -> None:
    named = set(re.findall(r"`((?:app|workers|tests|alembic|docs|benchmarks)/[\w./-]+)`", path.read_text("utf-8")))
    assert sorted(name for name in named if not (ROOT / name).exists() and name not in MADE_BY_HOW_TOS) == []


# The files that the how-to pages make.
MADE_BY_HOW_TOS = {"app/tools/word_count.py", "app/notifications/file.py"}


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        links = ("".join(groups).partition("#")[0] for groups in LINK.findall(here.read_text(encoding="utf-8")))
        found = (Path(os.path.normpath(here.parent / link)) for link in links if link.endswith(".md"))
        todo += [path for path in found if path.exists()]
    assert {str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md")} - {
        str(path.relative_to(ROOT)) for path in seen
    } == set()


@pytest.mark.parametrize("path", sorted((DOCS / "how-to").glob("*.md")), ids=lambda path: path.stem)
def test_the_diff_of_a_how_to_applies(path: Path) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    [diff] = re.findall(r"^```diff\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S)
    done = subprocess.run([git, "apply", "--check", "-"], input=diff, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_openapi_snapshot_is_the_applications() -> None:
    """`python3 dev.py openapi > docs/openapi.json` writes it; what changed in it is reviewed with the code."""
    assert page("openapi.json") == openapi_text(), "run: python3 dev.py openapi > docs/openapi.json"
