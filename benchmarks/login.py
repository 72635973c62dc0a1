"""Signing in: does the time tell who exists, and does a rush of logins slow the rest of `auth` down?

    python benchmarks/login.py

Starts a real `auth` in an empty folder. First wrong passwords for a user that exists and for one that does not, in
turn: the medians must lie within 5 %. Then 16 clients that sign in without pause while `/health` is asked every
20 ms: its 95th percentile must be 50 ms or less. The lockout is off (LOGIN_LOCKOUT_FAILURES=0), else it would answer.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

from load import Load, percentile, plain_request, read_answer, run_load

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the tests start the services in the same way

from service_processes import (  # noqa: E402
    ADMIN,
    ADMIN_PASSWORD,
    ServiceProcess,
    running_services,
)

MAX_DIFFERENCE = 0.05  # of the medians
MAX_HEALTH_SECONDS = 0.05  # 95th percentile
PROBE_PAUSE_SECONDS = 0.02


def login_request(user: str, password: str) -> bytes:
    """Makes one login as bytes."""
    form = urllib.parse.urlencode({"username": user, "password": password}).encode()
    return plain_request("POST", "/token", form, "application/x-www-form-urlencoded")


def compare_users(auth: ServiceProcess, attempts: int) -> bool:
    """Times wrong passwords for a known and an unknown user, in turn."""
    wrong = "wrong-password-123"
    kinds = {"known": login_request(ADMIN, wrong), "unknown": login_request("nobody", wrong)}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(attempts):
        for name, request in kinds.items():
            load = asyncio.run(run_load(auth.port, [request], 1, count=1))
            if set(load.statuses) != {401}:
                raise SystemExit(f"Expected 401 for a wrong password. Received: {load.statuses}.")
            seconds[name] += load.latencies
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    difference = abs(medians["known"] / medians["unknown"] - 1)
    shown = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in medians.items())
    print(f"wrong password, n = {attempts} each: {shown}; difference {100 * difference:.1f} %")
    return difference <= MAX_DIFFERENCE


async def probe_health(port: int, end: asyncio.Event) -> list[float]:
    """Asks /health over one kept connection until `end`."""
    request, seconds = plain_request("GET", "/health"), []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not end.is_set():
        started = time.perf_counter()
        writer.write(request)
        status, _, _ = await read_answer(reader)
        if status != 200:
            raise SystemExit(f"/health answered {status}.")
        seconds.append(time.perf_counter() - started)
        await asyncio.sleep(PROBE_PAUSE_SECONDS)
    writer.close()
    return seconds


async def rush(port: int, clients: int, duration: float) -> tuple[Load, list[float]]:
    """Lets clients sign in for `duration` seconds; gives their answers and the probe's times."""
    end = asyncio.Event()
    probe = asyncio.create_task(probe_health(port, end))
    asyncio.get_running_loop().call_later(duration, end.set)
    load = await run_load(port, [login_request(ADMIN, ADMIN_PASSWORD)], clients, until=end)
    return load, await probe


def main() -> int:
    """Runs both measurements."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--attempts", type=int, default=50)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="login-") as folder:
        (Path(folder) / "dvc.yaml").write_text("stages: {}\n")
        settings = {"LOGIN_LOCKOUT_FAILURES": "0"}
        with running_services(Path(folder), settings, auth_only=True) as services:
            print(f"auth from start to ready: {services.auth.ready_after:.2f} s")
            alike = compare_users(services.auth, arguments.attempts)
            load, health = asyncio.run(
                rush(services.auth.port, arguments.clients, arguments.seconds)
            )
    p95 = percentile(health, 95)
    print(
        f"{arguments.clients} clients signing in for {load.seconds:.0f} s: {dict(load.statuses)}; "
        f"/health p50 {1000 * statistics.median(health):.1f}, p95 {1000 * p95:.1f}, "
        f"max {1000 * max(health):.1f} ms, n = {len(health)}"
    )
    return 0 if alike and p95 <= MAX_HEALTH_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
