"""What auth and serve are started with: their own settings, and nobody else's."""

import pytest
from pydantic import SecretStr

from product_classifier.auth.database import SQLITE_FILE
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime import api_services
from product_classifier.runtime.api_services import (
    API_SERVICES,
    api_service,
    auth_service,
    auth_url,
    build_services,
    deployed_names,
    has_users,
    local_url,
    remember_deployed,
    serve_service,
)
from product_classifier.runtime.layout import STATE_VARIABLE, Layout

SECRETS = {
    "admin_password": "the administrator's",
    "smoke_password": "the smoke account's",
    "test_user_password": "the test user's",
    "airflow_admin_password": "Airflow's",
    "airflow_trigger_password": "the trigger account's",
    "auth_database_url": "postgresql+psycopg://u:the-database's@h/n",
    "secret_key": "a key for HS256 that is long enough",
    "redis_url": "redis://:the-redis@h:6379/0",
    "dagshub_token": "DagsHub's",
    "mlflow_tracking_password": "MLflow's",
    "aws_secret_access_key": "Amazon's",
    "alert_webhook_url": "https://hooks.example.org/the-webhook's",
    "alert_heartbeat_url": "https://beat.example.org/the-watcher's",
    "alert_slack_url": "https://slack.example.org/the-channel's",
    "alert_smtp_password": "the mail account's",
    "grafana_admin_password": "Grafana's",
}
GIVEN = {
    "auth": {"admin_password", "smoke_password", "test_user_password", "auth_database_url"},
    "serve": {"airflow_trigger_password", "redis_url"},
}


@pytest.fixture
def full(settings):
    """Settings with every secret that there is."""
    values = {name: SecretStr(value) for name, value in SECRETS.items()}
    return settings.model_copy(update=values)


def test_the_table_of_secrets_is_complete():
    secret = {name for name, field in Settings.model_fields.items() if "Secret" in repr(field)}
    assert secret == set(SECRETS)


@pytest.mark.parametrize("name", API_SERVICES)
def test_a_service_gets_the_secrets_that_it_needs_and_no_other(layout, full, name):
    environment = api_service(layout, full, name).environment
    found = {field for field, value in SECRETS.items() if value in environment.values()}
    assert found == GIVEN[name]


@pytest.mark.parametrize("name", API_SERVICES)
def test_both_get_the_shared_key_where_tokens_are_signed_with_it(layout, full, name):
    chosen = full.model_copy(update={"algorithm": "HS256"})
    assert api_service(layout, chosen, name).environment["SECRET_KEY"] == SECRETS["secret_key"]


@pytest.mark.parametrize("name", API_SERVICES)
def test_no_secret_shows_in_its_text_and_no_env_file_is_where_it_works(layout, full, name):
    layout.dotenv.write_text("DAGSHUB_TOKEN=token\n")
    service = api_service(layout, full, name)
    assert not any(value in repr(service) for value in SECRETS.values())
    assert service.directory != layout.root
    assert not (service.directory / ".env").exists()
    assert service.directory.stat().st_mode & 0o077 == 0
    assert service.environment[STATE_VARIABLE] == str(layout.state)


def test_the_remotes_keys_go_to_serve_only_where_its_bundle_comes_from_there(layout, full):
    chosen = full.model_copy(update={"bundle_source": "dvc", "aws_access_key_id": "id"})
    environment = serve_service(layout, chosen).environment
    assert environment["AWS_SECRET_ACCESS_KEY"] == SECRETS["aws_secret_access_key"]
    assert environment["BUNDLE_SOURCE"] == "dvc"


def test_serve_finds_the_workspace_from_the_folder_it_works_in(layout, settings, tmp_path):
    assert Workspace.find(serve_service(layout, settings).directory).root == layout.root
    other = tmp_path / "other"
    other.mkdir()
    (other / "dvc.yaml").write_text("stages: {}\n")
    chosen = settings.model_copy(update={"project_host_path": other})
    assert Workspace.find(serve_service(layout, chosen).directory).root == other


def test_relative_paths_mean_the_same_as_in_the_checkout(layout, settings, tmp_path):
    chosen = settings.model_copy(
        update={"auth_service_logger_path": "logs/a.log", "serving_logger_path": "/var/s.log"}
    )
    auth = auth_service(layout, chosen).environment
    assert auth["AUTH_DATA_PATH"] == str(layout.root / ".state" / "auth")
    assert auth["AUTH_SERVICE_LOGGER_PATH"] == str(layout.root / "logs" / "a.log")
    assert serve_service(layout, chosen).environment["SERVING_LOGGER_PATH"] == "/var/s.log"
    folder = settings.model_copy(update={"bundle_source": "bundles/one"})
    bundle = serve_service(layout, folder).environment["BUNDLE_SOURCE"]
    assert bundle == str(layout.root / "bundles" / "one")


def test_auth_believes_serve_about_addresses_and_serve_only_whom_it_is_told_to(layout, settings):
    assert auth_service(layout, settings).environment["TRUSTED_PROXIES"] == "127.0.0.1"
    assert "TRUSTED_PROXIES" not in serve_service(layout, settings).environment
    chosen = settings.model_copy(update={"trusted_proxies": "10.0.0.0/8"})
    assert auth_service(layout, chosen).environment["TRUSTED_PROXIES"] == "10.0.0.0/8,127.0.0.1"
    assert serve_service(layout, chosen).environment["TRUSTED_PROXIES"] == "10.0.0.0/8"


def test_serve_finds_its_neighbours_on_their_ports(layout, settings):
    chosen = settings.model_copy(update={"auth_port": 9011, "airflow_port": 9080})
    environment = serve_service(layout, chosen).environment
    assert environment["AUTH_URL"] == "http://127.0.0.1:9011"
    assert environment["AIRFLOW_API_URL"] == "http://127.0.0.1:9080"
    elsewhere = chosen.model_copy(update={"auth_url": "https://auth.example.org"})
    assert auth_url(elsewhere) == "https://auth.example.org"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("192.168.1.5", "http://192.168.1.5:1"),
    ],
)
def test_a_service_is_reached_where_it_listens(host, url):
    assert local_url(host, 1) == url


def test_a_service_that_drains_is_not_killed(layout, settings):
    chosen = settings.model_copy(update={"shutdown_grace_seconds": 120})
    assert api_service(layout, chosen, "serve").stop_seconds > 120


def changed(layout, before, settings):
    after = {name: api_service(layout, settings, name).fingerprint() for name in API_SERVICES}
    return {name for name in API_SERVICES if after[name] != before[name]}


def test_a_service_restarts_for_its_own_settings_packages_and_code_only(
    layout, settings, monkeypatch, tmp_path
):
    package = tmp_path / "package"
    for part in ("auth", "serve", "core", "web", "train", "features", "modeling"):
        (package / part).mkdir(parents=True)
        (package / part / "a.py").write_text("1")
    monkeypatch.setattr(api_services.product_classifier, "__file__", str(package / "__init__.py"))
    before = {name: api_service(layout, settings, name).fingerprint() for name in API_SERVICES}
    assert changed(layout, before, settings) == set()
    monkeypatch.setenv("PATH", "/somewhere/else")
    assert changed(layout, before, settings) == set()
    assert changed(layout, before, settings.model_copy(update={"data_source": "x"})) == set()
    assert changed(layout, before, settings.model_copy(update={"inference_queue": 9})) == {"serve"}
    assert changed(layout, before, settings.model_copy(update={"login_queue": 9})) == {"auth"}
    for part, expected in (
        ("train", set()),
        ("auth", {"auth"}),
        ("serve", {"serve"}),
        ("web", {"auth", "serve"}),
    ):
        before = {name: api_service(layout, settings, name).fingerprint() for name in API_SERVICES}
        (package / part / "a.py").write_text("2")
        assert changed(layout, before, settings) == expected, part
    before = {name: api_service(layout, settings, name).fingerprint() for name in API_SERVICES}
    (layout.root / "uv.lock").write_text("other packages")
    assert changed(layout, before, settings) == {"auth", "serve"}


def test_what_was_deployed_belongs_to_the_next_start(layout, settings):
    assert deployed_names(layout) == []
    assert not {s.name for s in build_services(layout, settings)} & set(API_SERVICES)
    remember_deployed(layout, "serve")
    remember_deployed(layout, "auth")
    remember_deployed(layout, "auth")
    assert deployed_names(layout) == ["auth", "serve"]
    assert set(API_SERVICES) <= {s.name for s in build_services(layout, settings)}
    layout.deployed.write_text("{broken")
    assert deployed_names(layout) == []


def test_auth_has_users_from_its_first_start_on(layout):
    assert not has_users(layout)
    layout.auth_home.mkdir()
    (layout.auth_home / SQLITE_FILE).touch()
    assert has_users(layout)


def test_a_task_finds_its_checkout_by_the_variable_it_inherits(layout, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STATE_VARIABLE, str(layout.state))
    assert Layout.find() == layout
    monkeypatch.delenv(STATE_VARIABLE)
    monkeypatch.chdir(layout.dags)
    assert Layout.find() == layout
