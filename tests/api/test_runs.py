"""What a run shows of itself."""

import httpx


async def test_a_fork_adds_no_steps_to_the_run_it_copies(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/runs", json={"message": "What is 2 + 3 * 4?"})).json()
    before = (await client.get(f"/runs/{answer['run_id']}/steps")).json()["items"]
    assert [step["kind"] for step in before] == ["model", "tool", "model"]
    forked = await client.post(f"/conversations/{answer['conversation_id']}/fork", json={"from_seq": 4})
    assert forked.status_code == 201
    assert (await client.get(f"/runs/{answer['run_id']}/steps")).json()["items"] == before
