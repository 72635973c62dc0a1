"""What metrics cost: the time of `GET /metrics`, and the share of a request's CPU that counting takes.

    python benchmarks/metrics.py BUNDLE --dataset data/raw/X_test_update.csv --photos data/raw/photos

Starts `serve` in a process of its own, with a real token of the shared-secret family (whose check costs least, so that
the share is the largest). Its counting can be switched off while it runs: the middleware is taken out of the chain,
and answers are no longer observed. In each round the same requests are sent with it on and off, in turns; the
process's CPU seconds of the two sides are divided, and the median over rounds must be 1.02 or less. Beside it stands
what counting takes by itself, measured without requests: where other programs run, that is the figure to trust. What
drift detection costs is in `benchmarks/drift.py`; it stays on here. Then `/metrics` is asked over one kept connection,
when every series is there: the 95th percentile must be 20 ms or less. Close other programs first.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from load import multipart_request, percentile, plain_request, run_load

from serving import describe_processor, make_requests, read_products

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the tests start the services in the same way

from product_classifier.core.settings import Settings  # noqa: E402
from product_classifier.core.workspace import Workspace  # noqa: E402
from product_classifier.modeling.predictor import Prediction, RankedCode  # noqa: E402
from product_classifier.serve.live_model import Phases, Scored  # noqa: E402
from product_classifier.web.tokens import TokenSigner  # noqa: E402
from service_processes import prepare_workspace  # noqa: E402
from unused_ports import free_port  # noqa: E402

MAX_SHARE = 0.02
MAX_SCRAPE_SECONDS = 0.02
SCRAPES = 200
CLIENTS = 4
SECRET = "a-benchmark-needs-no-secret-" * 2


TRIES, CALLS = 15, 500


async def _answer_at_once(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def _nothing(*_: Any) -> None:
    pass


async def _time_calls(app: Any) -> float:
    """Gives the CPU seconds of one request to an ASGI app, the least of some tries."""
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    tries = []
    for _ in range(TRIES):
        started = time.thread_time()
        for _ in range(CALLS):
            # The route is looked up for the request log as well, and so no cost of counting.
            await app({**scope, "state": {"route": "/predict"}}, _nothing, _nothing)
        tries.append(time.thread_time() - started)
    return min(tries) / CALLS


def _time_work(work: Callable[[], None]) -> float:
    tries = []
    for _ in range(TRIES):
        started = time.thread_time()
        for _ in range(CALLS):
            work()
        tries.append(time.thread_time() - started)
    return min(tries) / CALLS


class Switch:
    """Turns the counting of a running app on and off."""

    def __init__(self, app: Any) -> None:
        self._before = app.middleware_stack
        while type(self._before.app).__name__ != "_Middleware":
            self._before = self._before.app
        self._counting = self._before.app
        self._metrics = app.state.model_metrics
        self._observe: Callable[[Any], None] = self._metrics.observe

    def turn(self, on: bool) -> None:
        """Takes the counting in or out."""
        self._before.app = self._counting if on else self._counting.app
        live = self._metrics.live
        without: Callable[[Any], None] = lambda scored: live.add(scored.prediction)  # noqa: E731
        self._metrics.observe = self._observe if on else without

    def cost(self) -> float:
        """Gives the seconds that counting one answered product takes by itself: the least of some tries."""
        scored = Scored(
            Prediction((RankedCode(10, 0.5),), "text", "auto", 0.4),
            "",
            np.zeros((1, 1), dtype=np.float32),
            False,
            Phases(0, 0, 0, 0, 0),
            None,  # type: ignore[arg-type] - only drift detection looks at it
        )
        live = self._metrics.live
        inner = self._counting.app
        self._counting.app = _answer_at_once
        try:
            around = asyncio.run(_time_calls(self._counting))
            around -= asyncio.run(_time_calls(_answer_at_once))
        finally:
            self._counting.app = inner
        observed = _time_work(lambda: self._observe(scored))
        return around + observed - _time_work(lambda: live.add(scored.prediction))


def serve(root: Path, port: int) -> None:
    """The process under measurement: obeys `on`, `off`, `cpu` and `cost` on its standard input."""
    import threading

    from product_classifier.serve.app import create_app
    from product_classifier.web.server import listen, make_server

    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        algorithm="HS256",
        secret_key=SECRET,
        predict_rate_limit="10000000/minute",
        anonymous_rate_limit="10000000/minute",
    )
    app = create_app(settings, Workspace(root))

    def obey() -> None:
        switch: Switch | None = None
        for line in sys.stdin:
            switch = switch or Switch(app)
            order = line.strip()
            if order in ("on", "off"):
                switch.turn(order == "on")
            print(switch.cost() if order == "cost" else time.process_time(), flush=True)

    threading.Thread(target=obey, daemon=True).start()
    make_server(app, grace_seconds=1).run(sockets=[listen("127.0.0.1", port)])


class Served:
    """That process, from outside."""

    def __init__(self, root: Path) -> None:
        self.port = free_port()
        command = [sys.executable, __file__, "--serve", str(root), str(self.port)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
        )

    def tell(self, order: str) -> float:
        """Gives an order; gives the CPU seconds that the process has taken so far, or that counting takes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(order, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def ask(self, requests: Sequence[bytes], count: int, clients: int = CLIENTS) -> list[float]:
        """Sends requests; gives their seconds."""
        load = asyncio.run(run_load(self.port, requests, clients, count=count))
        if load.broken or set(load.statuses) != {200}:
            raise SystemExit(f"serve answered {load.statuses}, {load.broken} broken.")
        return load.latencies

    def wait_ready(self) -> None:
        """Returns when it answers predictions."""
        ready = plain_request("GET", "/ready")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            load = asyncio.run(_try_once(self.port, ready))
            if load:
                return
            time.sleep(0.1)
        raise SystemExit("serve does not get ready.")


async def _try_once(port: int, request: bytes) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    load = await run_load(port, [request], 1, count=1)
    return set(load.statuses) == {200}


def cpu_per_request(served: Served, side: str, requests: Sequence[bytes], count: int) -> float:
    """Gives the CPU seconds of one request, with counting `on` or `off`."""
    before = served.tell(side)
    served.ask(requests, count)
    return (served.tell("cpu") - before) / count


def compare(served: Served, name: str, requests: Sequence[bytes], count: int, rounds: int) -> bool:
    """Measures both sides in turns and prints the figures; says whether the share is small enough."""
    served.ask(requests, count)
    seconds: dict[str, list[float]] = {"on": [], "off": []}
    for number in range(rounds):
        for side in ("on", "off") if number % 2 else ("off", "on"):
            seconds[side].append(cpu_per_request(served, side, requests, count))
    served.tell("on")
    shares = sorted(on / off - 1 for on, off in zip(seconds["on"], seconds["off"], strict=True))
    low, middle, high = statistics.quantiles(shares, n=4)
    without = statistics.median(seconds["off"])
    alone = served.tell("cost")
    print(
        f"- {name}: {1000 * without:.2f} core-ms without; counting adds {100 * middle:+.2f} % "
        f"(quartiles {100 * low:+.2f} to {100 * high:+.2f} %), {rounds} rounds of {count}; "
        f"by itself {1e6 * alone:.0f} core-us, {100 * alone / without:.2f} %"
    )
    return middle <= MAX_SHARE


def time_scrapes(served: Served) -> bool:
    """Times `/metrics` and prints the figures; says whether it is fast enough."""
    request = plain_request("GET", "/metrics")
    sizes: list[tuple[int, int]] = []

    def look(_status: int, body: bytes) -> None:
        series = sum(not line.startswith(b"#") for line in body.splitlines())
        sizes.append((series, len(body)))

    served.ask([request], 10, clients=1)
    before = served.tell("cpu")
    load = asyncio.run(run_load(served.port, [request], 1, count=SCRAPES, check=look))
    cpu = (served.tell("cpu") - before) / SCRAPES
    slow = percentile(load.latencies, 95)
    print(
        f"- /metrics: median {1000 * load.p50:.1f} ms, 95th percentile {1000 * slow:.1f} ms, "
        f"{1000 * cpu:.1f} core-ms; {sizes[-1][0]} series, {sizes[-1][1] / 1000:.0f} kB"
    )
    return slow <= MAX_SCRAPE_SECONDS


def main() -> None:
    """Measures a bundle; exit code 1 where a target is missed."""
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    products = read_products(arguments.dataset, arguments.photos, 32)
    token = TokenSigner(SECRET, lifetime_seconds=24 * 3600).issue("bench", "user", "session-1")
    texts = [
        multipart_request("/predict", {"designation": p.title or "-"}, token=token)
        for p in products
    ]
    with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
        workspace = prepare_workspace(Path(folder), arguments.bundle)
        served = Served(workspace.root)
        try:
            served.wait_ready()
            print(f"{describe_processor()}, load average before {os.getloadavg()[0]:.1f}\n")
            reached = [
                compare(served, "text only", texts, 200, arguments.rounds),
                compare(
                    served, "photo and text", make_requests(products, token), 32, arguments.rounds
                ),
                time_scrapes(served),
            ]
        finally:
            served.process.kill()
            served.process.wait()
    print("Targets reached." if all(reached) else "A target was missed.")
    sys.exit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
