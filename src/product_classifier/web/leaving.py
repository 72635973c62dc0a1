"""How a service takes leave: it says so at /ready, goes on for a moment, and only then closes its door."""

import threading
from types import FrameType

import uvicorn
from fastapi import FastAPI, Request

from product_classifier.web.problems import Problem


class LeavingServer(uvicorn.Server):
    """uvicorn, with a time in which it says that it will go before it goes."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, delay_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._delay_seconds = delay_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leaves at once where there is no delay, nothing runs yet, or it is told for the second time."""
        if not self._delay_seconds or not self.started or is_leaving(self._app):
            super().handle_exit(sig, frame)
            return
        self._app.state.leaving = True
        # A timer, since a signal may come while the event loop is in anything.
        timer = threading.Timer(self._delay_seconds, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


def is_leaving(app: FastAPI) -> bool:
    """Tells whether the service was told to end: /ready then says no, and a gateway sends its requests elsewhere."""
    return bool(getattr(app.state, "leaving", False))


def refuse_when_leaving(request: Request) -> None:
    """Goes before /ready.

    Raises:
        Problem: 503, the service is about to end.
    """
    if is_leaving(request.app):
        raise Problem(503, "Service Unavailable", "This service is about to end.")
