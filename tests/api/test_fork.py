import httpx


async def test_a_repeated_fork_shows_the_same_copy_and_run(client: httpx.AsyncClient) -> None:
    said = (await client.post("/runs", json={"message": "Hello"})).json()
    url, body = f"/conversations/{said['conversation_id']}/fork", {"from_seq": 1, "message": "What is 2+2?"}
    first, second = [(await client.post(url, json=body, headers={"Idempotency-Key": "one"})).json() for _ in range(2)]
    assert first["id"] == second["id"] != said["conversation_id"]
    assert first["run_id"] == second["run_id"] is not None
    plain = (await client.post(url, json={"from_seq": 2})).json()
    assert plain["run_id"] is None
