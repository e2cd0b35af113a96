"""What a person wrote, without what the mail quotes."""

import time

import pytest

from app.answers.quoted import MAX_CHARACTERS, written
from app.settings import Settings

SETTINGS = Settings.of(smtp_from_email="parley@example.org", parley_reply_address="reply@example.org")
OURS = "reply+abcdefghijklmnopqrstuvwxyz@example.org"


@pytest.mark.parametrize(
    ("text", "new"),
    [
        (f"Yes.\n\nOn Mon, Nov 21, 2026 at 9:00 AM Parley <{OURS}> wrote:\n\n> Report\n> 42\n", "Yes."),
        (f"Yes.\n\nOn Mon, Nov 21, 2026 at 9:00 AM Parley Reports\n<{OURS}> wrote:\n\n> Report\n", "Yes."),
        (f"Ja.\n\nAm Mo., 21. Nov. 2026 um 09:00 Uhr schrieb Parley <\n{OURS}>:\n\n> Bericht\n", "Ja."),
        ("Oui.\n\nLe lun. 21 nov. 2026 à 09:00, Parley <p@example.org> a écrit :\n\n> Rapport\n", "Oui."),
        (f"Why?\n\n{'_' * 32}\nFrom: Parley <{OURS}>\nSent: Monday\nTo: Ann\nSubject: x\n\nReport\n", "Why?"),
        (f"Warum?\n\nVon: Parley <{OURS}>\nGesendet: Montag, 21. November\nAn: Ann\n\nReport\n", "Warum?"),
        ("Hvorfor?\n\nFra: Parley <parley@example.org>\nSendt: mandag\n\nReport\n", "Hvorfor?"),
        ("ok\n\n-----Original Message-----\nFrom: Parley\nSubject: s\n\nbody\n", "ok"),
        ("> How much?\n42.\n> When?\nTomorrow.\n", "> How much?\n42.\n> When?\nTomorrow."),
        ("On Monday we wrote: this is wrong.\nThanks", "On Monday we wrote: this is wrong.\nThanks"),
        ("No quote at all.", "No quote at all."),
        ("", ""),
        ("> only\n> quoted\n", ""),
    ],
)
def test_the_words_above_the_quote(text: str, new: str) -> None:
    assert written(text, "", SETTINGS) == new


def test_html_is_read_where_there_is_no_plain_part() -> None:
    html = (
        '<div dir="ltr">Add <b>totals</b>, please.<script>alert(1)</script></div><br>'
        '<div class="gmail_quote"><div>On Mon, Nov 21, 2026 at 9:00 AM Parley &lt;p@example.org&gt; wrote:<br></div>'
        "<blockquote><p>Report 42</p></blockquote></div>"
    )
    assert written(" \n", html, SETTINGS) == "Add **totals**, please."


@pytest.mark.parametrize(
    "text",
    [
        "> " * 200_000,
        "On " * 100_000 + "wrote",
        "\n" * 400_000,
        "On " + " " * 300_000 + "x",
        "From: a\n" * 50_000,
        "a:" * 200_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.perf_counter()
    assert len(written(text, "", SETTINGS)) <= MAX_CHARACTERS
    assert time.perf_counter() - began < 5
