"""What `make start` leaves for the container stack's monitoring, and for whom."""

import os
import re
import stat
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from product_classifier.runtime import compose_values
from product_classifier.runtime.compose_start import published_ports
from product_classifier.runtime.compose_values import monitoring_user
from product_classifier.runtime.monitoring import stack
from product_classifier.runtime.monitoring.configuration import write_configuration
from product_classifier.runtime.monitoring.stack import prepare_stack

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkout(layout):
    (layout.root / "monitoring").symlink_to(ROOT / "monitoring")
    return layout


@pytest.fixture
def given(monkeypatch):
    """Who was given which path; nobody really is."""
    found = {}
    monkeypatch.setattr(stack.os, "chown", lambda path, uid, gid: found.update({path: (uid, gid)}))
    return found


def as_user(monkeypatch, uid):
    for module in (stack, compose_values):
        monkeypatch.setattr(module.os, "getuid", lambda: uid)


def test_alertmanagers_configuration_is_private_and_says_when_it_changed(checkout, settings, given):
    before = prepare_stack(checkout, settings)
    assert prepare_stack(checkout, settings) == before
    chosen = settings.model_copy(update={"alert_webhook_url": SecretStr("https://h/the-token")})
    after = prepare_stack(checkout, chosen)
    assert before.keys() == after.keys() == {"ALERTMANAGER_DIGEST"}
    assert before != after  # a label of the container: whoever brings the stack up makes it anew
    assert "the-token" not in str(after)
    folder = checkout.monitoring / "alertmanager-stack"
    path = folder / "alertmanager.yml"
    assert "the-token" in path.read_text()
    # The stack's own log receiver, by its name in the network.
    assert "http://alert-log:9094/" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for private in (folder, checkout.monitoring / "alertmanager-data"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert (checkout.root / ".state" / "metrics" / "workspace").is_dir()


def test_each_runtime_has_a_configuration_of_its_own(checkout, settings, given):
    prepare_stack(checkout, settings)
    write_configuration(checkout, settings, deployed=())
    prepare_stack(checkout, settings)
    logs = {
        path.parent.name: re.findall("http://(.*)/", path.read_text())[0]
        for path in checkout.monitoring.rglob("alertmanager.yml")
    }
    assert logs == {"alertmanager-stack": "alert-log:9094", "alertmanager": "127.0.0.1:9094"}


def test_the_containers_mount_what_is_written_for_them(checkout, settings, given):
    prepare_stack(checkout, settings)
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["alertmanager"]
    sources = [checkout.root / volume.split(":")[0] for volume in service["volumes"]]
    assert [path.is_dir() for path in sources] == [True, True]
    assert (sources[0] / "alertmanager.yml").is_file()
    (name,) = prepare_stack(checkout, settings)
    assert service["labels"]["product-classifier.files"] == f"${{{name}:-}}"


def test_root_gives_them_to_the_user_that_stages_work_as(checkout, settings, given, monkeypatch):
    as_user(monkeypatch, 0)
    chosen = settings.model_copy(update={"stage_user": "1234:5678"})
    assert monitoring_user(chosen, checkout.root) == "1234:5678"
    prepare_stack(checkout, chosen)
    state = checkout.root / ".state"
    assert set(given) >= {
        checkout.monitoring / "alertmanager-stack" / "alertmanager.yml",
        checkout.monitoring / "alertmanager-data",
        # A stage has to get to its folder through all that is above it.
        *(state, state / "metrics", state / "metrics" / "workspace"),
    }
    assert set(given.values()) == {(1234, 5678)}


def test_anybody_else_keeps_them(checkout, settings, given, monkeypatch):
    as_user(monkeypatch, 4711)
    chosen = settings.model_copy(update={"stage_user": "1234:5678"})
    assert monitoring_user(chosen, checkout.root) == f"4711:{os.getgid()}"
    prepare_stack(checkout, chosen)
    assert given == {}


def test_the_stacks_ports_are_looked_at_where_it_has_monitoring(settings):
    wanted = {"PROMETHEUS_PORT", "ALERTMANAGER_PORT", "NODE_EXPORTER_PORT", "GRAFANA_PORT"}
    assert wanted <= set(published_ports(settings))
    off = settings.model_copy(update={"monitoring": "off"})
    assert not wanted & set(published_ports(off))
