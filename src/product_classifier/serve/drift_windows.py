"""The windows of the processes that serve one socket: what each has counted, in a file beside their metrics."""

import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from product_classifier.modeling.drift import Counted, add_up
from product_classifier.web.metric_registry import is_alive, pid_of

logger = logging.getLogger(__name__)


class SharedWindows:
    """Tells the other processes of this one's window, and reads theirs. No product is in it: counts only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: str | None = ""  # None: it could not be told, and that has been said
        # An earlier process had this one's number, perhaps: in containers it is often 1.
        self._file().unlink(missing_ok=True)

    def tell(self, content_id: str, window: Counted) -> None:
        """Puts the window of this bundle in place of what was told before; a fault is a warning."""
        text = json.dumps({"content_id": content_id, "window": vars(window)})
        if text == self._told:
            return
        temporary = self._file().with_suffix(".tmp")
        try:
            # Not synced: what a machine that stops leaves is read by nobody.
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._file())
        except OSError as error:
            if self._told is not None:
                logger.warning(
                    "Other processes are not told of this one's drift: %s", error.strerror
                )
            self._told = None
        else:
            self._told = text

    def add_others(self, content_id: str, window: Counted) -> Counted:
        """Adds the windows of the other processes that answer by this bundle too to this one's."""
        for path in self._folder.glob("drift_*.json"):
            pid = pid_of(path)
            if pid is None or pid == os.getpid():
                continue
            # Gone, nobody's to remove, or of another version: then it does not count.
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                if not is_alive(pid):
                    path.unlink(missing_ok=True)
                    continue
                content = json.loads(path.read_bytes())
                if content["content_id"] == content_id:
                    window = add_up([window, Counted(**content["window"])])
        return window

    def _file(self) -> Path:
        return self._folder / f"drift_{os.getpid()}.json"
