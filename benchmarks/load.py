"""A load generator that costs little itself: ready-made HTTP/1.1 requests over kept connections, raw asyncio.

It shares the cores with what it measures, so it parses no more of an answer than status and length, and counts its
own CPU seconds (`Load.own_cpu`).
"""

import asyncio
import itertools
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Answer = tuple[int, bytes, bool]  # status, body, whether the connection stays open
Check = Callable[[int, bytes], None]


@dataclass
class Load:
    """What a run of requests brought."""

    seconds: float = 0.0
    own_cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0  # connections that ended without an answer

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    @property
    def p50(self) -> float:
        """Median latency, seconds."""
        return statistics.median(self.latencies)

    @property
    def p95(self) -> float:
        """95th percentile of the latency, seconds."""
        return percentile(self.latencies, 95)


def percentile(values: Sequence[float], percent: float) -> float:
    """Gives the nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered)) - 1))]


def multipart_request(
    path: str,
    fields: Mapping[str, str],
    files: Iterable[tuple[str, str, bytes]] = (),
    token: str | None = None,
) -> bytes:
    """Makes one POST as bytes; `files` are field name, file name and content."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, file_name, content in files:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; '
            f'filename="{file_name}"\r\nContent-Type: image/jpeg\r\n\r\n'
        )
        parts += [head.encode(), content, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    body = b"".join(parts)
    return plain_request(
        "POST", path, body, f"multipart/form-data; boundary={boundary}", token=token
    )


def plain_request(
    method: str,
    path: str,
    body: bytes = b"",
    content_type: str = "application/json",
    *,
    token: str | None = None,
) -> bytes:
    """Makes one request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Reads one answer with a Content-Length.

    Raises:
        asyncio.IncompleteReadError: the connection ended before.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    lowered = head.lower()
    stays = b"\r\nconnection: close" not in lowered
    start = lowered.find(b"content-length:")
    length = int(lowered[start + 15 : lowered.index(b"\r\n", start)]) if start >= 0 else 0
    return status, await reader.readexactly(length) if length else b"", stays


async def run_load(
    port: int,
    requests: Sequence[bytes],
    clients: int,
    *,
    count: int | None = None,
    until: asyncio.Event | None = None,
    check: Check | None = None,
) -> Load:
    """Sends requests in turn from `clients` kept connections, `count` in all or until an event is set.

    Each connection sends its next request when it has its answer. A connection that the server closed between two
    requests is opened again; one that ends before an answer counts as broken.
    """
    load = Load()
    numbers = itertools.count()
    started, cpu = time.perf_counter(), time.process_time()

    async def work() -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while (number := next(numbers)) < (count or 1 << 62) and not (until and until.is_set()):
            begun = time.perf_counter()
            try:
                if connection is None or connection[0].at_eof():
                    connection = await asyncio.open_connection("127.0.0.1", port)
                connection[1].write(requests[number % len(requests)])
                status, body, stays = await read_answer(connection[0])
            except (OSError, asyncio.IncompleteReadError):
                load.broken += 1
                connection = None
                await asyncio.sleep(0.01)  # a server that is gone would be asked without end
                continue
            load.latencies.append(time.perf_counter() - begun)
            load.statuses[status] += 1
            if check is not None:
                check(status, body)
            if not stays:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(work() for _ in range(clients)))
    load.seconds = time.perf_counter() - started
    load.own_cpu = time.process_time() - cpu
    return load
