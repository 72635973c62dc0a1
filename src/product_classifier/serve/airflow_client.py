"""Airflow's REST API, as far as `/train` uses it: start a run of the DAG, and look at one."""

import asyncio
import json
import logging
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from product_classifier.core.settings import Settings
from product_classifier.web.problems import Problem

logger = logging.getLogger(__name__)

DAG_ID = "ml_pipeline"
TOTAL_SECONDS = 4.5  # signing in included; the answer is out within 5
MAX_ANSWER_BYTES = 1_000_000
RUN_ID = re.compile(r"[A-Za-z0-9_.:~+-]{1,250}")


@dataclass(frozen=True)
class Run:
    """One run of the DAG."""

    run_id: str
    state: str
    url: str
    started_at: str | None
    ended_at: str | None


class AirflowClient:
    """Signs in for each call, with an account that can do only this; keeps no connection and no token."""

    def __init__(
        self,
        settings: Settings,
        *,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        address = settings.airflow_api_url or f"http://127.0.0.1:{settings.airflow_port}"
        self._url = address.rstrip("/")
        self._user = settings.airflow_trigger_user
        secret = settings.airflow_trigger_password
        self._password = secret.get_secret_value() if secret else None
        self._total_seconds = total_seconds

    async def trigger(self, params: dict[str, Any]) -> Run:
        """Starts a run with these parameters.

        Raises:
            Problem: 422, Airflow does not accept them; 503, Airflow is away or refuses this account.
        """
        body = {"logical_date": None, "conf": params}
        return self._read_run(await self._call("POST", "dagRuns", body))

    async def find(self, run_id: str) -> Run:
        """Gives one run.

        Raises:
            Problem: 404, there is none; 503, Airflow is away or refuses this account.
        """
        if not RUN_ID.fullmatch(run_id) or set(run_id) == {"."}:
            raise _no_such_run(run_id)
        return self._read_run(await self._call("GET", f"dagRuns/{quote(run_id, safe='')}", None))

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        if self._password is None:
            raise _away("AIRFLOW_TRIGGER_PASSWORD is not set: training can't be started from here.")
        try:
            async with (
                asyncio.timeout(self._total_seconds),  # in all: drips defeat httpx's own timeouts
                httpx.AsyncClient(
                    base_url=self._url,
                    timeout=self._total_seconds,
                    follow_redirects=False,
                    trust_env=False,  # a proxy must not see the password
                ) as http,
            ):
                login = {"username": self._user, "password": self._password}
                status, answer = await _exchange(http, "POST", "/auth/token", {"json": login})
                token = answer.get("access_token")
                if status >= 300 or not isinstance(token, str):
                    logger.warning("Airflow refused the login of %r (%d).", self._user, status)
                    raise _away("Airflow refused this service's account.")
                options: dict[str, Any] = {"headers": {"Authorization": f"Bearer {token}"}}
                if body is not None:
                    options["json"] = body
                target = f"/api/v2/dags/{DAG_ID}/{path}"
                return _judge(*await _exchange(http, method, target, options), path)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            logger.warning("Airflow does not answer: %s", type(error).__name__)
            raise _away("Airflow does not answer.") from None

    def _read_run(self, answer: dict[str, Any]) -> Run:
        run_id = answer.get("dag_run_id")
        if not isinstance(run_id, str):
            raise _away("Airflow gave an answer that is no run.")
        return Run(
            run_id=run_id,
            state=str(answer.get("state")),
            url=f"{self._url}/dags/{DAG_ID}/runs/{quote(run_id, safe='')}",
            started_at=answer.get("start_date"),
            ended_at=answer.get("end_date"),
        )


async def _exchange(
    http: httpx.AsyncClient, method: str, path: str, options: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Calls Airflow; gives status and JSON.

    Raises:
        ValueError: the answer is too large, or a success without a JSON object.
    """
    async with http.stream(method, path, **options) as response:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError("too large")
    try:
        answer = json.loads(body) if body else {}
    except ValueError:
        if response.is_success:
            raise
        answer = {}
    return response.status_code, answer if isinstance(answer, dict) else {}


def _judge(status: int, answer: dict[str, Any], path: str) -> dict[str, Any]:
    if 200 <= status < 300:
        return answer
    if status in (400, 422):
        raise Problem(
            422, "Unprocessable Content", f"Airflow does not accept this: {_reason(answer)}"
        )
    if status == httpx.codes.NOT_FOUND and path != "dagRuns":
        raise _no_such_run(path.partition("/")[2])
    logger.warning("Airflow refused %s (%d).", path, status)
    raise _away(f"Airflow can't do this now (its answer: {status}).")


def _reason(answer: dict[str, Any]) -> str:
    detail = answer.get("detail", "no reason given")
    if isinstance(detail, list):  # FastAPI's way; `input` would repeat what came
        detail = "; ".join(str(item.get("msg")) for item in detail if isinstance(item, dict))
    return str(detail)[:500]


def _no_such_run(run_id: str) -> Problem:
    return Problem(404, "Not Found", f"There is no run {run_id[:100]!r}.")


def _away(detail: str) -> Problem:
    return Problem(503, "Service Unavailable", detail, headers={"Retry-After": "30"})
