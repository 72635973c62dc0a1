"""Both services against their own OpenAPI documents: requests made from the document, allowed ones and spoilt ones.

Seeded and bounded. Whatever is sent, the answer has a status that the document names for it, a body of the promised
shape (problem+json for every error), and no 5xx but a documented 503.
"""

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from live_server import live_server
from product_classifier.auth.app import create_app as create_auth
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.serve.app import create_app as create_serve
from product_classifier.web.tokens import TokenSigner
from service_processes import (
    ADMIN,
    ADMIN_PASSWORD,
    UNLIMITED,
    USER,
    USER_PASSWORD,
    prepare_workspace,
)
from unused_ports import free_port

SEED = 20_261_121
EXAMPLES = 15  # per operation, role and mode
CORNERS = 60  # of schemathesis's list of corner cases, per operation and role
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SECRET = "k3-" + "0123456789abcdef" * 3

GetToken = Callable[[str], str]  # role -> token


@dataclass
class Api:
    """A running service with its document."""

    url: str
    document: dict[str, Any]
    token: GetToken
    tokens: dict[str, str] = field(default_factory=dict)  # by role
    session: requests.Session = field(default_factory=requests.Session)
    faults: list[str] = field(default_factory=list)
    statuses: dict[str, set[int]] = field(default_factory=dict)

    def check(self, case: schemathesis.Case, role: str) -> None:
        """Sends one case and keeps what is wrong with the answer."""
        if role not in self.tokens:
            self.tokens[role] = self.token(role)
        headers = {"Authorization": f"Bearer {self.tokens[role]}"}
        response = case.call(base_url=self.url, headers=headers, timeout=30, session=self.session)
        if case.method != "GET" and response.status_code < 300:
            del self.tokens[role]  # it may have ended the session that it was called in
        label = case.operation.label
        self.statuses.setdefault(label, set()).add(response.status_code)
        try:
            case.validate_response(response, checks=CHECKS, headers=headers)
            check_error_shape(response)
        except (AssertionError, BaseExceptionGroup) as error:
            self.faults.append(f"{label} as {role}: {describe(error)}")


def describe(error: BaseException) -> str:
    """Says what was wrong, with the request that shows it."""
    parts = getattr(error, "exceptions", (error,))
    return " | ".join(str(part)[:1500] for part in parts)


def check_error_shape(response: Any) -> None:
    """Holds an error to problem+json; 503 is the only fault of a server that may be."""
    status = response.status_code
    assert status < 500 or status == 503, f"{status}: {response.content[:300]!r}"
    if status >= 400:
        kind = response.headers["content-type"][0]
        assert kind == "application/problem+json", f"{status}: {kind}"
        body = json.loads(response.content)
        assert body["status"] == status
        assert body["request_id"] == response.headers["x-request-id"][0]
        assert {"type", "title", "detail", "instance"} <= body.keys()


@pytest.fixture(scope="module")
def contract_settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Settings]:
    """Settings that nothing outside changes; limits are high."""

    def make(**changes: Any) -> Settings:
        given = {name.lower(): value for name, value in UNLIMITED.items()} | changes
        return Settings(_env_file=None, **given)

    return make


@pytest.fixture(scope="module")
def auth_api(
    contract_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    settings = contract_settings(
        admin_user=ADMIN,
        admin_password=ADMIN_PASSWORD,
        test_user=USER,
        test_user_password=USER_PASSWORD,
        auth_data_path=tmp_path_factory.mktemp("contract") / "auth",
        login_lockout_failures=0,
        login_queue=100,
    )
    app = create_auth(settings, rounds=4)
    with live_server(app) as server:

        def token(role: str) -> str:
            user, password = (ADMIN, ADMIN_PASSWORD) if role == "admin" else (USER, USER_PASSWORD)
            return sign_in(server.url, user, password)

        yield Api(server.url, app.openapi(), token)


def sign_in(url: str, user: str, password: str) -> str:
    answer = httpx.post(f"{url}/token", data={"username": user, "password": password}, timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


@pytest.fixture(scope="module")
def serve_api(
    contract_settings: Callable[..., Settings],
    trained_workspace: Workspace,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Api]:
    root = tmp_path_factory.mktemp("contract") / "work space"
    workspace = prepare_workspace(root, trained_workspace.candidate)
    settings = contract_settings(
        algorithm="HS256",
        secret_key=SECRET,
        auth_url=f"http://127.0.0.1:{free_port()}",
        auth_data_path=root / "auth",
    )
    signer = TokenSigner(SECRET, lifetime_seconds=1800)
    app = create_serve(settings, workspace)
    with live_server(app) as server:
        yield Api(
            server.url, app.openapi(), lambda role: signer.issue(f"{role}-1", role, "contract")
        )


def attack(api: Api, role: str) -> None:
    """Sends allowed, spoilt and corner cases to every operation."""
    schema = schemathesis.openapi.from_dict(api.document)
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with suppress(Unsatisfiable):  # nothing to spoil where there is nothing to send
                send_examples(api, role, operation.as_strategy(generation_mode=mode))
        corners = schema.iter_coverage_cases(
            operation,
            generation_modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE],
            generation_config=schema.config.generation,
        )
        for case in itertools.islice(corners, CORNERS):
            api.check(case, role)


def send_examples(api: Api, role: str, strategy: SearchStrategy[schemathesis.Case]) -> None:
    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=strategy)
    def send(case: schemathesis.Case) -> None:
        api.check(case, role)

    send()


@pytest.mark.parametrize("role", ["admin", "user"])
@pytest.mark.parametrize("service", ["auth", "serve"])
def test_answers_are_as_documented(service: str, role: str, request: pytest.FixtureRequest) -> None:
    api: Api = request.getfixturevalue(f"{service}_api")

    attack(api, role)

    assert not api.faults, f"{len(api.faults)} faults, for example:\n" + "\n".join(api.faults[:8])
    reached = {label for label, statuses in api.statuses.items() if min(statuses) < 300}
    assert {"GET /health", "GET /ready"} <= reached  # the requests did go somewhere


def test_an_undocumented_status_is_noticed(serve_api: Api) -> None:
    document = copy.deepcopy(serve_api.document)
    paths = {"/logs": document["paths"]["/logs"]}
    del paths["/logs"]["get"]["responses"]["422"]
    blind = Api(serve_api.url, {**document, "paths": paths}, serve_api.token)

    attack(blind, "admin")

    assert any("422" in fault for fault in blind.faults)
