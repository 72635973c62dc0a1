"""What the routes beside prediction take and give."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Message(BaseModel):
    """A sentence for people."""

    message: str


class Status(BaseModel):
    """The earlier system's answer, word for word."""

    status: str


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    model_loaded: bool
    version: str


class Ready(BaseModel):
    """A model is loaded, warmed up, and tokens can be checked."""

    status: Literal["ready"] = "ready"
    bundle_id: str
    warmed: bool


class TokenAnswer(BaseModel):
    """A token, and how to get the next one."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds")
    refresh_token: str
    refresh_expires_in: int = Field(description="Seconds")


class TrainRequest(BaseModel):
    """Parameters of the DAG, as in its trigger form."""

    model_config = ConfigDict(extra="forbid")

    params: dict[str, Any] = {}

    @field_validator("params")
    @classmethod
    def _check_params(cls, params: dict[str, Any]) -> dict[str, Any]:
        """Lets through what JSON can say: Python's reader also takes NaN, Infinity and half a surrogate pair."""
        try:
            json.dumps(params, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise ValueError("must be plain JSON, without NaN, Infinity and broken text") from None
        return params


class RunAnswer(BaseModel):
    """A run of the DAG."""

    run_id: str
    state: str
    url: str = Field(description="Its page in Airflow")
    started_at: str | None
    ended_at: str | None


class LogEntry(BaseModel):
    """One request."""

    model_config = ConfigDict(extra="ignore")

    time: float = Field(description="Seconds since 1970")
    level: Literal["INFO", "WARNING", "ERROR"]
    request_id: str | None = None
    method: str | None = None
    route: str | None = None
    status: int
    milliseconds: float | None = None
    user: str | None = None
    bundle_id: str | None = None
    address: str | None = None


class LogAnswer(BaseModel):
    """Entries, newest first."""

    entries: list[LogEntry]


class Percentiles(BaseModel):
    """Of milliseconds; null without entries."""

    p50: float | None
    p95: float | None


class LogStatistics(BaseModel):
    """The kept entries, counted."""

    entries: int
    levels: dict[str, int]
    statuses: dict[str, int]
    routes: dict[str, int]
    milliseconds: Percentiles
