"""The engine: worker threads that decode and score, a bounded queue before them, one live model at a time.

A request takes the model's reference once and keeps it: a swap meanwhile can't mix two bundles in one answer. The old
model goes when its last request is answered.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from product_classifier.core.bundle import Manifest
from product_classifier.modeling.predictor import ProductInput
from product_classifier.serve.job_queue import Job, JobQueue, Lane, QueueFull
from product_classifier.serve.live_model import Hint, LiveModel, Scored
from product_classifier.serve.model_metrics import ModelMetrics
from product_classifier.web.problems import Problem

logger = logging.getLogger(__name__)

MAX_BATCH_PRODUCTS = 64
RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True)
class Answers:
    """What one model says about the products of one request, in their order."""

    model: LiveModel
    scored: list[Scored]
    seconds: float

    @property
    def bundle_id(self) -> str:
        """Short name of the bundle that answered, all of it."""
        return self.model.bundle_id


class DriftWatch(Protocol):
    """What looks on whether products and answers still are as in training."""

    def use(self, manifest: Manifest) -> None:
        """Begins anew with another bundle."""
        ...

    def add(self, scored: Scored) -> None:
        """Sees one answer of that bundle."""
        ...


def not_ready() -> Problem:
    """What a request is told while there is no model."""
    return Problem(
        503,
        "Service Unavailable",
        "No model is loaded yet. Try again later.",
        headers={"Retry-After": "5"},
    )


class Engine:
    """Scores products with the live model. Made and used on one event loop; the work is in threads."""

    def __init__(
        self, workers: int, queue: int, metrics: ModelMetrics, drift: DriftWatch | None = None
    ) -> None:
        """Makes an engine without a model; nothing runs before `start`.

        Args:
            workers: INFERENCE_WORKERS: products scored at a time; 0 for what suits this machine.
            queue: INFERENCE_QUEUE: products that may wait.
            metrics: Where waiting, refusals and durations are counted.
            drift: Is shown what the live model answers.
        """
        # One more than processors: the next photo is decoded while the networks work on the others.
        self.workers = workers or len(os.sched_getaffinity(0)) + 1
        # One product at a time is fastest with all processors on it; several, with one on each. With THROUGHPUT a
        # product that is alone still gets them all: see LiveModel.
        self.hint: Hint = "LATENCY" if workers == 1 else "THROUGHPUT"
        self.metrics = metrics
        self._drift = drift
        self._queue = JobQueue(
            queue, max(queue, MAX_BATCH_PRODUCTS), max_running_batch=max(1, self.workers - 1)
        )
        self._threads: list[threading.Thread] = []
        self._model: LiveModel | None = None
        metrics.watch_queue(self._queue.waiting, self._queue.capacity)

    @property
    def model(self) -> LiveModel | None:
        """The live model; None until one is loaded."""
        return self._model

    @property
    def waiting(self) -> int:
        """Products that wait for a worker."""
        return self._queue.waiting()

    @property
    def in_flight(self) -> int:
        """Products that wait or are being scored."""
        return self._queue.waiting() + self._queue.running()

    def start(self) -> None:
        """Starts the workers."""
        for number in range(self.workers):
            # Daemons: a decoder that hangs must not keep the process from ending after its grace.
            thread = threading.Thread(target=self._work, name=f"scoring-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    async def stop(self, seconds: float = 30.0) -> None:
        """Answers what waits, takes nothing more, and ends the workers; gives up after `seconds`."""
        self._queue.close()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(0.0, deadline - time.monotonic()))
        self._threads.clear()
        self._model = None

    def swap(self, model: LiveModel) -> LiveModel | None:
        """Puts a model in the place of the live one, in one step; gives the one before."""
        previous, self._model = self._model, model
        self.metrics.use(model)
        if self._drift is not None:
            self._drift.use(model.manifest)
        return previous

    def current(self) -> LiveModel:
        """Gives the live model.

        Raises:
            Problem: 503, there is none yet.
        """
        if self._model is None:
            raise not_ready()
        return self._model

    async def predict(self, products: Sequence[ProductInput]) -> Answers:
        """Scores products with the model that is live now; several products wait in the lane for batches.

        A caller that is cancelled frees the places of its products that still wait.

        Raises:
            Problem: 503, there is no model yet or no room; says when to try again.
        """
        model, started = self.current(), time.perf_counter()
        lane = Lane.SINGLE if len(products) == 1 else Lane.BATCH
        jobs = [Job(model, product, lane) for product in products]
        if jobs:
            self._enter(jobs)
        try:
            scored = await asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs))
        finally:
            for job in jobs:  # those not scored: cancelled with the caller, or one of them failed
                job.future.cancel()
        for one in scored:
            self.metrics.observe(one)
            if self._drift is not None and model is self._model:  # the window is of one bundle
                self._drift.add(one)
        return Answers(model, list(scored), time.perf_counter() - started)

    def _enter(self, jobs: list[Job]) -> None:
        try:
            self._queue.put(jobs)
        except QueueFull:
            self.metrics.count_rejections(len(jobs))
            raise Problem(
                503,
                "Service Unavailable",
                "Too many products wait for the networks. Try again later.",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from None

    def _is_alone(self) -> bool:
        return self.in_flight == 1

    def _work(self) -> None:
        while (job := self._queue.take()) is not None:
            try:
                if job.future.set_running_or_notify_cancel():
                    _score(job, self._is_alone)
            finally:
                self._queue.finish(job)
            del job  # an idle worker must not keep an old model alive


def _score(job: Job, alone: Callable[[], bool]) -> None:
    try:
        wait = time.perf_counter() - job.queued_at
        job.future.set_result(job.model.score(job.product, wait, alone))
    except BaseException as error:  # whatever it is, it belongs to the one who waits for it
        job.future.set_exception(error)
