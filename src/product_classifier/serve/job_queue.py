"""The waiting room before the networks: bounded, with a second lane for batches."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from product_classifier.modeling.predictor import ProductInput
from product_classifier.serve.live_model import LiveModel, Scored

# So many single requests in a row, then one product of a batch: neither lane starves.
_SINGLES_IN_A_ROW = 4


class Lane(Enum):
    """Who waits."""

    SINGLE = "single"
    BATCH = "batch"


class QueueFull(Exception):
    """There is no room: the caller is told at once instead of waiting for long."""


@dataclass(slots=True, eq=False)
class Job:
    """One product to score with one model."""

    model: LiveModel
    product: ProductInput
    lane: Lane
    future: "Future[Scored]" = field(default_factory=Future)
    queued_at: float = field(default_factory=time.perf_counter)


class JobQueue:
    """Jobs that wait, first come first served in each lane. Any thread may call it."""

    def __init__(self, capacity: int, batch_capacity: int, max_running_batch: int) -> None:
        """Makes an empty queue.

        Args:
            capacity: Single products that may wait.
            batch_capacity: Products of batches that may wait beside them.
            max_running_batch: Products of batches that are scored at a time: the other workers stay free for single
                ones.
        """
        self._capacity = {Lane.SINGLE: capacity, Lane.BATCH: batch_capacity}
        self._waiting: dict[Lane, deque[Job]] = {lane: deque() for lane in Lane}
        self._max_running_batch = max_running_batch
        self._running = dict.fromkeys(Lane, 0)
        self._singles_in_a_row = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def capacity(self) -> int:
        """How many jobs may wait, in both lanes."""
        return sum(self._capacity.values())

    def put(self, jobs: Sequence[Job]) -> None:
        """Adds jobs of one lane, all or none; one that is cancelled later frees its place.

        Raises:
            QueueFull: there is no room for all of them.
        """
        lane = jobs[0].lane
        with self._changed:
            if self._closed or len(self._waiting[lane]) + len(jobs) > self._capacity[lane]:
                raise QueueFull
            self._waiting[lane].extend(jobs)
            self._changed.notify(len(jobs))
        for job in jobs:
            # The callback must not know the job: a future keeps its callbacks, and in a circle of references a
            # replaced model of 60 MB would stay until Python looks for circles.
            job.future.add_done_callback(partial(self._on_done, lane))

    def _on_done(self, lane: Lane, future: "Future[Scored]") -> None:
        if not future.cancelled():
            return
        with self._changed:
            waiting = self._waiting[lane]
            for job in [job for job in waiting if job.future is future]:
                waiting.remove(job)

    def take(self) -> Job | None:
        """Waits for a job and gives it; None once the queue is closed and empty. `finish` it."""
        with self._changed:
            while True:
                lane = self._next_lane()
                if lane is not None:
                    self._running[lane] += 1
                    return self._waiting[lane].popleft()
                if self._closed and not any(self._waiting.values()):
                    return None
                self._changed.wait()

    def _next_lane(self) -> Lane | None:
        batch_may_run = (
            bool(self._waiting[Lane.BATCH]) and self._running[Lane.BATCH] < self._max_running_batch
        )
        if self._waiting[Lane.SINGLE] and not (
            batch_may_run and self._singles_in_a_row >= _SINGLES_IN_A_ROW
        ):
            self._singles_in_a_row += 1
            return Lane.SINGLE
        self._singles_in_a_row = 0
        return Lane.BATCH if batch_may_run else None

    def finish(self, job: Job) -> None:
        """Says that a taken job is done."""
        with self._changed:
            self._running[job.lane] -= 1
            # At the end every worker that waits must look again, and go.
            self._changed.notify_all() if self._closed else self._changed.notify()

    def close(self) -> None:
        """Takes no more jobs; those that wait are still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def waiting(self, lane: Lane | None = None) -> int:
        """Counts the jobs that wait."""
        with self._changed:
            lanes = Lane if lane is None else (lane,)
            return sum(len(self._waiting[one]) for one in lanes)

    def running(self) -> int:
        """Counts the jobs that are being scored."""
        with self._changed:
            return sum(self._running.values())
