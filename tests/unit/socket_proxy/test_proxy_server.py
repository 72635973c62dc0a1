"""The socket proxy between a caller and an engine: who is asked what, and what comes back."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from socket_proxy.server import MOST_BODY_BYTES, SocketProxy
from socket_proxy.settings import Settings

OWN = {"Id": "f" * 64, "Config": {"Labels": {"product-classifier.project": "shop"}}}
OTHER = {"Id": "e" * 64, "Config": {"Labels": {"product-classifier.project": "other"}}}


class Engine:
    """Answers on a Unix socket; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        path = head.split(b" ")[1].decode()
        if path in ("/containers/own/json", "/containers/other/json"):
            body = json.dumps(OWN if "own" in path else OTHER).encode()
            writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)
        elif path.endswith("/attach?stdout=1"):
            writer.write(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nfirst ")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(b"last")
        elif path.endswith("/logs?follow=1"):
            await reader.read()  # until the proxy lets go
            self.asked.append(b"gone")
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()


Ask = Callable[[bytes], Awaitable[bytes]]
Case = Callable[[Ask, Engine, int], Awaitable[None]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment(
        {
            "COMPOSE_PROJECT": "shop",
            "PROJECT_HOST_PATH": str(tmp_path),
            "DOCKER_SOCKET": str(tmp_path / "docker.sock"),
        }
    )


def run(settings: Settings, case: Case) -> None:
    async def main() -> None:
        engine = Engine()
        behind = await asyncio.start_unix_server(engine.handle, settings.socket)
        server = await SocketProxy(settings).start("127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def ask(request: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await writer.drain()
            answer = await reader.read()
            writer.close()
            return answer

        async with asyncio.timeout(60):
            await case(ask, engine, port)
        for one in (server, behind):
            one.close()
            await one.wait_closed()

    asyncio.run(main())


def test_an_own_container_is_passed_on_by_its_full_id_with_headers_of_our_own(
    settings: Settings,
) -> None:
    async def case(ask: Ask, engine: Engine, port: int) -> None:
        answer = await ask(
            b"POST /v1.44/containers/own/start HTTP/1.1\r\nHost: x\r\nX-Registry-Auth: y\r\n"
            b"Content-Length: 4\r\n\r\n{} x"
        )
        assert answer.startswith(b"HTTP/1.1 404")
        assert (
            engine.asked[-1]
            == (
                f"POST /v1.44/containers/{'f' * 64}/start HTTP/1.1\r\nHost: docker\r\n"
                "Connection: close\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"
            ).encode()
        )

    run(settings, case)


def test_a_container_of_others_does_not_exist(settings: Settings) -> None:
    async def case(ask: Ask, engine: Engine, port: int) -> None:
        for name in ("other", "missing"):
            answer = await ask(f"DELETE /containers/{name}?force=1 HTTP/1.1\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 404")
            assert f"No such container of this project: {name}".encode() in answer
        assert all(b"GET" in asked for asked in engine.asked)

    run(settings, case)


def test_a_refused_request_never_reaches_the_engine(settings: Settings) -> None:
    async def case(ask: Ask, engine: Engine, port: int) -> None:
        answer = await ask(b"POST /build HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"socket proxy: POST /build is not allowed." in answer
        assert engine.asked == []

    run(settings, case)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /_ping\r\n\r\n", b"400"),
        (b"GET /_ping HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", b"400"),
        (b"GET /_ping HTTP/1.1\r\nContent-Length: +1\r\n\r\nx", b"400"),
        (b"GET /_ping HTTP/1.1\r\nContent-Length : 1\r\n\r\nx", b"400"),
        (b"GET /_ping HTTP/1.1\r\n Folded: 1\r\n\r\n", b"400"),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MOST_BODY_BYTES + 1), b"413"),
        (b"GET /_ping HTTP/1.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_refused(
    settings: Settings, request_bytes: bytes, status: bytes
) -> None:
    async def case(ask: Ask, engine: Engine, port: int) -> None:
        try:
            answer = await ask(request_bytes)
        except ConnectionResetError:  # refused before all of it was read
            answer = b"HTTP/1.1 " + status
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert engine.asked == []

    run(settings, case)


def test_a_second_request_on_the_connection_goes_nowhere(settings: Settings) -> None:
    async def case(ask: Ask, engine: Engine, port: int) -> None:
        await ask(b"GET /_ping HTTP/1.1\r\n\r\nPOST /build HTTP/1.1\r\n\r\n")
        assert len(engine.asked) == 1

    run(settings, case)


def test_a_containers_output_comes_as_it_is_written(settings: Settings) -> None:
    async def case(ask: Ask, engine: Engine, port: int) -> None:
        answer = await ask(b"POST /containers/own/attach?stdout=1 HTTP/1.1\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nfirst last")
        assert b"Upgrade: tcp" in engine.asked[-1]

    run(settings, case)


def test_a_caller_that_goes_away_leaves_no_connection_behind(settings: Settings) -> None:
    async def case(ask: Ask, engine: Engine, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /containers/own/logs?follow=1 HTTP/1.1\r\n\r\n")
        await writer.drain()
        while len(engine.asked) < 2:
            await asyncio.sleep(0.01)
        writer.close()
        while engine.asked[-1] != b"gone":
            await asyncio.sleep(0.01)

    run(settings, case)


def test_an_engine_that_is_away_is_said_so(settings: Settings) -> None:
    async def main() -> bytes:
        server = await SocketProxy(settings).start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.sockets[0].getsockname()[1]
        )
        writer.write(b"GET /_ping HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        server.close()
        await server.wait_closed()
        return answer

    assert asyncio.run(main()).startswith(b"HTTP/1.1 502")
