"""The proxy's server: reads a request whole, has it decided, and sends the engine one of its own.

One request per connection. Nothing that the caller sent reaches the engine as it came: method, path,
parameters, headers and body are written anew from what was checked, so the two can't read a request
differently. What the engine answers is passed on as it comes.
"""

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from typing import Any

from .policy import Decision, Policy
from .refusal import Refused
from .settings import LABEL, Settings

logger = logging.getLogger("socket_proxy")

MOST_HEAD_BYTES = 64 * 1024
MOST_BODY_BYTES = 1024 * 1024
MOST_INSPECT_BYTES = 8 * 1024 * 1024
REQUEST_SECONDS = 15
ENGINE_SECONDS = 30
CHUNK_BYTES = 64 * 1024
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


@dataclass(frozen=True)
class Request:
    """What a caller asks."""

    method: str
    target: str
    body: bytes


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Reads one request; None where the caller only connected.

    Raises:
        Refused: it is no request, too large, or its length can't be told for sure.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise Refused("The request is not complete.", 400) from None
    except asyncio.LimitOverrunError:
        raise Refused("The headers are too large.", 431) from None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or parts[0] not in METHODS or not parts[2].startswith("HTTP/1."):
        raise Refused("This is not an HTTP request.", 400)
    body = await reader.readexactly(_body_bytes(lines))
    return Request(parts[0], parts[1], body)


def _body_bytes(lines: list[str]) -> int:
    lengths = []
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name != name.strip() or not name:
            raise Refused("A header is not usable.", 400)
        if name == "transfer-encoding":
            raise Refused("A body must come with its length.", 411)
        if name == "content-length":
            lengths.append(value.strip())
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isascii() or not lengths[0].isdecimal():
        raise Refused("The length of the body is not usable.", 400)
    if int(lengths[0]) > MOST_BODY_BYTES:
        raise Refused("The body is too large.", 413)
    return int(lengths[0])


def request_head(decision: Decision, path: str) -> bytes:
    """Writes a request to the engine."""
    lines = [f"{decision.method} {path} HTTP/1.1", "Host: docker"]
    if decision.upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    else:
        lines += ["Connection: close"]
    if decision.method == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {len(decision.body)}"]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def refusal(status: int, reason: str) -> bytes:
    """Writes an answer of our own, in the engine's shape."""
    body = json.dumps({"message": f"socket proxy: {reason}"}).encode()
    head = (
        f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


class SocketProxy:
    """Stands between the callers and the engine's socket."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._policy = Policy(settings)

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listens; gives the server."""
        return await asyncio.start_server(self.handle, host, port, limit=MOST_HEAD_BYTES)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection."""
        request: Request | None = None
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await read_request(reader)
            if request is not None:
                await self._answer(request, reader, writer)
        except Refused as error:
            self._log(request, error.status, str(error))
            await _send(writer, refusal(error.status, str(error)))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            self._log(request, 502, f"{type(error).__name__}: {error}")
            await _send(writer, refusal(502, "The Docker Engine or the caller is away."))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        decision = self._policy.decide(request.method, request.target, request.body)
        path = decision.path
        if decision.container is not None:
            # Names and short ids are looked up once, here: what is checked is what is meant.
            path = path.replace("{container}", await self._own(decision.container))
        if decision.method != "GET":
            self._log(request, 0, "passed on")
        engine_reader, engine_writer = await asyncio.open_unix_connection(self._settings.socket)
        try:
            engine_writer.write(request_head(decision, path) + decision.body)
            await engine_writer.drain()
            await _relay(reader, writer, engine_reader, decision.upgrade)
        finally:
            engine_writer.close()
            with contextlib.suppress(OSError):
                await engine_writer.wait_closed()

    async def _own(self, container: str) -> str:
        """Gives the full id of a container of this project.

        Raises:
            Refused: there is none of this name that is the project's.
        """
        status, details = await self._inspect(container)
        labels = (details.get("Config") or {}).get("Labels") or {}
        if status != 200 or labels.get(LABEL) != self._settings.project:
            # Not telling the two apart: what else runs here is nobody's business.
            raise Refused(f"No such container of this project: {container}", 404)
        return str(details["Id"])

    async def _inspect(self, container: str) -> tuple[int, dict[str, Any]]:
        reader, writer = await asyncio.open_unix_connection(self._settings.socket)
        try:
            async with asyncio.timeout(ENGINE_SECONDS):
                # HTTP/1.0: the answer comes in one piece, without chunks.
                writer.write(f"GET /containers/{container}/json HTTP/1.0\r\n\r\n".encode("ascii"))
                await writer.drain()
                answer = await reader.read(MOST_INSPECT_BYTES)
                while part := await reader.read(MOST_INSPECT_BYTES):
                    answer += part
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), json.loads(body)

    def _log(self, request: Request | None, status: int, reason: str) -> None:
        level = logging.INFO if status == 0 else logging.WARNING
        event = {
            "level": logging.getLevelName(level),
            "message": reason,
            "method": request.method if request else None,
            "target": request.target[:500] if request else None,
            "status": status or None,
        }
        logger.log(level, "%s", json.dumps(event))


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(OSError):
        writer.write(data)
        await writer.drain()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # the caller went away
        while data := await source.read(CHUNK_BYTES):
            target.write(data)
            await target.drain()


async def _until_gone(reader: asyncio.StreamReader) -> None:
    """Waits until the caller ends the connection; what it still sends goes nowhere."""
    with contextlib.suppress(OSError):
        while await reader.read(CHUNK_BYTES):
            pass


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    engine: asyncio.StreamReader,
    upgrade: bool,
) -> None:
    """Passes the engine's answer on until it ends, or the caller is gone."""
    answer = asyncio.create_task(_pump(engine, writer))
    gone = asyncio.create_task(_until_gone(reader))
    # Who only listens to a container may end its own direction first.
    waited = {answer} if upgrade else {answer, gone}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (answer, gone):
            task.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)
