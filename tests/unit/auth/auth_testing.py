"""What tests of auth share."""

from typing import Any

from fastapi.testclient import TestClient

ADMIN_PASSWORD = "first-admin-pass"
ROUNDS = 4


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def sign_in(client: TestClient, name: str = "admin", password: str = ADMIN_PASSWORD) -> Any:
    """Signs in and gives the answer's JSON."""
    answer = client.post("/token", data={"username": name, "password": password})
    assert answer.status_code == 200, answer.text
    return answer.json()


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}
