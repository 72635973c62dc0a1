"""Changes of the champion under load, and the end of `serve` with requests in flight, over HTTP.

    python benchmarks/swaps.py BUNDLE OTHER_BUNDLE --dataset data/raw/X_test_update.csv --photos data/raw/photos

Starts `auth` and `serve` with both bundles as releases and moves the champion 40 times while 8 clients predict. Every
answer must be 200 and must be one bundle's answer as a whole: its bundle id is one of the two, and code and
confidence are those that this bundle gave when it was alone. Then SIGTERM with 20 requests in flight: all answered.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from load import Load, read_answer, run_load

from serving import make_requests, read_products

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the tests start the services in the same way

from product_classifier.core.releases import list_releases, point_champion  # noqa: E402
from product_classifier.core.workspace import Workspace  # noqa: E402
from service_processes import (  # noqa: E402
    ServiceProcess,
    Services,
    prepare_workspace,
    running_services,
)

CLIENTS = 8
SWAP_SECONDS = 30.0  # longest wait for a new champion to answer

Known = set[tuple[str, int, float]]  # bundle id, code, rounded confidence


def as_known(body: bytes) -> tuple[str, int, float]:
    """Reduces an answer to what tells bundles apart."""
    answer = json.loads(body)
    best = answer["predictions"][0]
    return answer["bundle_id"], int(best["prediction"]), round(float(best["confidence"]), 5)


async def bundle_in_use(port: int) -> str:
    """Asks /ready which bundle answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    _, body, _ = await read_answer(reader)
    writer.close()
    return str(json.loads(body)["bundle_id"])


async def move_champion(workspace: Workspace, port: int, release: str) -> float:
    """Makes a release champion; gives the seconds until serve uses it."""
    started = time.monotonic()
    await asyncio.to_thread(point_champion, workspace, release, "benchmark")
    while await bundle_in_use(port) != release:
        if time.monotonic() - started > SWAP_SECONDS:
            raise SystemExit(f"serve did not change to {release} in {SWAP_SECONDS} s.")
        await asyncio.sleep(0.05)
    return time.monotonic() - started


async def learn_answers(
    workspace: Workspace, port: int, releases: Sequence[str], requests: Sequence[bytes]
) -> Known:
    """Collects what each bundle answers when it is alone."""
    known: Known = set()
    for release in (*releases[1:], releases[0]):
        await move_champion(workspace, port, release)

        def keep(status: int, body: bytes, release: str = release) -> None:
            one = as_known(body)
            if status != 200 or one[0] != release:
                raise SystemExit(f"Expected an answer of {release}. Received: {status}, {one[0]}.")
            known.add(one)

        await run_load(port, requests, 1, count=len(requests), check=keep)
    return known


async def swap_under_load(
    workspace: Workspace, port: int, requests: Sequence[bytes], swaps: int
) -> tuple[Load, Counter[str], int, list[float]]:
    """Moves the champion to and fro; gives load, answers by bundle, mixed answers and seconds per move."""
    releases = [release.release_id for release in list_releases(workspace)]
    known = await learn_answers(workspace, port, releases, requests)
    by_bundle: Counter[str] = Counter()
    mixed = 0

    def check(status: int, body: bytes) -> None:
        nonlocal mixed
        if status == 200:
            one = as_known(body)
            by_bundle[one[0]] += 1
            mixed += not is_known(one, known)

    end = asyncio.Event()
    work = asyncio.create_task(run_load(port, requests, CLIENTS, until=end, check=check))
    seconds = []
    for number in range(1, swaps + 1):
        seconds.append(await move_champion(workspace, port, releases[number % len(releases)]))
    end.set()
    return await work, by_bundle, mixed, seconds


def is_known(one: tuple[str, int, float], known: Known) -> bool:
    """Says whether a bundle gave this answer alone; the last digit of a confidence may differ."""
    return any(one[:2] == other[:2] and abs(one[2] - other[2]) < 1e-4 for other in known)


async def stop_in_flight(serve: ServiceProcess, requests: Sequence[bytes], count: int) -> list[int]:
    """Sends SIGTERM when `count` requests are on their way; gives the statuses of their answers, 0 for none."""

    async def ask(request: bytes) -> int:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", serve.port)
            writer.write(request)
            await writer.drain()
            sent.release()
            status, _, _ = await read_answer(reader)
        except (OSError, asyncio.IncompleteReadError):
            return 0
        writer.close()
        return status

    sent = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(ask(requests[n % len(requests)])) for n in range(count)]
    for _ in range(count):
        await sent.acquire()
    await asyncio.sleep(0.1)  # what is written must be read before the signal: it is in flight then
    serve.process.send_signal(signal.SIGTERM)
    return await asyncio.gather(*tasks)


def report_stop(services: Services, requests: Sequence[bytes], count: int) -> bool:
    """Stops serve in flight and prints what happened."""
    statuses = asyncio.run(stop_in_flight(services.serve, requests, count))
    code = services.serve.process.wait(60)
    print(f"SIGTERM with {count} in flight: {dict(Counter(statuses))}, exit code {code}")
    return set(statuses) == {200}


def main() -> int:
    """Runs both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("bundles", type=Path, nargs=2, help="two different bundles")
    parser.add_argument("--dataset", type=Path, default=Path("data/raw/X_test_update.csv"))
    parser.add_argument("--photos", type=Path, default=Path("data/raw/photos"))
    parser.add_argument("--swaps", type=int, default=40)
    parser.add_argument("--in-flight", type=int, default=20)
    arguments = parser.parse_args()
    products = read_products(arguments.dataset, arguments.photos, 24)
    with tempfile.TemporaryDirectory(prefix="swaps-") as folder:
        workspace = prepare_workspace(Path(folder), *arguments.bundles)
        with running_services(workspace.root) as services:
            requests = make_requests(products, services.token())
            load, by_bundle, mixed, seconds = asyncio.run(
                swap_under_load(workspace, services.serve.port, requests, arguments.swaps)
            )
            failed = load.broken + sum(load.statuses.values()) - load.statuses[200]
            print(
                f"{len(seconds)} moves of the champion under {CLIENTS} clients in {load.seconds:.0f} s: "
                f"{sum(load.statuses.values())} answers {dict(by_bundle)}, {failed} failed, {mixed} mixed; "
                f"slowest answer {max(load.latencies):.2f} s, slowest move {max(seconds):.2f} s"
            )
            answered = report_stop(services, requests, arguments.in_flight)
    return 0 if not failed and not mixed and answered else 1


if __name__ == "__main__":
    sys.exit(main())
