"""The prediction routes in an app of their own, with a real engine: without tokens, limits and the other routes."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from fastapi import FastAPI

from product_classifier.core import bundle as parts
from product_classifier.core.bundle import describe_files
from product_classifier.core.files import read_json, write_json_atomic
from product_classifier.core.settings import Settings
from product_classifier.serve.engine import Engine
from product_classifier.serve.explain import Explainer
from product_classifier.serve.live_model import Hint, LiveModel
from product_classifier.serve.model_metrics import ModelMetrics
from product_classifier.serve.routes import predict, predict_batch
from product_classifier.web.metric_registry import MetricRegistry
from product_classifier.web.problems import FaultBarrier, install_problem_handlers

T = TypeVar("T")


@lru_cache(maxsize=4)
def live_model(bundle: Path, hint: Hint = "THROUGHPUT") -> LiveModel:
    """A loaded bundle, shared by tests: it never changes."""
    return LiveModel.load(bundle, hint)


def make_variant(bundle: Path, target: Path, seed: int) -> Path:
    """A second sound bundle: that of `bundle` with other fusion weights, so that its answers differ."""
    shutil.copytree(bundle, target)
    target.chmod(0o755)
    generator = np.random.default_rng(seed)
    weights = read_json(target / parts.FUSION_WEIGHTS)
    for name in ("text", "image"):
        weights[name] = (generator.random(len(weights[name])) + 0.1).tolist()
    _replace(target / parts.FUSION_WEIGHTS, weights)
    manifest = read_json(target / parts.MANIFEST)
    manifest["content_id"] = hashlib.sha256(str(seed).encode()).hexdigest()
    manifest["files"] = {n: e.model_dump() for n, e in describe_files(target).items()}
    _replace(target / parts.MANIFEST, manifest)
    return target


def _replace(path: Path, content: object) -> None:
    path.unlink()
    write_json_atomic(path, content)


class NoLimits:
    """Counts what is charged and refuses nothing."""

    def __init__(self) -> None:
        self.charged: list[tuple[str, int]] = []

    async def charge(self, _request: object, rate: str, cost: int, paid: int = 0) -> None:
        """Notes one charge."""
        self.charged.append((rate, cost - paid))


def make_engine(workers: int = 2, queue: int = 64) -> Engine:
    """An engine without a model, with metrics of its own."""
    return Engine(workers, queue, ModelMetrics(MetricRegistry()))


@asynccontextmanager
async def running(engine: Engine, bundle: Path | None = None) -> AsyncIterator[Engine]:
    """Starts an engine, with a bundle live where one is given, and stops it."""
    if bundle is not None:
        engine.swap(await asyncio.to_thread(live_model, bundle))
    engine.start()
    try:
        yield engine
    finally:
        await engine.stop(10)


def make_app(engine: Engine, **state: Any) -> FastAPI:
    """The routes on an engine."""
    app = FastAPI()
    app.include_router(predict.router)
    app.include_router(predict_batch.router)
    install_problem_handlers(app)
    app.add_middleware(FaultBarrier)
    app.state.engine = engine
    app.state.settings = Settings(_env_file=None)  # type: ignore[call-arg]
    app.state.explainer = Explainer(lambda: engine.waiting)
    app.state.limits = NoLimits()
    for name, value in state.items():
        setattr(app.state, name, value)
    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client in this process."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://serve")


def with_client(
    bundle: Path | None,
    work: Callable[[httpx.AsyncClient], Awaitable[T]],
    **options: Any,
) -> T:
    """Runs something against a running engine with a bundle."""

    async def run() -> T:
        async with (
            running(make_engine(**options), bundle) as engine,
            client_of(make_app(engine)) as client,
        ):
            return await work(client)

    return asyncio.run(run())
