"""What all bodies together may hold: bounded for the service and for each caller, and always given back."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from guarded_app import BODY_BYTES, GOOD, guarded_app
from live_server import LiveServer, live_server, read_answer
from product_classifier.web.body_room import BodyRoom

BEARER = f"Authorization: Bearer {GOOD}"
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: test", *lines, "", ""]).encode()


@contextmanager
def served(room: BodyRoom) -> Iterator[LiveServer]:
    with live_server(guarded_app(policy={"room": room})) as live:
        yield live


def wait_for(room: BodyRoom, held: int) -> None:
    deadline = time.monotonic() + 30
    while room.held != held:
        assert time.monotonic() < deadline, room.held
        time.sleep(0.01)


def test_the_room_is_bounded_in_all_and_for_each_caller() -> None:
    room = BodyRoom(100)
    assert room.take("a", 50)
    assert not room.take("a", 1)
    assert room.take("b", 50)
    assert not room.take("c", 1)
    room.give_back("a", 50)
    assert room.take("c", 1)
    assert room.held == 51


def upload(live: LiveServer, chunks: int) -> socket.socket:
    """Sends a part of a body and holds it."""
    sock = live.connect()
    sock.sendall(head("/upload", BEARER, "Transfer-Encoding: chunked") + CHUNK * chunks)
    return sock


def test_a_caller_who_holds_its_share_gets_503_and_later_an_answer() -> None:
    room = BodyRoom(4 * 0x10000)
    with served(room) as live, upload(live, 2) as first:
        wait_for(room, 2 * 0x10000)
        with upload(live, 1) as second:
            refused = read_answer(second)
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        first.sendall(b"0\r\n\r\n")
        assert read_answer(first).json() == {"size": 2 * 0x10000}
        wait_for(room, 0)
        with upload(live, 2) as third:
            third.sendall(b"0\r\n\r\n")
            assert read_answer(third).status == 200


def test_of_many_uploads_at_a_time_some_get_through() -> None:
    room = BodyRoom(8 * 0x10000)
    with served(room) as live:
        with ExitStack() as stack:
            held = [stack.enter_context(upload(live, 1)) for _ in range(4)]
            wait_for(room, 4 * 0x10000)
            for sock in held:
                with suppress(OSError):
                    sock.sendall(CHUNK + b"0\r\n\r\n")
            statuses = sorted(read_answer(sock).status for sock in held)
        wait_for(room, 0)
    assert set(statuses) == {200, 503}


def test_other_callers_have_room_beside_one_that_floods() -> None:
    room = BodyRoom(4 * 0x10000)
    with served(room) as live, upload(live, 2), live.connect() as other:
        wait_for(room, 2 * 0x10000)
        other.sendall(head("/open-post", "Content-Length: 16384") + b"x" * 16384)
        assert read_answer(other).status == 200


def test_an_announced_length_takes_no_room() -> None:
    room = BodyRoom()
    with served(room) as live, live.connect() as sock:
        sock.sendall(head("/upload", BEARER, f"Content-Length: {BODY_BYTES}"))
        sock.sendall(b"x" * 100)
        wait_for(room, 100)


@pytest.mark.parametrize("end", ["left", "too large", "refused"])
def test_room_is_given_back_whatever_the_end(end: str) -> None:
    room = BodyRoom()
    with served(room) as live:
        with upload(live, 1) as sock:
            wait_for(room, 0x10000)
            if end == "too large":
                sock.sendall(CHUNK * (BODY_BYTES // 0x10000 + 1))
                assert read_answer(sock).status == 413
            if end == "refused":
                sock.sendall(b"nonsense\r\n")
        wait_for(room, 0)
