"""The client against a real server on a socket."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from product_classifier.client import (
    APIError,
    Client,
    Prediction,
    ProblemOfOne,
    Product,
    ServerUnreachable,
)
from unused_ports import free_port

# By its path: a folder of tests is no package, and the name is too common for one of the whole suite.
_SPEC = importlib.util.spec_from_file_location(
    "api_server", Path(__file__).with_name("api_server.py")
)
api_server = importlib.util.module_from_spec(_SPEC)
sys.modules["api_server"] = api_server
_SPEC.loader.exec_module(api_server)

PASSWORD = "a secret & a half"
BUSY = {"title": "Too Many Requests", "status": 429, "detail": "slow down", "request_id": "r-2"}


@pytest.fixture
def api():
    api = api_server.FakeAPI()
    server = api_server.serve(api)
    yield api
    server.shutdown()
    server.server_close()


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def client(api, pauses):
    with Client(api.url, trust_env=False, sleep=pauses.append) as client:
        client.login("ana", PASSWORD)
        yield client


def test_a_sign_in_sends_the_password_as_a_form_and_never_in_an_address(api, client):
    (request,) = api.received
    form = parse_qs(request.body.decode())
    assert form == {"username": ["ana"], "password": [PASSWORD]}
    client.predict(designation="x")
    assert not any("access" in path or "secret" in path for path in api.paths())


def test_what_the_client_shows_of_itself_has_no_secret(client):
    for text in (repr(client), repr(client._session), str(vars(client)["_session"])):
        assert PASSWORD not in text
        assert "access-1" not in text
        assert "refresh-1" not in text
    assert "ana" in repr(client)


def test_an_answer_is_typed(api, client, tmp_path):
    photo = tmp_path / "my photo.jpg"
    photo.write_bytes(b"\xff\xd8 pixels")
    answer = client.predict(
        designation="Piscine été", description="", image=photo, explain=True, product_id="7"
    )
    assert (answer.code, answer.label, answer.confidence) == (2583, "Piscine", 0.91)
    assert (answer.decision, answer.threshold, answer.modalities) == ("auto", 0.8, "text")
    assert [entry.code for entry in answer.top] == [2583, 10, 40]
    assert (answer.bundle_id, answer.request_id) == ("0123456789abcdef", "r-1")
    assert api.received[-1].headers["Authorization"] == "Bearer access-1"
    assert api.received[-1].parts() == [
        ("designation", None, "Piscine été".encode()),
        ("description", None, b""),
        ("product_id", None, b"7"),
        ("explain", None, b"true"),
        ("image", "my photo.jpg", b"\xff\xd8 pixels"),
    ]


def test_a_text_alone_is_a_multipart_form_too(api, client):
    client.predict(designation="x")
    assert api.received[-1].headers["Content-Type"].startswith("multipart/form-data")
    assert api.received[-1].parts() == [("designation", None, b"x")]


def test_a_batch_names_its_photos_and_keeps_errors_apart(api, client, tmp_path):
    photo = tmp_path / "same.jpg"
    photo.write_bytes(b"two")
    answer = client.predict_batch([Product("a", image=b"one"), Product("b", image=photo)])
    first, second = answer.results
    assert isinstance(first, Prediction)
    assert first.bundle_id == answer.bundle_id == "0123456789abcdef"
    assert isinstance(second, ProblemOfOne)
    assert second.detail == "no title"
    parts = api.received[-1].parts()
    entries = json.loads(parts[0][2])
    assert [entry["image"] for entry in entries] == ["0-photo", "1-same.jpg"]
    assert parts[1:] == [("images", "0-photo", b"one"), ("images", "1-same.jpg", b"two")]


@pytest.mark.parametrize("count", [0, 65])
def test_a_batch_of_a_size_that_is_refused_is_not_sent(api, client, count):
    with pytest.raises(ValueError, match=f"1 to 64 products. Received: {count}"):
        client.predict_batch([Product("a")] * count)
    assert api.paths() == ["/token"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(api, client, pauses, status):
    api.answers.extend([(status, BUSY, {"Retry-After": "7"}), (status, BUSY, {})])
    assert client.predict(designation="x").code == 2583
    assert pauses == [7.0, 1.0]
    assert all(request.parts() for request in api.received[1:])


def test_waiting_is_bounded_in_number(api, client, pauses):
    api.answers.extend([(429, BUSY, {"Retry-After": "1"})] * 9)
    with pytest.raises(APIError) as caught:
        client.predict(designation="x")
    assert len(pauses) == 3
    error = caught.value
    assert (error.status, error.title, error.detail) == (429, "Too Many Requests", "slow down")
    assert (error.request_id, error.retry_after_seconds) == ("r-2", 1.0)


@pytest.mark.parametrize("after", ["61", "1e9", "inf"])
def test_waiting_is_bounded_in_time(api, client, pauses, after):
    api.answers.append((429, BUSY, {"Retry-After": after}))
    with pytest.raises(APIError, match="429"):
        client.predict(designation="x")
    assert pauses == []


@pytest.mark.parametrize("after", ["nan", "-5", "Wed, 21 Oct 2026 07:28:00 GMT", "soon"])
def test_an_odd_retry_after_does_no_harm(api, client, pauses, after):
    api.answers.append((503, BUSY, {"Retry-After": after}))
    assert client.predict(designation="x").code == 2583
    assert pauses in ([1.0], [0.0])


def test_a_token_that_ends_is_replaced_before_it_is_used(api, pauses):
    api.expires_in = 10
    with Client(api.url, trust_env=False) as client:
        client.login("ana", PASSWORD)
        client.predict(designation="x")
    assert api.paths() == ["/token", "/token/refresh", "/predict"]
    assert json.loads(api.received[1].body) == {"refresh_token": "refresh-1"}


def test_a_token_that_the_server_refuses_is_replaced_once(api, client):
    api.refuse_tokens = 1
    assert client.predict(designation="x").code == 2583
    assert api.paths() == ["/token", "/predict", "/token/refresh", "/predict"]
    api.refuse_tokens = 2
    with pytest.raises(APIError, match="401 Unauthorized: no"):
        client.predict(designation="x")


def test_a_refresh_token_that_is_refused_is_followed_by_a_sign_in(api, client):
    api.refuse_tokens = 1
    api.refuse_refresh = True
    assert client.predict(designation="x").code == 2583
    assert api.paths()[2:] == ["/token/refresh", "/token", "/predict"]


def test_signing_out_ends_the_session_and_forgets_it(api, client):
    client.logout()
    client.logout()
    assert api.paths() == ["/token", "/logout"]
    assert api.received[-1].headers["Authorization"] == "Bearer access-1"
    with pytest.raises(APIError, match="401"):
        client.predict(designation="x")


def test_validation_errors_are_kept(api, client):
    problem = {"title": "Unprocessable", "detail": "wrong", "errors": [{"field": "designation"}]}
    api.answers.append((422, problem, {}))
    with pytest.raises(APIError) as caught:
        client.predict()
    assert caught.value.problem["errors"] == [{"field": "designation"}]


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"[1]", b'"text"'])
def test_an_answer_that_is_no_problem_is_an_error_too(api, client, body):
    api.answers.append((502, body, {"X-Request-ID": "r-5"}))
    with pytest.raises(APIError) as caught:
        client.predict(designation="x")
    assert caught.value.status == 502
    assert caught.value.request_id == "r-5"


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"[1]"])
def test_a_success_that_is_no_object_is_an_error(api, client, body):
    api.answers.append((200, body, {}))
    with pytest.raises(APIError, match="Expected a JSON object"):
        client.predict(designation="x")


def test_open_questions_carry_no_token(api, client):
    assert client.health()["status"] == "ready"
    assert client.ready()["bundle_id"] == "0123456789abcdef"
    assert all("Authorization" not in request.headers for request in api.received[1:])


def test_nobody_there_is_said_without_a_secret():
    with (
        Client(f"http://127.0.0.1:{free_port()}", trust_env=False) as client,
        pytest.raises(ServerUnreachable) as caught,
    ):
        client.login("ana", PASSWORD)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://ana:pw@host"])
def test_an_address_that_can_not_be_is_refused_without_repeating_a_password(url):
    with pytest.raises(ValueError, match="base_url") as caught:
        Client(url)
    assert "pw" not in str(caught.value)


def test_it_needs_neither_networks_nor_services():
    code = (
        "import sys, product_classifier.client; "
        "print([m for m in ('numpy', 'fastapi', 'openvino', 'PIL', 'jose') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("status", [429, 503])
def test_a_refresh_token_is_sent_once_whatever_the_answer(api, client, pauses, status):
    client._session.ends = 0.0
    api.refresh_answer = (status, BUSY, {"Retry-After": "1"})
    assert client.predict(designation="x").code == 2583
    assert api.paths()[1:] == ["/token/refresh", "/token", "/predict"]
    assert pauses == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_error_and_nobody_else_sees_the_token(api, client, status):
    other = api_server.FakeAPI()
    server = api_server.serve(other)
    api.answers.append((status, b"", {"Location": f"{other.url}/predict"}))
    with pytest.raises(APIError) as caught:
        client.predict(designation="x")
    server.shutdown()
    server.server_close()
    assert caught.value.status == status
    assert other.received == []
