"""Two processes of `serve` on one socket: whichever a scrape meets shows both."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.multiprocess import MultiProcessCollector

from metrics_page import documented, exposed, series
from product_classifier.core.workspace import Workspace
from product_classifier.web.metric_registry import FOLDER_VARIABLE
from product_classifier.web.server import listen
from serving import bearer, champion_workspace

TESTS = Path(__file__).resolve().parents[2]
READY = "product_classifier_ready"
PREDICTIONS = "product_classifier_predictions_total"
WINDOW = 'product_classifier_drift_window_products{feature="text_length"}'


@dataclass
class Pair:
    """The processes and their socket."""

    port: int
    processes: list["subprocess.Popen[bytes]"]

    def get(self, path: str) -> httpx.Response:
        """Asks on a connection of its own: either process may take it."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=60, trust_env=False)

    def predict(self) -> int:
        files = {"designation": (None, "Livre ancien")}
        url = f"http://127.0.0.1:{self.port}/predict"
        return httpx.post(
            url, files=files, headers=bearer(), timeout=60, trust_env=False
        ).status_code

    def scrape(self) -> dict[str, float]:
        return series(self.get("/metrics").text)

    def wait_window(self, products: float) -> None:
        """Waits until every scrape shows so many products in the windows: each tells the other once a second."""
        deadline = time.monotonic() + 30
        while (shown := {self.scrape()[WINDOW] for _ in range(6)}) != {products}:
            assert time.monotonic() < deadline, shown
            time.sleep(0.2)

    def wait_ready(self, folder: Path) -> None:
        """Waits until both processes have gauges in the folder and agree that they are ready."""
        pids = {process.pid for process in self.processes}
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            assert all(process.poll() is None for process in self.processes)
            with suppress(httpx.HTTPError):
                if gauge_pids(folder) >= pids and self.scrape().get(READY) == 1:
                    return
            time.sleep(0.1)
        raise AssertionError("the processes are not ready")


def gauge_pids(folder: Path) -> set[int]:
    return {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*_*.db")}


def counted_by(folder: Path, pid: int) -> float:
    """The products that one of them answered."""
    merged = MultiProcessCollector.merge([str(folder / f"counter_{pid}.db")])  # type: ignore[no-untyped-call]
    return sum(s.value for metric in merged for s in metric.samples if s.name == PREDICTIONS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shared metrics").mkdir()
    return tmp_path / "shared metrics"


@pytest.fixture
def pair(trained_workspace: Workspace, tmp_path: Path, folder: Path) -> Iterator[Pair]:
    workspace = champion_workspace(trained_workspace, tmp_path / "workspace")
    sock = listen("127.0.0.1", 0)
    command = [sys.executable, str(TESTS / "metrics_worker.py"), str(sock.fileno())]
    environment = {**os.environ, FOLDER_VARIABLE: str(folder), "PYTHONPATH": str(TESTS)}
    processes = [
        subprocess.Popen(
            [*command, str(workspace.root)],
            env=environment,
            pass_fds=[sock.fileno()],
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    try:
        pair = Pair(sock.getsockname()[1], processes)
        pair.wait_ready(folder)
        yield pair
    finally:
        for process in processes:
            process.kill()
            process.wait()
        sock.close()


def test_both_are_counted_whoever_is_asked(pair: Pair, folder: Path) -> None:
    asked = 0
    while asked < 40 or min(counted_by(folder, process.pid) for process in pair.processes) < 1:
        assert pair.predict() == 200
        asked += 1
        assert asked < 1000, "one process does all the work"
    scrapes = [pair.scrape() for _ in range(8)]
    for shown in scrapes:
        answered = sum(value for name, value in shown.items() if name.startswith(PREDICTIONS))
        assert answered == asked
        assert shown[READY] == 1
        # Each holds 64 single products and 64 of batches.
        assert shown["product_classifier_inference_queue_limit"] == 256
        assert len([name for name in shown if "bundle_info" in name]) == 1
    assert exposed(pair.get("/metrics").text) == documented("fastapi")
    pair.wait_window(asked)

    gone = pair.processes[0]
    left = counted_by(folder, pair.processes[1].pid)
    gone.kill()
    gone.wait()
    shown = pair.scrape()
    answered = sum(value for name, value in shown.items() if name.startswith(PREDICTIONS))
    assert answered == asked  # what it counted is not lost
    assert shown["product_classifier_inference_queue_limit"] == 128
    assert gauge_pids(folder) == {pair.processes[1].pid}
    pair.wait_window(left)
