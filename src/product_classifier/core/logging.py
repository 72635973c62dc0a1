"""One JSON line per event on stdout; a rotating file beside it where the stage's logger path is set."""

import json
import logging
import logging.handlers
import sys
import time
from pathlib import Path
from typing import Any

from product_classifier.core.settings import get_settings

ROTATE_BYTES = 10_000_000
ROTATE_FILES = 5
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONFormatter(logging.Formatter):
    """Renders a record as one JSON object: time, level, logger, message, stage, and what `extra` carried."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def format(self, record: logging.LogRecord) -> str:
        """Renders one record; a value that JSON can't hold becomes its text."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "stage": self.stage,
        }
        event.update(
            {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        )
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False, default=str)


def configure_logging(stage: str) -> None:
    """Sets up logging for a process that runs `stage`. Called once, by an entry point, never at import."""
    settings = get_settings()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if (path := settings.logger_path(stage)) is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.handlers.RotatingFileHandler(
                path, maxBytes=ROTATE_BYTES, backupCount=ROTATE_FILES, encoding="utf-8"
            )
        )
    for handler in handlers:
        handler.setFormatter(JSONFormatter(stage))
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(settings.log_level)
    # Libraries log each request and each scheduled job at INFO: noise beside our own events.
    for noisy in (
        "httpx",
        "httpcore",
        "botocore",
        "boto3",
        "urllib3",
        "mlflow",
        "matplotlib",
        "PIL",
        "dvc",
        "nncf",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
