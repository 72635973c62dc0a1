"""The API against Keras `predict` in a handler: requests per second, latency, CPU and memory on real bundles.

    python benchmarks/serving.py BFLOAT16_BUNDLE INT8_BUNDLE FLOAT32_BUNDLE \
        --dataset data/raw/X_test_update.csv --photos data/raw/photos

Per bundle: `auth` and `serve` as real processes with a real token and raised limits, beside them the yardstick of
`keras_baseline.py`. In each round both answer the same multipart requests (photo, title, description) from 1, 8 and
32 clients, one side after the other; medians over rounds are shown. The load generator shares the cores: its own
share is shown too. Bundles of the three precisions are made by `make_bundle.py`. Close other programs first.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
from load import Load, multipart_request, run_load

from product_classifier.core.bundle import load_bundle
from product_classifier.features.photos import PhotoStore
from product_classifier.modeling.predictor import Predictor, ProductInput
from product_classifier.predict.rows import read_scoring_rows

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the tests start the services in the same way

from service_processes import (  # noqa: E402
    ServiceProcess,
    prepare_workspace,
    running_services,
    start_process,
)
from unused_ports import free_port  # noqa: E402

TARGETS = {"bfloat16": 10.0, "int8": 20.0, "float32": 1.3}  # times the yardstick, at 8 and 32
CLIENTS = (1, 8, 32)
BASELINE_REQUESTS = {1: 10, 8: 16, 32: 40}  # it manages two or three a second
WARM_UP_REQUESTS = 8
MATRIX_UNITS = {"amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni"}
HINTS: tuple[Literal["LATENCY", "THROUGHPUT"], ...] = ("LATENCY", "THROUGHPUT")


@dataclass
class Level:
    """What one side did at one number of clients, a value per round."""

    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p95: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # seconds per request
    client_share: list[float] = field(default_factory=list)  # cores that the load generator took

    def add(self, load: Load, cpu: float) -> None:
        """Notes one round."""
        self.rate.append(load.rate)
        self.p50.append(load.p50)
        self.p95.append(load.p95)
        self.cpu.append(cpu / len(load.latencies))
        self.client_share.append(load.own_cpu / load.seconds)


@dataclass
class Side:
    """One server under measurement."""

    service: ServiceProcess
    requests: Sequence[bytes]
    counts: dict[int, int]
    levels: dict[int, Level] = field(default_factory=dict)

    def run(self, clients: int) -> None:
        """Does one round at one number of clients."""
        cpu = cpu_seconds(self.service)
        load = asyncio.run(
            run_load(self.service.port, self.requests, clients, count=self.counts[clients])
        )
        if load.broken or set(load.statuses) != {200}:
            raise SystemExit(f"{self.service.name}: {load.statuses}, {load.broken} broken.")
        self.levels.setdefault(clients, Level()).add(load, cpu_seconds(self.service) - cpu)


def cpu_seconds(service: ServiceProcess) -> float:
    """CPU that a process has taken so far."""
    times = psutil.Process(service.process.pid).cpu_times()
    return float(times.user + times.system)


def memory_megabytes(service: ServiceProcess) -> dict[str, float]:
    """Resident set now and at its peak, and the proportional set now."""
    process = psutil.Process(service.process.pid)
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    full = process.memory_full_info()
    return {"RSS": full.rss / 1e6, "peak RSS": int(peak) * 1024 / 1e6, "PSS": full.pss / 1e6}


def codes_of(service: ServiceProcess, requests: Sequence[bytes]) -> list[int]:
    """Asks one by one; gives the predicted codes."""
    codes: list[int] = []

    def keep(status: int, body: bytes) -> None:
        if status != 200:
            raise SystemExit(f"{service.name} answered {status}: {body[:300]!r}")
        codes.append(int(json.loads(body)["predictions"][0]["prediction"]))

    asyncio.run(run_load(service.port, requests, 1, count=len(requests), check=keep))
    return codes


def time_alone(predictor: Predictor, products: Sequence[ProductInput]) -> tuple[float, float]:
    """Median seconds, and CPU seconds, of decode and inference of one product in this process, without any HTTP."""
    seconds, cpu = [], []
    for product in products:
        started, before = time.perf_counter(), time.process_time()
        predictor.predict([product])
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - before)
    return statistics.median(seconds), statistics.median(cpu)


def describe_processor() -> str:
    """Names the processor and what it has for small numbers: bf16 and int8 are as fast as that."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    units = sorted(set(found.get("flags", "").split()) & MATRIX_UNITS)
    return f"{psutil.cpu_count()} x {found.get('model name', 'unknown processor')}, {units}"


def read_products(dataset: Path, photos: Path, count: int) -> list[ProductInput]:
    """Takes the first products that have a photo."""
    store = PhotoStore(photos)
    products = []
    for row in read_scoring_rows(dataset):
        photo = store.read(row.product.photo_name) if row.product else None
        if row.product and photo:
            products.append(ProductInput(row.product.title, row.product.description, photo))
        if len(products) == count:
            break
    return products


def measure_text_only(serve: ServiceProcess, products: Sequence[ProductInput], token: str) -> Side:
    """Measures requests without a photo: what HTTP, checks, limits and the text branch take."""
    requests = [
        multipart_request("/predict", {"designation": one.title or "-"}, token=token)
        for one in products
    ]
    side = Side(serve, requests, {1: 200, 8: 400})
    for clients in side.counts:
        side.run(clients)
    return side


def make_requests(products: Sequence[ProductInput], token: str | None) -> list[bytes]:
    """Makes a multipart request of each product."""
    return [
        multipart_request(
            "/predict",
            {"designation": one.title or "-", "description": one.description or ""},
            [("image", "photo.jpg", one.photo or b"")],
            token,
        )
        for one in products
    ]


def measure(
    bundle: Path,
    products: Sequence[ProductInput],
    rounds: int,
    counts: dict[int, int],
    workers: int,
) -> bool:
    """Measures one bundle and prints its tables; says whether every target was reached."""
    loaded = load_bundle(bundle)
    predictors = {hint: Predictor(loaded, hint) for hint in HINTS}
    alone: dict[str, list[tuple[float, float]]] = {hint: [] for hint in HINTS}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        workspace = prepare_workspace(Path(folder), bundle)
        port = free_port()
        command = [sys.executable, str(ROOT / "benchmarks" / "keras_baseline.py")]
        command += [str(bundle.resolve()), f"--port={port}"]
        baseline = start_process("keras", command, workspace.root, port)
        try:
            settings = {"INFERENCE_WORKERS": str(workers)}
            with running_services(workspace.root, settings) as services:
                ours = Side(services.serve, make_requests(products, services.token()), counts)
                theirs = Side(baseline, make_requests(products, None), BASELINE_REQUESTS)
                idle = memory_megabytes(services.serve)
                for side in (theirs, ours):
                    codes_of(side.service, side.requests[:WARM_UP_REQUESTS])
                agreement = compare_codes(ours, theirs)
                for _ in range(rounds):
                    for hint in HINTS:
                        alone[hint].append(time_alone(predictors[hint], products))
                    for clients in CLIENTS:
                        theirs.run(clients)
                        ours.run(clients)
                text_only = measure_text_only(services.serve, products, services.token())
                loaded_memory = memory_megabytes(services.serve)
                ready_after = services.serve.ready_after
        finally:
            baseline.process.kill()
            baseline.process.wait()
    precision = loaded.manifest.backbone.precision
    size = loaded.manifest.preprocessing.image_size
    print(f"\n## {precision}, {size} px, bundle {loaded.bundle_id}, {rounds} rounds\n")
    reached = show_levels(theirs, ours, TARGETS[precision])
    for clients, level in text_only.levels.items():
        print(
            f"- without photo, {clients} clients: {level.rate[0]:.0f} requests/s, "
            f"p50 {1000 * level.p50[0]:.1f} ms, {1000 * level.cpu[0]:.2f} core-ms/request"
        )
    show_rest(ours, theirs, alone, ready_after, (idle, loaded_memory), agreement)
    sys.stdout.flush()
    return reached


def compare_codes(ours: Side, theirs: Side) -> float:
    """Gives the share of products that both sides put into the same code."""
    some = min(24, len(ours.requests))
    pairs = zip(
        codes_of(ours.service, ours.requests[:some]),
        codes_of(theirs.service, theirs.requests[:some]),
        strict=True,
    )
    return statistics.mean(one == other for one, other in pairs)


def show_levels(theirs: Side, ours: Side, target: float) -> bool:
    """Prints a row per side and number of clients; says whether the ratio is reached at 8 and 32 clients."""
    print("| clients | server | requests/s | ratio | p50 ms | p95 ms | core-ms/request | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    reached = True
    middle: Callable[[Sequence[float]], float] = statistics.median
    for clients in CLIENTS:
        a, b = theirs.levels[clients], ours.levels[clients]
        ratio, cpu = middle(b.rate) / middle(a.rate), middle(a.cpu) / middle(b.cpu)
        reached = reached and (clients == 1 or ratio >= target)
        for name, level, shown in (("keras", a, ("", "")), ("serve", b, (f"{ratio:.1f}", cpu))):
            ratio_cpu = f"{shown[1]:.1f}" if shown[1] else ""
            print(
                f"| {clients} | {name} | {middle(level.rate):.1f} | {shown[0]} "
                f"| {1000 * middle(level.p50):.0f} | {1000 * middle(level.p95):.0f} "
                f"| {1000 * middle(level.cpu):.1f} | {ratio_cpu} |"
            )
    print(f"\nTarget: {target} times the requests per second at 8 and 32 clients.")
    return reached


def show_rest(
    ours: Side,
    theirs: Side,
    alone: dict[str, list[tuple[float, float]]],
    ready_after: float,
    memory: tuple[dict[str, float], dict[str, float]],
    agreement: float,
) -> None:
    """Prints what is not in the table."""
    middle = statistics.median
    p50 = middle(ours.levels[1].p50)
    keras_cpu = middle(theirs.levels[max(CLIENTS)].cpu)
    for hint, values in alone.items():
        seconds, cpu = middle(one[0] for one in values), middle(one[1] for one in values)
        print(
            f"- decode + inference alone ({hint}): {1000 * seconds:.1f} ms, {1000 * cpu:.1f} core-ms "
            f"({keras_cpu / cpu:.1f} times less than Keras: what a service that costs nothing could "
            f"reach here); p50 of serve at 1 client: {1000 * p50:.1f} ms, {p50 / seconds:.2f} times "
            "(target 1.5)"
        )
    print(f"- serve from start to ready: {ready_after:.2f} s (target 3)")
    for name, used in zip(("ready", "after load"), memory, strict=True):
        shown = ", ".join(f"{key} {value:.0f} MB" for key, value in used.items())
        print(f"- memory, {name}: {shown} (target 450)")
    share = {n: f"{middle(level.client_share):.3f}" for n, level in ours.levels.items()}
    print(f"- cores taken by the load generator beside serve, by clients: {share}")
    print(f"- same code as Keras: {agreement:.3f} of the products")
    for clients, level in ours.levels.items():
        print(f"- serve, {clients} clients, each round: {[f'{r:.1f}' for r in level.rate]} per s")


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("bundles", type=Path, nargs="+", help="folders of bundles")
    parser.add_argument("--dataset", type=Path, default=Path("data/raw/X_test_update.csv"))
    parser.add_argument("--photos", type=Path, default=Path("data/raw/photos"))
    parser.add_argument("--products", type=int, default=48, help="different requests")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=60, help="of serve with 1 client, a round")
    parser.add_argument("--inference-workers", type=int, default=0, help="INFERENCE_WORKERS")
    arguments = parser.parse_args()
    print(describe_processor(), flush=True)
    products = read_products(arguments.dataset, arguments.photos, arguments.products)
    counts = {clients: arguments.requests * min(4, clients) for clients in CLIENTS}
    reached = [
        measure(bundle, products, arguments.rounds, counts, arguments.inference_workers)
        for bundle in arguments.bundles
    ]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
