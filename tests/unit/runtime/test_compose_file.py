"""docker-compose.yml, read as it is written: what no engine is needed to see."""

import re
from pathlib import Path

import pytest
import yaml

from product_classifier.core.settings import ContainerSettings, MonitoringSettings, Settings
from product_classifier.runtime.dotenv import STACK_SECRETS
from product_classifier.runtime.images import IMAGES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
FILE = yaml.safe_load(TEXT)
SERVICES = FILE["services"]
ONE_SHOT = {"airflow-init", "s3-init", "ingest", "train", "gate", "predict"}
# Health checks of these are in their images.
CHECKED_BY_IMAGE = {"auth", "serve"}
OURS = re.compile(r"\$\{IMAGE_PREFIX:-product-classifier\}/([a-z-]+):\$\{IMAGE_TAG:-local\}")
SETTINGS = {name.upper() for name in Settings.model_fields}


class _ComposeLoader(yaml.SafeLoader):
    """Reads compose's `!override` as what stands behind it."""


_ComposeLoader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


class _StrictLoader(_ComposeLoader):
    """Refuses a key that is there twice, as compose does and PyYAML does not."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if key.value != "<<"]
        assert len(keys) == len(set(keys)), f"twice, before line {node.end_mark.line}: {keys}"
        return super().construct_mapping(node, deep)


def of_service(name, key, default=None):
    return SERVICES[name].get(key, default)


def test_no_key_is_there_twice():
    assert yaml.load(TEXT, Loader=_StrictLoader) == FILE
    with pytest.raises(AssertionError, match="twice"):
        yaml.load("a: {b: 1, b: 2}", Loader=_StrictLoader)


def test_the_worker_is_given_every_setting_that_the_dag_hands_on():
    # The first two say how the stack is started; the passwords of Airflow's pages are its API server's alone.
    not_for_the_dag = {"COMPOSE_PROJECT_NAME", "AIRFLOW_WORKERS", "AIRFLOW_WORKER_CONCURRENCY"}
    not_for_the_dag |= {"AIRFLOW_WORKER_QUEUES"}
    not_for_the_dag |= {
        "AIRFLOW_ADMIN_PASSWORD",
        "AIRFLOW_ADMIN_USER",
        "AIRFLOW_PORT",
        "MLFLOW_PORT",
    }
    # Nor do tasks see who is told of alerts. The schedule is the DAG's own affair.
    not_for_the_dag |= {name.upper() for name in MonitoringSettings.model_fields}
    not_for_the_dag -= {"PIPELINE_SCHEDULE"}
    assert SETTINGS - set(of_service("airflow-worker", "environment")) == not_for_the_dag


@pytest.mark.parametrize("block", [name for name in FILE if name.endswith("-settings")])
def test_only_settings_are_handed_on(block):
    assert set(FILE[block]) <= SETTINGS
    assert not set(FILE[block]) & {name.upper() for name in ContainerSettings.model_fields}


@pytest.mark.parametrize("name", ["ingest", "train", "gate", "predict"])
def test_a_stage_sees_no_password_of_users(name):
    given = set(of_service(name, "environment"))
    assert not given & {"ADMIN_PASSWORD", "SMOKE_PASSWORD", "AUTH_DATABASE_URL", "REDIS_URL"}
    assert "/dev/null:/workspace/.env:ro" in of_service(name, "volumes")


def test_auth_sees_no_key_of_the_data_and_serve_no_password_of_users():
    assert not set(of_service("auth", "environment")) & {"AWS_SECRET_ACCESS_KEY", "DAGSHUB_TOKEN"}
    assert not set(of_service("serve", "environment")) & {"ADMIN_PASSWORD", "AUTH_DATABASE_URL"}


def test_services_without_airflow_believe_the_gateway_who_is_calling():
    """As those that the pipeline deploys: else all callers are one, and who guesses passwords locks everybody out."""
    believing = {n for n in SERVICES if "neighbours" in str(of_service(n, "environment"))}
    assert believing == {"auth", "serve"}
    for name in believing:
        value = of_service(name, "environment")["TRUSTED_PROXIES"]
        assert value == "${TRUSTED_PROXIES:-},neighbours"
        assert of_service(name, "networks")["pipeline"] == {"aliases": [f"{name}-backend"]}
    assert "gateway" in of_service("gateway", "networks")["pipeline"]["aliases"]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_ours_or_pinned_to_a_version(name):
    image = of_service(name, "image")
    match = OURS.fullmatch(image)
    assert match[1] in IMAGES if match else re.fullmatch(r"[a-z./-]+:v?\d+(\.\d+)+", image)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_can_do_no_more_than_it_has_to(name):
    assert of_service(name, "cap_drop") == ["ALL"]
    assert of_service(name, "security_opt") == ["no-new-privileges:true"]
    assert of_service(name, "read_only") is True
    assert of_service(name, "init") is True
    assert of_service(name, "privileged") is None
    assert {of_service(name, key) for key in ("pid", "ipc", "network_mode", "userns_mode")} == {
        None
    }


@pytest.mark.parametrize("name", set(SERVICES) - ONE_SHOT - CHECKED_BY_IMAGE)
def test_what_stays_up_has_a_health_check(name):
    check = of_service(name, "healthcheck")
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert check["start_period"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name):
    assert all(port.startswith("127.0.0.1:") for port in of_service(name, "ports", []))


def test_the_engines_socket_is_mounted_in_the_proxy_alone():
    with_socket = {n for n in SERVICES if "docker.sock" in str(of_service(n, "volumes", []))}
    assert with_socket == {"socket-proxy"}
    # Nobody but the worker reaches the proxy, and the proxy reaches nobody.
    assert {n for n in SERVICES if "engine" in of_service(n, "networks")} == {
        "socket-proxy",
        "airflow-worker",
    }
    assert of_service("socket-proxy", "networks") == ["engine"]
    assert FILE["networks"]["engine"] == {"internal": True}


def test_the_network_keeps_the_name_that_users_scripts_know():
    assert FILE["networks"]["pipeline"]["name"] == "${NETWORK_NAME:-product_classier}"
    aliases = of_service("gateway", "networks")["pipeline"]["aliases"]
    assert {"serving_service_container", "auth_service_container", "gateway"} <= set(aliases)


@pytest.mark.parametrize("name", STACK_SECRETS)
def test_a_secret_has_no_default_and_is_used(name):
    uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", TEXT)
    assert uses
    assert all(use in ("", ":-") or use.startswith(":?") for use in uses)


def test_the_stand_ins_exchange_nothing_but_images_and_a_check():
    path = ROOT / "tests" / "containers" / "compose.standins.yml"
    services = yaml.load(path.read_text(), Loader=_ComposeLoader)
    # Of Debian's programs, none is Grafana; for statsd_exporter our bridge stands in, out of an image of ours.
    assert services["services"].pop("grafana") == {"profiles": ["grafana"]}
    bridge = services["services"].pop("statsd-exporter")
    assert set(bridge) == {"image", "entrypoint", "healthcheck"}
    assert bridge["entrypoint"] == ["product-classifier", "statsd-exporter"]
    assert OURS.fullmatch(bridge["image"])
    for name, service in services["services"].items():
        assert name in SERVICES
        assert set(service) <= {"image", "healthcheck"}
        assert service["image"].startswith("product-classifier-standin/")


MONITORING = {n for n in SERVICES if of_service(n, "profiles") == ["monitoring"]}


def test_the_profile_monitoring_is_all_that_prometheus_asks_and_tells():
    assert {
        *("prometheus", "alertmanager", "alert-log", "grafana"),
        *("node-exporter", "pipeline-exporter", "statsd-exporter"),
    } == MONITORING
    text = (ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text()
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    hosts = {
        job: target.split(":")[0]
        for job, found in jobs.items()
        for group in found.get("static_configs", [])
        for target in group["targets"]
    }
    assert set(hosts.values()) - {"localhost"} <= MONITORING
    # The aliases that deployed containers have, and one of the gateway's, which has no profile.
    found = {job: jobs[job]["dns_sd_configs"][0]["names"] for job in set(jobs) - set(hosts)}
    assert found == {
        "fastapi": ["serve-backend"],
        "auth": ["auth-backend"],
        "gateway": ["serving_service_container"],
    }
    (gateway,) = jobs["gateway"]["dns_sd_configs"]
    configuration = (ROOT / "containers" / "gateway" / "haproxy.cfg").read_text()
    assert f"frontend metrics\n  bind :{gateway['port']}\n" in configuration
    # For the network alone.
    assert not any(str(gateway["port"]) in port for port in of_service("gateway", "ports"))


def test_the_secrets_of_receivers_are_in_no_environment_and_grafanas_in_its_own():
    secret = {
        name.upper() for name, f in MonitoringSettings.model_fields.items() if "Secret" in str(f)
    }
    assert not any(name in TEXT for name in secret - {"GRAFANA_ADMIN_PASSWORD"})
    with_password = {n for n in SERVICES if "GRAFANA_ADMIN_PASSWORD" in str(SERVICES[n])}
    assert with_password == {"grafana"}
    # Without one Grafana would take the password that everybody knows.
    assert "${GRAFANA_ADMIN_PASSWORD:?" in TEXT


@pytest.mark.parametrize("name", sorted(MONITORING))
def test_what_monitoring_sees_of_this_machine_it_can_only_read(name):
    data = {"prometheus-data", "grafana-data", "./.state/monitoring/alertmanager-data"}
    volumes = [
        volume for volume in of_service(name, "volumes", []) if volume.split(":")[0] not in data
    ]
    assert all(volume.endswith(":ro") for volume in volumes)


def test_what_callbacks_write_is_what_the_exporter_reads():
    written = FILE["x-airflow-environment"]["PIPELINE_METRICS_PATH"]
    for name in ("airflow-worker", "airflow-dag-processor"):
        assert f"pipeline-metrics:{written}" in of_service(name, "volumes")
    read = of_service("pipeline-exporter", "volumes")
    assert "pipeline-metrics:/metrics/airflow:ro" in read
    assert "${PROJECT_HOST_PATH:-.}/.state/metrics/workspace:/metrics/workspace:ro" in read
