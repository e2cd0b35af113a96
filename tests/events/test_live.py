import random
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from app.events import Delta, ServerEvent
from app.events.live import LiveText, assemble
from tests.events.client import Client

CONVERSATION, RUN = uuid4(), uuid4()
PIECES = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=12)


def spoken(pieces: list[str], *, seq: int = 2, fence: int = 1, part: int = 0) -> list[Delta]:
    deltas, offset = [], 0
    for piece in pieces:
        deltas.append(Delta(CONVERSATION, RUN, seq, fence, part, "text", offset, piece))
        offset += len(piece)
    return deltas


def sent(delta: Delta) -> ServerEvent:
    return ServerEvent(delta.event, delta.data)


@given(PIECES)
def test_a_snapshot_is_all_that_was_said(pieces: list[str]) -> None:
    (whole,) = assemble(spoken(pieces))
    assert (whole.text, whole.offset, whole.whole) == ("".join(pieces), 0, True)
    assert Delta.of(whole.record()) == whole


@given(PIECES, st.integers(0, 11))
def test_a_list_that_lost_its_beginning_makes_no_snapshot(pieces: list[str], lost: int) -> None:
    rest = spoken(pieces)[lost:]
    texts = [each.text for each in assemble(rest)]
    assert texts == (["".join(pieces)] if lost == 0 else [])


@given(PIECES, PIECES)
def test_the_newest_claim_counts(old: list[str], new: list[str]) -> None:
    mixed = [*spoken(old, fence=1), *spoken(new, fence=2), *spoken(old, fence=1)]
    assert [each.text for each in assemble(mixed)] == ["".join(new)]


@given(PIECES, st.integers(0, 2**32), st.data())
def test_the_clients_rule_ends_with_the_text_whatever_is_lost_or_repeated(
    pieces: list[str], seed: int, data: st.DataObject
) -> None:
    """Deltas may be lost, repeated and mixed with an older claim's; a snapshot anywhere after the loss mends it."""
    deltas = spoken(pieces, fence=2)
    keep = data.draw(st.lists(st.booleans(), min_size=len(deltas), max_size=len(deltas)))
    live, client, shuffled = LiveText(RUN, 2, 2), Client(), random.Random(seed)
    stale = spoken(["old ", "words"], fence=1)
    for delta, kept in zip(deltas, keep, strict=True):
        live.add(delta)
        for _ in range(shuffled.choice((1, 1, 2)) if kept else 0):
            client.take(sent(delta))
        if shuffled.random() < 0.3 and any(keep):
            client.take(sent(shuffled.choice(stale)))
    for snapshot in live.snapshots():
        client.take(sent(snapshot))
    assert client.shown() == ["".join(pieces)]
    client.take(ServerEvent("message.completed", {"message_seq": 2, "role": "assistant", "text": "stored"}, 1))
    client.take(sent(deltas[-1]))
    assert client.shown() == ["stored"]
