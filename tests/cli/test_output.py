import json
import sys

import pytest

from app.cli.output import Column, Output, printable, shown, value_at


def test_text_can_not_act_on_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\nc\td\x9b") == "a�[2Jb\nc\td�"


def test_values_for_people() -> None:
    assert shown(None) == ""
    assert shown(True) == "yes"
    assert shown(["a", "b"]) == "a, b"
    assert shown({"requests": 2, "cost_usd": None}) == "requests 2"
    assert shown("2026-01-02Z") == "2026-01-02Z"
    assert len(shown("2026-01-02T03:04:05.678901Z")) == len("2026-01-02 03:04:05")


def test_a_path_that_breaks_off_is_nothing() -> None:
    assert value_at({"a": {"b": 1}}, "a.b") == 1
    assert value_at({"a": None}, "a.b") is None


def test_a_table_off_a_terminal_holds_whole_rows(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    Output().table([{"id": "1", "text": f"{long} [bold]\n:smile:"}], [Column("ID", "id"), Column("TEXT", "text")])
    assert capsys.readouterr().out.splitlines() == ["ID  TEXT", f"1   {long} [bold] :smile:"]


def test_json_is_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).table([{"id": 1}], [Column("ID", "id")], page={"items": [{"id": 1}], "next_cursor": None})
    assert json.loads(capsys.readouterr().out) == {"items": [{"id": 1}], "next_cursor": None}


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for colour, expected in (("1", False), ("", True)):
        monkeypatch.setenv("NO_COLOR", colour)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("FORCE_COLOR", "1")
        Output().table([{"state": "failed"}], [Column("STATE", "state")])
        assert ("\x1b[31m" in capsys.readouterr().out) is expected


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_narrow_terminal_loses_no_column(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    row = {"name": "assistant", "model": None, "tools": ["calculator"] * 20, "detail": "word " * 20}
    Output().table(
        [row],
        [
            Column("NAME", "name"),
            Column("MODEL", "model", nothing="(default)"),
            Column("TOOLS", "tools"),
            Column("DETAIL", "detail", wraps=True),
        ],
    )
    text = capsys.readouterr().out
    assert all(word in text for word in ("NAME", "assistant", "(default)", "TOOLS", "calculat"))
    assert text.count("word") == 20
