from __future__ import annotations

import httpx

import deepforge


async def test_anybody_may_ask_whether_the_server_is_there(http: httpx.AsyncClient) -> None:
    response = await http.get("/health", headers={"host": "elsewhere.example"})

    assert response.json() == {"status": "ok", "version": deepforge.__version__}
