"""The docker runtime without an engine: what is asked of it, and what its answers lead to."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from common import service_operator
from common.container_operator import StageDockerOperator
from common.containers import ContainerRuntime, trusted_neighbours
from common.engine import output_lines
from common.operators import StageProcessOperator
from common.service_operator import ServiceOperator
from common.stage import _operator
from fake_engine import FakeEngine, api_error

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "containers" / "socket-proxy"))
from socket_proxy.creation import ContainerPolicy  # noqa: E402
from socket_proxy.settings import Settings  # noqa: E402

WORKER = {
    "IMAGE_TAG": "abc123",
    "NETWORK_NAME": "product_classier",
    "COMPOSE_PROJECT": "shop",
    "STAGE_USER": "1000:1000",
    "DATA_HOST_PATHS": "/srv/catalogues,/srv/photos",
    "AWS_SECRET_ACCESS_KEY": "the store's key",
    "ADMIN_PASSWORD": "the administrator's",
    "SMOKE_PASSWORD": "the smoke user's",
    "AUTH_DATABASE_URL": "postgresql://x",
    "REDIS_URL": "redis://x",
    "AIRFLOW__CORE__FERNET_KEY": "Airflow's own",
    "DOCKER_HOST": "tcp://socket-proxy:2375",
}


@pytest.fixture
def checkout(tmp_path):
    for name in ("models", "shared models"):
        (tmp_path / name).mkdir()
    (tmp_path / "dvc.yaml").touch()
    return tmp_path


@pytest.fixture
def worker(monkeypatch, checkout):
    for name, value in (WORKER | {"PROJECT_HOST_PATH": str(checkout)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ALGORITHM", raising=False)
    return monkeypatch


def context(**params):
    ti = SimpleNamespace(
        dag_id="ml_pipeline", run_id="r 1", task_id="group.run", try_number=2, map_index=-1
    )
    return {"ti": ti, "params": params, "dag_run": SimpleNamespace(clear_number=0)}


def operator(kind, engine, **options):
    made = kind(task_id="run", **options)
    made.__dict__["hook"] = SimpleNamespace(api_client=engine, client_created=True)
    return made


def stage(engine, name="train", action="run", command=None):
    return operator(
        StageDockerOperator, engine, stage=name, action=action, command=command or [name]
    )


def mounts(body):
    return {
        m["Target"]: (m["Source"], m.get("ReadOnly", False)) for m in body["HostConfig"]["Mounts"]
    }


def variables(body):
    return dict(entry.split("=", 1) for entry in body["Env"])


def proxy(checkout, **options):
    environment = {
        "COMPOSE_PROJECT": "shop",
        "PROJECT_HOST_PATH": str(checkout),
        "DATA_HOST_PATHS": WORKER["DATA_HOST_PATHS"],
        "STAGE_USER": "1000:1000",
    }
    return ContainerPolicy(Settings.from_environment(environment | options))


def as_json(body):
    return json.dumps(body).encode()


def test_the_switch_between_the_runtimes_is_in_one_place(monkeypatch):
    kinds = {}
    for runtime in ("process", "docker"):
        monkeypatch.setenv("PIPELINE_RUNTIME", runtime)
        kinds[runtime] = [_operator(action) for action in ("run", "deploy")]
    assert kinds == {
        "process": [StageProcessOperator, StageProcessOperator],
        "docker": [StageDockerOperator, ServiceOperator],
    }


def test_a_stage_runs_its_command_in_its_image_with_nothing_it_does_not_need(worker, checkout):
    engine = FakeEngine(output=[b'{"level": "INFO", "mess', b'age": "done"}\nplain\n'])
    stage(engine, command=["train", ""]).execute(context())
    (body,) = engine.bodies.values()
    host = body["HostConfig"]
    assert body["Image"] == "product-classifier/train:abc123"
    assert body["Cmd"] == ["train"]
    assert body["User"] == "1000:1000"
    assert host["NetworkMode"] == "product_classier"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["ReadonlyRootfs"], host["Init"], host["AutoRemove"]) == (True, True, True)
    assert host["PidsLimit"] > 0
    assert "/tmp" in host["Tmpfs"]
    assert mounts(body) == {
        "/workspace": (str(checkout), False),
        "/workspace/dvc.yaml": (f"{checkout}/dvc.yaml", True),
        "/workspace/.env": ("/dev/null", True),
    }
    assert body["Labels"]["product-classifier.project"] == "shop"
    assert body["Labels"]["product-classifier.role"] == "stage"
    assert body["Labels"]["product-classifier.run"] == "r 1"
    assert engine.names == {"container0": None}
    # Attached and waited for before it starts; the engine removes it when it ends.
    assert [call[0] for call in engine.calls] == ["create", "attach", "wait", "start"]
    assert engine.calls[2][2] == {"condition": "removed"}


@pytest.mark.parametrize(
    ("action", "seen", "unseen"),
    [
        ("run", {"AWS_SECRET_ACCESS_KEY"}, {"SMOKE_PASSWORD", "ADMIN_PASSWORD", "REDIS_URL"}),
        ("smoke", {"SMOKE_PASSWORD"}, {"AWS_SECRET_ACCESS_KEY", "ADMIN_PASSWORD"}),
    ],
)
def test_a_stage_is_told_its_secrets_and_no_other(worker, action, seen, unseen):
    engine = FakeEngine()
    stage(engine, action=action).execute(context())
    told = set(variables(engine.bodies["container0"]))
    assert seen <= told
    assert not told & (unseen | {"AIRFLOW__CORE__FERNET_KEY", "DOCKER_HOST", "PROJECT_HOST_PATH"})


def test_paths_below_the_checkout_are_named_as_the_container_sees_them(worker, checkout):
    worker.setenv("DATA_SOURCE", f"{checkout}/data/mine")
    engine = FakeEngine()
    stage(engine, "ingest").execute(context())
    body = engine.bodies["container0"]
    assert variables(body)["DATA_SOURCE"] == "/workspace/data/mine"
    assert len(mounts(body)) == 3


def test_a_folder_of_data_is_bound_for_reading_at_its_own_path(worker):
    engine = FakeEngine()
    stage(engine, "ingest").execute(context(data_source="/srv/catalogues/autumn"))
    found = mounts(engine.bodies["container0"])
    assert found["/srv/catalogues/autumn"] == ("/srv/catalogues/autumn", True)


@pytest.mark.parametrize("path", ["/etc", "/srv/catalogues/../other", "/srv/catalogues2"])
def test_a_folder_outside_the_allowed_ones_is_refused_with_what_to_do(worker, path):
    with pytest.raises(AirflowFailException, match="DATA_HOST_PATHS"):
        stage(FakeEngine(), "ingest").execute(context(data_source=path))


@pytest.mark.parametrize(
    ("code", "outcome", "words"),
    [
        (99, AirflowSkipException, "nothing to do here"),
        (2, AirflowFailException, "exit code 2: the column is missing"),
        (1, AirflowException, "exit code 1: the column is missing"),
        (137, AirflowException, "exit code 137"),
    ],
)
def test_exit_codes_mean_the_same_as_in_the_process_runtime(worker, code, outcome, words):
    last = "nothing to do here" if code == 99 else "the column is missing"
    level = "INFO" if code == 99 else "ERROR"
    line = f'{{"level": "{level}", "message": "{last}"}}\n'
    with pytest.raises(outcome, match=words) as caught:
        stage(FakeEngine(output=[line.encode()], code=code)).execute(context())
    assert type(caught.value) is outcome


def test_a_container_killed_from_outside_is_explained(worker):
    with pytest.raises(AirflowException, match="STAGE_MEMORY_LIMIT"):
        stage(FakeEngine(code=137)).execute(context())


def test_output_is_cut_into_lines_wherever_it_was_split():
    text = 'é\n\n{"a": 1}\r\nlast'.encode()
    for size in (1, 2, 3, 100):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        assert list(output_lines(chunks)) == ["é", '{"a": 1}', "last"]
    assert list(output_lines([b"\xff\n"])) == ["\N{REPLACEMENT CHARACTER}"]


def earlier(**labels):
    given = {
        "project": "shop",
        "role": "stage",
        "dag": "ml_pipeline",
        "run": "r 1",
        "task": "group.run",
        "shard": "-1",
        "try": "1",
    } | labels
    found = {f"product-classifier.{name}": value for name, value in given.items()}
    return {"Id": "-".join(labels.values()) or "earlier", "Labels": found}


def test_the_container_of_a_lost_try_is_removed_before_the_next_one_starts(worker):
    engine = FakeEngine()
    engine.found = [
        earlier(),
        earlier(task="group.other"),
        earlier(shard="3"),
        earlier(project="neighbour"),
        earlier(role="service"),
        earlier(run="r 0"),
    ]
    stage(engine).execute(context())
    removed = [call[1] for call in engine.calls if call[0] == "remove"]
    assert removed == ["earlier"]
    stopped = [call[0] for call in engine.calls].index("stop")
    assert stopped < [call[0] for call in engine.calls].index("create")


def test_what_an_earlier_run_left_is_removed_where_runs_follow_one_another(worker):
    engine = FakeEngine()
    engine.found = [earlier(run="r 0", task="group.other")]
    made = stage(engine)
    made._one_run_at_a_time = True
    assert made._is_stale(engine.found[0]["Labels"], made._run_environment(context()))
    made._one_run_at_a_time = False
    assert not made._is_stale(engine.found[0]["Labels"], made._run_environment(context()))


def test_a_stopped_task_stops_its_container(worker):
    engine = FakeEngine()
    made = stage(engine)

    def output():
        made.on_kill()
        yield b""

    engine.attach = lambda container, **options: output()
    engine.code = 143
    with pytest.raises(AirflowException, match="143"):
        made.execute(context())
    assert ("stop", "container0", 10) in engine.calls


def test_a_fault_while_it_runs_leaves_no_container(worker):
    engine = FakeEngine()

    def output():
        yield b"begun\n"
        raise TimeoutError("Airflow's execution_timeout")

    engine.attach = lambda container, **options: output()
    with pytest.raises(TimeoutError):
        stage(engine).execute(context())
    assert ("remove", "container0") in engine.calls


@pytest.mark.parametrize(
    ("status", "said", "advice"),
    [
        (400, "invalid mount: bind source path does not exist: {}/dvc.yaml", "PROJECT_HOST_PATH="),
        (404, "No such image: product-classifier/train:abc123", "make build"),
        (404, "network product_classier not found", "NETWORK_NAME"),
        (403, "socket proxy: not allowed", "socket proxy does not allow"),
        (500, 'could not select device driver "" with capabilities: [[gpu]]', "TRAIN_GPUS"),
    ],
)
def test_what_the_engine_refuses_names_the_fix_and_is_not_tried_again(
    worker, checkout, status, said, advice
):
    engine = FakeEngine()
    engine.refusal = api_error(status, said.format(checkout))
    with pytest.raises(AirflowFailException, match=advice):
        stage(engine).execute(context())


def test_a_busy_engine_is_tried_again(worker):
    engine = FakeEngine()
    engine.refusal = api_error(500, "the storage is busy")
    with pytest.raises(AirflowException, match="busy") as caught:
        stage(engine).execute(context())
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("missing", ["PROJECT_HOST_PATH", "IMAGE_TAG", "COMPOSE_PROJECT"])
def test_a_worker_without_what_it_needs_says_so(worker, missing):
    worker.delenv(missing)
    with pytest.raises(AirflowFailException, match=missing):
        stage(FakeEngine()).execute(context())


def test_only_training_gets_gpus_and_only_where_they_are_set(worker):
    for gpus, count in (("all", -1), ("2", 2)):
        worker.setenv("TRAIN_GPUS", gpus)
        engine = FakeEngine()
        stage(engine).execute(context())
        stage(engine, "predict").execute(context())
        stage(engine, "train", "check").execute(context())
        train, *others = engine.bodies.values()
        (request,) = train["HostConfig"]["DeviceRequests"]
        assert (request["Count"], request["Capabilities"]) == (count, [["gpu"]])
        assert not any("DeviceRequests" in body["HostConfig"] for body in others)


def test_limits_are_as_set(worker):
    worker.setenv("STAGE_MEMORY_LIMIT", "2g")
    worker.setenv("STAGE_CPUS", "1.5")
    engine = FakeEngine()
    stage(engine).execute(context())
    host = engine.bodies["container0"]["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (2 * 1024**3, 2 * 1024**3)
    assert host["NanoCpus"] == 1_500_000_000


def test_root_is_warned_about(worker, capsys):
    worker.setenv("STAGE_USER", "0:0")
    stage(FakeEngine()).execute(context())
    assert "works as root" in capsys.readouterr().out


# --- services -----------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(service_operator, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(service_operator, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(service_operator, "READY_SECONDS", 0.05)
    return monkeypatch


def service(engine, name, missing=None):
    made = operator(ServiceOperator, engine, stage=name, action="deploy", command=["deploy", name])
    made._missing = lambda container, details: missing
    return made


def running(engine, body, identity="old"):
    return {"Id": identity, "Labels": body["Labels"], "State": "running"}


def test_a_service_is_made_under_the_alias_that_the_gateway_looks_for(worker, quick, checkout):
    engine = FakeEngine()
    service(engine, "serve").execute(context())
    (body,) = engine.bodies.values()
    assert body["Cmd"] == ["serve"]
    assert body["StopTimeout"] == 40
    assert body["HostConfig"]["RestartPolicy"] == {"Name": "unless-stopped"}
    endpoint = body["NetworkingConfig"]["EndpointsConfig"]["product_classier"]
    assert endpoint["Aliases"] == ["serve-backend"]
    assert mounts(body) == {"/workspace/models": (f"{checkout}/models", True)}
    told = variables(body)
    assert (told["SERVE_HOST"], told["SERVE_PORT"]) == ("0.0.0.0", "8000")
    assert told["AUTH_URL"] == "http://auth_service_container:8011"
    assert not {"ADMIN_PASSWORD", "SMOKE_PASSWORD", "AWS_SECRET_ACCESS_KEY"} & set(told)
    assert not any(call[0] == "stop" for call in engine.calls)


def test_auth_gets_its_keys_volume_and_no_folder_of_the_host(worker, quick):
    engine = FakeEngine()
    service(engine, "auth").execute(context())
    (body,) = engine.bodies.values()
    assert mounts(body) == {"/var/lib/auth": ("shop_auth-data", False)}
    told = variables(body)
    assert told["AUTH_DATA_PATH"] == "/var/lib/auth"
    assert {"ADMIN_PASSWORD", "AUTH_DATABASE_URL", "SMOKE_PASSWORD"} <= set(told)
    assert not {"REDIS_URL", "AWS_SECRET_ACCESS_KEY"} & set(told)


def test_an_unchanged_service_is_left_alone(worker, quick):
    engine = FakeEngine()
    service(engine, "auth").execute(context())
    engine.found = [running(engine, engine.bodies["container0"])]
    engine.calls.clear()
    service(engine, "auth").execute(context())
    assert engine.calls == []


@pytest.mark.parametrize("change", ["image", "setting"])
def test_a_changed_one_is_replaced_and_the_old_one_drained_after_the_new_is_ready(
    worker, quick, change
):
    engine = FakeEngine()
    service(engine, "auth").execute(context())
    engine.found = [running(engine, engine.bodies["container0"])]
    engine.calls.clear()
    if change == "image":
        engine.image_id = "sha256:2"
    else:
        worker.setenv("LOGIN_QUEUE", "3")
    service(engine, "auth").execute(context())
    assert engine.calls == [
        ("create", "container1"),
        ("start", "container1"),
        ("stop", "old", 40),
        ("remove", "old"),
    ]


def test_a_failed_deployment_leaves_the_one_before_it_serving(worker, quick):
    engine = FakeEngine()
    engine.found = [
        {
            "Id": "old",
            "State": "running",
            "Labels": {
                "product-classifier.project": "shop",
                "product-classifier.role": "service",
                "product-classifier.name": "serve",
            },
        }
    ]
    with pytest.raises(AirflowException, match="not ready") as caught:
        service(engine, "serve", missing="/ready answers 503").execute(context())
    assert "goes on serving" in str(caught.value)
    assert "a line of its log" in str(caught.value)
    ended = [call[1] for call in engine.calls if call[0] in ("stop", "remove")]
    assert set(ended) == {"container0"}


def test_a_service_that_refuses_its_settings_is_not_tried_again(worker, quick):
    engine = FakeEngine()
    engine.inspect_container = lambda container: {
        "State": {"Running": False, "ExitCode": 2},
        "RestartCount": 1,
        "Config": {},
    }
    with pytest.raises(AirflowFailException, match="refuses its settings"):
        service(engine, "auth").execute(context())


@pytest.mark.parametrize(("code", "outcome"), [(2, AirflowFailException), (1, AirflowException)])
def test_a_service_that_runs_again_and_again_is_judged_by_its_next_end(
    worker, quick, code, outcome
):
    engine = FakeEngine()
    engine.inspect_container = lambda container: {
        "State": {"Running": True, "ExitCode": 0},
        "RestartCount": 3,
    }
    engine.wait = lambda container, **options: {"StatusCode": code}
    with pytest.raises(AirflowException, match=f"exit code {code}") as caught:
        service(engine, "auth").execute(context())
    assert type(caught.value) is outcome


def test_serve_is_waited_for_until_it_has_the_champion(worker):
    engine = FakeEngine()
    made = operator(ServiceOperator, engine, stage="serve", action="deploy", command=["deploy"])
    assert made._champion("container0") == "0123456789abcdef"


def test_neighbours_are_trusted_and_the_bridge_is_not():
    config = [{"Subnet": "172.20.0.0/29", "Gateway": "172.20.0.1"}]
    trusted = trusted_neighbours({"IPAM": {"Config": config}})
    assert trusted == "172.20.0.0/32,172.20.0.2/31,172.20.0.4/30"
    assert trusted_neighbours({}) == ""


# --- what the operators ask, the proxy allows -----------------------------------------------------


@pytest.mark.parametrize("setting", [{}, {"STAGE_CPUS": "2", "STAGE_MEMORY_LIMIT": "4g"}])
def test_the_socket_proxy_allows_every_container_of_the_operators(worker, quick, checkout, setting):
    for name, value in setting.items():
        worker.setenv(name, value)
    worker.setenv("TRAIN_GPUS", "all")
    engine = FakeEngine()
    for name in ("ingest", "train", "predict"):
        stage(engine, name).execute(context(data_source="/srv/catalogues/autumn"))
    stage(engine, "serve", "smoke").execute(context())
    service(engine, "auth").execute(context())
    service(engine, "serve").execute(context())
    assert len(engine.bodies) == 6
    policy = proxy(checkout, TRAIN_GPUS="all")
    for container, body in engine.bodies.items():
        assert policy.check(as_json(body), engine.names[container])


def test_the_worker_reads_its_environment_when_a_task_runs(checkout):
    given = WORKER | {"PROJECT_HOST_PATH": str(checkout) + "/"}
    runtime = ContainerRuntime.from_environment(given)
    assert runtime.host_path == str(checkout)
    assert runtime.data_paths == ("/srv/catalogues", "/srv/photos")
    assert runtime.image("train") == "product-classifier/train:abc123"
