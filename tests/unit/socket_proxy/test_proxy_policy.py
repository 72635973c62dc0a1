"""What the socket proxy lets through, and the ways out of a container that it does not."""

import copy
import json
from pathlib import Path
from urllib.parse import urlencode

import pytest
from socket_proxy.creation import ContainerPolicy
from socket_proxy.policy import Policy
from socket_proxy.refusal import Refused
from socket_proxy.settings import Settings, SettingsError

IMAGE = "product-classifier/train:0123456789ab"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "check out"
    (root / "models").mkdir(parents=True)
    (root / "dvc.yaml").touch()
    (root / ".env").touch()
    return root


@pytest.fixture
def environment(checkout: Path) -> dict[str, str]:
    data = checkout.parent / "data"
    data.mkdir()
    return {
        "COMPOSE_PROJECT": "shop",
        "PROJECT_HOST_PATH": str(checkout),
        "DATA_HOST_PATHS": str(data),
        "STAGE_USER": "1000:1000",
    }


@pytest.fixture
def policy(environment: dict[str, str]) -> Policy:
    return Policy(Settings.from_environment(environment))


@pytest.fixture
def stage(checkout: Path) -> dict:
    """The body of a stage's container, as the operator sends it."""
    return {
        "Image": IMAGE,
        "Cmd": ["train"],
        "User": "1000:1000",
        "WorkingDir": "/workspace",
        "Env": ["LOG_LEVEL=INFO"],
        "Labels": {"product-classifier.project": "shop", "product-classifier.role": "stage"},
        "StopTimeout": 10,
        "AttachStdout": True,
        "AttachStderr": True,
        "Hostname": None,
        "Tty": False,
        "HostConfig": {
            "AutoRemove": True,
            "CapDrop": ["ALL"],
            "Init": True,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
            "Mounts": [
                {"Type": "bind", "Source": str(checkout), "Target": "/workspace"},
                {
                    "Type": "bind",
                    "Source": "/dev/null",
                    "Target": "/workspace/.env",
                    "ReadOnly": True,
                },
            ],
            "NetworkMode": "product_classier",
            "PidsLimit": 4096,
            "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges:true"],
            "Tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},
        },
    }


@pytest.fixture
def auth(stage: dict) -> dict:
    body = copy.deepcopy(stage)
    del body["User"], body["HostConfig"]["AutoRemove"]
    body["Image"] = "product-classifier/auth:0123456789ab"
    body["Cmd"] = ["auth"]
    body["Labels"]["product-classifier.role"] = "service"
    body["HostConfig"]["RestartPolicy"] = {"Name": "unless-stopped"}
    body["HostConfig"]["Mounts"] = [
        {"Type": "volume", "Source": "shop_auth-data", "Target": "/var/lib/auth"}
    ]
    endpoint = {"product_classier": {"Aliases": ["auth-backend"]}}
    body["NetworkingConfig"] = {"EndpointsConfig": endpoint}
    return body


def create(policy: Policy, body: object, query: str = "") -> dict:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    decision = policy.decide("POST", f"/v1.44/containers/create{query}", data)
    return json.loads(decision.body)


def put(body: dict, path: str, value: object) -> dict:
    """Sets a field, given by names with dots between them."""
    changed = copy.deepcopy(body)
    *folders, name = path.split(".")
    inner = changed
    for folder in folders:
        inner = inner.setdefault(folder, {})
    inner[name] = value
    return changed


def bound(body: dict, *mounts: dict) -> dict:
    return put(body, "HostConfig.Mounts", [*body["HostConfig"]["Mounts"], *mounts])


def bind(source: object, target: str = "/data", **options: object) -> dict:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True, **options}


def test_what_the_operators_send_is_allowed_and_written_anew(
    policy: Policy, stage: dict, auth: dict
) -> None:
    passed = create(policy, stage)
    assert passed["HostConfig"]["Mounts"] == stage["HostConfig"]["Mounts"]
    assert "Hostname" not in passed
    assert create(policy, auth, "?name=shop-auth-0a1b2c3d")["Cmd"] == ["auth"]


ESCAPES = {
    "privileged": ("HostConfig.Privileged", True),
    "capability": ("HostConfig.CapAdd", ["SYS_ADMIN"]),
    "keeps capabilities": ("HostConfig.CapDrop", ["NET_RAW"]),
    "process namespace": ("HostConfig.PidMode", "host"),
    "neighbour's processes": ("HostConfig.PidMode", "container:postgres"),
    "ipc namespace": ("HostConfig.IpcMode", "host"),
    "uts namespace": ("HostConfig.UTSMode", "host"),
    "user namespace": ("HostConfig.UsernsMode", "host"),
    "cgroup namespace": ("HostConfig.CgroupnsMode", "host"),
    "cgroup parent": ("HostConfig.CgroupParent", "/system.slice"),
    "host network": ("HostConfig.NetworkMode", "host"),
    "neighbour's network": ("HostConfig.NetworkMode", "container:postgres"),
    "other network": ("HostConfig.NetworkMode", "bridge"),
    "device": ("HostConfig.Devices", [{"PathOnHost": "/dev/sda"}]),
    "device rule": ("HostConfig.DeviceCgroupRules", ["b *:* rwm"]),
    "gpu where none is set": (
        "HostConfig.DeviceRequests",
        [{"Count": -1, "Capabilities": [["gpu"]]}],
    ),
    "no seccomp": (
        "HostConfig.SecurityOpt",
        ["no-new-privileges:true", "seccomp=unconfined"],
    ),
    "no apparmor": ("HostConfig.SecurityOpt", ["apparmor=unconfined"]),
    "new privileges": ("HostConfig.SecurityOpt", ["no-new-privileges:false"]),
    "unmasked": ("HostConfig.MaskedPaths", ["/nothing"]),
    "writable kernel": ("HostConfig.ReadonlyPaths", ["/nothing"]),
    "writable root": ("HostConfig.ReadonlyRootfs", False),
    "short binds": ("HostConfig.Binds", ["/:/host"]),
    "volumes from": ("HostConfig.VolumesFrom", ["postgres"]),
    "volume driver": ("HostConfig.VolumeDriver", "local"),
    "runtime": ("HostConfig.Runtime", "runc-other"),
    "kernel setting": ("HostConfig.Sysctls", {"kernel.core_pattern": "|/x"}),
    "storage": ("HostConfig.StorageOpt", {"size": "1000G"}),
    "ports": ("HostConfig.PortBindings", {"80/tcp": [{"HostPort": "80"}]}),
    "all ports": ("HostConfig.PublishAllPorts", True),
    "links": ("HostConfig.Links", ["postgres:x"]),
    "more hosts": ("HostConfig.ExtraHosts", ["postgres:1.2.3.4"]),
    "dns": ("HostConfig.Dns", ["1.2.3.4"]),
    "groups": ("HostConfig.GroupAdd", ["docker"]),
    "processes without end": ("HostConfig.PidsLimit", -1),
    "out of memory order": ("HostConfig.OomScoreAdj", -1000),
    "log driver": ("HostConfig.LogConfig", {"Type": "syslog", "Config": {"x": "1"}}),
    "log file": ("HostConfig.LogConfig", {"Type": "json-file", "Config": {"path": "/x"}}),
    "stays after a restart": ("HostConfig.RestartPolicy", {"Name": "always"}),
    "tmpfs with programs of others": ("HostConfig.Tmpfs", {"/tmp": "rw,suid,dev,exec"}),
    "id file": ("HostConfig.ContainerIDFile", "/etc/cron.d/x"),
    "spelled otherwise": ("HostConfig.privileged", True),
    "host configuration spelled otherwise": ("hostconfig", {"Privileged": True}),
    "root": ("User", "0:0"),
    "root by name": ("User", "root"),
    "other program": ("Entrypoint", ["/bin/sh"]),
    "host name as a neighbour's": ("Hostname", "postgres"),
    "health check as a program": ("Healthcheck", {"Test": ["CMD", "sh"]}),
    "anonymous volume": ("Volumes", {"/x": {}}),
    "address": ("MacAddress", "02:42:ac:11:00:02"),
    "build step": ("OnBuild", ["RUN x"]),
    "other image": ("Image", "alpine:latest"),
    "image by id": ("Image", "sha256:" + "0" * 64),
    "image of another registry": ("Image", "evil.example/product-classifier/train:1"),
    "image with a digest": ("Image", IMAGE + "@sha256:" + "0" * 64),
    "image of the stack": ("Image", "product-classifier/airflow:0123456789ab"),
    "keys' image as a stage": ("Image", "product-classifier/auth:0123456789ab"),
    "no label": ("Labels", {}),
    "neighbour's label": ("Labels", {"product-classifier.project": "other"}),
    "compose's label": (
        "Labels",
        {
            "product-classifier.project": "shop",
            "product-classifier.role": "stage",
            "com.docker.compose.project": "shop",
        },
    ),
    "alias of a neighbour": (
        "NetworkingConfig.EndpointsConfig",
        {"product_classier": {"Aliases": ["postgres"]}},
    ),
    "address of a neighbour": (
        "NetworkingConfig.EndpointsConfig",
        {"product_classier": {"IPAMConfig": {"IPv4Address": "172.18.0.2"}}},
    ),
    "second network": ("NetworkingConfig.EndpointsConfig", {"engine": {"DriverOpts": {"a": "b"}}}),
}


@pytest.mark.parametrize(("path", "value"), ESCAPES.values(), ids=ESCAPES)
def test_a_way_out_of_the_container_is_refused(
    policy: Policy, stage: dict, path: str, value: object
) -> None:
    with pytest.raises(Refused):
        create(policy, put(stage, path, value))


@pytest.mark.parametrize(
    "field", ["CapDrop", "Mounts", "NetworkMode", "PidsLimit", "ReadonlyRootfs", "SecurityOpt"]
)
def test_hardening_may_not_be_left_out(policy: Policy, stage: dict, field: str) -> None:
    del stage["HostConfig"][field]
    with pytest.raises(Refused, match=field):
        create(policy, stage)


@pytest.mark.parametrize(
    "source",
    [
        "/",
        "/etc",
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/proc",
        "{root}/..",
        "{root}/../other",
        "{root}/./models",
        "{root}//models",
        "{root} and more",
        "{root}/.env",
        "{root}/.git",
        "models",
        "",
        "/dev/sda",
        "/dev/null/../sda",
    ],
)
def test_other_folders_of_the_host_are_refused(
    policy: Policy, stage: dict, checkout: Path, source: str
) -> None:
    with pytest.raises(Refused):
        create(policy, bound(stage, bind(source.format(root=checkout))))


def test_folders_of_the_checkout_and_of_data_may_be_read_and_not_written(
    policy: Policy, stage: dict, checkout: Path
) -> None:
    for source in (checkout / "models", checkout / "dvc.yaml", checkout.parent / "data" / "autumn"):
        assert create(policy, bound(stage, bind(source)))
        with pytest.raises(Refused):
            create(policy, bound(stage, bind(source, ReadOnly=False)))


def test_a_symlink_that_a_stage_laid_leads_nowhere(
    policy: Policy, stage: dict, checkout: Path
) -> None:
    (checkout / "exit").symlink_to("/")
    (checkout.parent / "data" / "exit").symlink_to("/etc")
    for source in ("exit", "exit/etc", "../data/exit"):
        path = (checkout / source).resolve() if source.startswith("..") else checkout / source
        path = checkout.parent / "data" / "exit" if source.startswith("..") else path
        with pytest.raises(Refused, match="symlink"):
            create(policy, bound(stage, bind(path)))


def test_a_checkout_that_is_not_seen_can_only_be_bound_as_a_whole(
    environment: dict[str, str], stage: dict
) -> None:
    policy = Policy(Settings.from_environment(environment | {"PROJECT_HOST_PATH": "/elsewhere/x"}))
    stage["HostConfig"]["Mounts"][0]["Source"] = "/elsewhere/x"
    assert create(policy, stage)
    with pytest.raises(Refused, match="not mounted into the socket proxy"):
        create(policy, bound(stage, bind("/elsewhere/x/models")))


def test_the_checkouts_dotenv_stays_covered(policy: Policy, stage: dict) -> None:
    stage["HostConfig"]["Mounts"].pop()
    with pytest.raises(Refused, match=r"\.env"):
        create(policy, stage)


@pytest.mark.parametrize(
    "options",
    [
        {"BindOptions": {"Propagation": "shared"}},
        {"Type": "volume", "Source": "shop_postgres-data"},
        {"Type": "volume", "Source": "shop_auth-data", "Target": "/var/lib/auth"},
        {"Type": "tmpfs"},
        {"Type": "image", "Source": "alpine"},
        {"VolumeOptions": {"DriverConfig": {"Options": {"device": "/", "o": "bind"}}}},
        {"TmpfsOptions": {"Mode": 511}},
        {"Consistency": "cached"},
    ],
)
def test_other_kinds_of_mounts_are_refused(
    policy: Policy, stage: dict, checkout: Path, options: dict
) -> None:
    with pytest.raises(Refused):
        create(policy, bound(stage, bind(checkout / "models") | options))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Cmd", ["auth", "add-user", "mallory", "--role", "admin"]),
        ("NetworkingConfig.EndpointsConfig", {"product_classier": {"Aliases": ["postgres"]}}),
        ("NetworkingConfig.EndpointsConfig", {"product_classier": {"Aliases": ["serve-backend"]}}),
        ("HostConfig.RestartPolicy", {"Name": "always"}),
        ("Image", "product-classifier/train:0123456789ab"),
    ],
)
def test_auth_is_only_ever_auth(policy: Policy, auth: dict, path: str, value: object) -> None:
    with pytest.raises(Refused):
        create(policy, put(auth, path, value))


def test_the_keys_see_no_folder_of_the_host(policy: Policy, auth: dict, checkout: Path) -> None:
    with pytest.raises(Refused):
        create(policy, bound(auth, bind(checkout / "models")))


@pytest.mark.parametrize("name", ["postgres", "shop-auth-1", "shop-serve-0a1b2c3d", "x/y", "shop"])
def test_a_name_that_dns_would_give_to_others_is_refused(
    policy: Policy, auth: dict, name: str
) -> None:
    with pytest.raises(Refused):
        create(policy, auth, "?" + urlencode({"name": name}))


def test_a_name_twice_is_refused_in_body_and_query(policy: Policy, stage: dict, auth: dict) -> None:
    text = json.dumps(stage)
    with pytest.raises(Refused, match="twice"):
        create(policy, (text[:-1] + ', "Image": "alpine"}').encode())
    with pytest.raises(Refused, match="twice"):
        create(policy, auth, "?name=shop-auth-0a1b2c3d&name=postgres")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(policy: Policy, body: bytes) -> None:
    with pytest.raises(Refused):
        create(policy, body)


def test_gpus_are_allowed_where_they_are_set(environment: dict[str, str], stage: dict) -> None:
    policy = Policy(Settings.from_environment(environment | {"TRAIN_GPUS": "all"}))
    request = {"Driver": "", "Count": -1, "Capabilities": [["gpu"]], "DeviceIDs": None}
    assert create(policy, put(stage, "HostConfig.DeviceRequests", [request]))
    for wrong in ([{"Count": 1}], [request | {"Capabilities": [["cdi"]]}], [{"Driver": "cdi"}]):
        with pytest.raises(Refused):
            create(policy, put(stage, "HostConfig.DeviceRequests", wrong))


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "sent"),
    [
        ("GET", "/_ping", "/_ping"),
        ("GET", "/version", "/version"),
        ("GET", "/v1.44/images/product-classifier/train:1/json", None),
        ("GET", "/v1.44/networks/product_classier", None),
        ("GET", "/containers/abc/json", "/containers/{container}/json"),
        ("POST", "/v1.44/containers/abc/start", "/v1.44/containers/{container}/start"),
        ("POST", "/containers/abc/stop?t=10", "/containers/{container}/stop?t=10"),
        ("DELETE", "/containers/abc?v=False&link=False&force=True", None),
        ("POST", "/containers/abc/attach?stdout=1&stderr=1&stream=1&logs=0", None),
        ("GET", "/containers/abc/archive?path=/workspace/models/champion.json", None),
    ],
)
def test_what_the_pipeline_needs_is_passed_on(
    policy: Policy, method: str, target: str, sent: str | None
) -> None:
    decision = policy.decide(method, target, b"ignored")
    assert decision.body == b""
    assert sent is None or decision.path == sent
    assert (decision.container == "abc") == ("/containers/abc" in target)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/build"),
        ("POST", "/session"),
        ("POST", "/grpc"),
        ("POST", "/images/create?fromImage=alpine"),
        ("POST", "/images/load"),
        ("DELETE", "/images/product-classifier/train:1"),
        ("POST", "/images/product-classifier/train:1/tag?repo=x"),
        ("GET", "/images/json"),
        ("GET", "/images/alpine/json"),
        ("POST", "/commit?container=abc"),
        ("POST", "/containers/abc/exec"),
        ("POST", "/exec/abc/start"),
        ("POST", "/containers/abc/update"),
        ("POST", "/containers/abc/rename?name=postgres"),
        ("POST", "/containers/prune"),
        ("PUT", "/containers/abc/archive?path=/"),
        ("GET", "/containers/abc/archive?path=/var/lib/auth"),
        ("GET", "/containers/abc/archive?path=/workspace/models/../../var/lib/auth/keys.json"),
        ("GET", "/containers/abc/export"),
        ("POST", "/containers/abc/attach?stdin=1&stream=1"),
        ("GET", "/containers/abc/attach/ws"),
        ("POST", "/containers/abc/start?detachKeys=x"),
        ("DELETE", "/containers/abc?v=1"),
        ("POST", "/volumes/create"),
        ("GET", "/volumes"),
        ("DELETE", "/volumes/shop_auth-data"),
        ("POST", "/networks/create"),
        ("POST", "/networks/product_classier/connect"),
        ("GET", "/networks"),
        ("GET", "/networks/bridge"),
        ("POST", "/swarm/init"),
        ("POST", "/services/create"),
        ("GET", "/secrets"),
        ("GET", "/configs"),
        ("POST", "/plugins/pull?remote=x"),
        ("GET", "/info"),
        ("GET", "/events"),
        ("GET", "/system/df"),
        ("POST", "/auth"),
        ("GET", "/v1.23/containers/json"),
        ("POST", "/v1.18/containers/abc/start"),
        ("GET", "/v1.44/v1.44/_ping"),
        ("GET", "/containers/../images/json"),
        ("GET", "/containers/abc%2f..%2f..%2fimages/json"),
        ("GET", "/containers/abc/json/"),
        ("GET", "//containers/abc/json"),
        ("GET", "http://docker/containers/abc/json"),
        ("GET", "/containers/abc/json?size=1"),
        ("GET", "/containers/abc\r\nX: y/json"),
        ("GET", ""),
        ("HEAD", "/containers/abc/archive?path=/workspace/models/champion.json"),
        ("OPTIONS", "/_ping"),
    ],
)
def test_anything_else_is_refused(policy: Policy, method: str, target: str) -> None:
    with pytest.raises(Refused):
        policy.decide(method, target, b"{}")


def test_only_the_projects_own_containers_are_listed(policy: Policy) -> None:
    own = "product-classifier.project=shop"
    for filters in ("{}", '{"label": ["a=b"]}', '{"label": {"a=b": true}}'):
        query = urlencode({"filters": filters, "all": 1, "size": 0, "limit": -1, "trunc_cmd": 0})
        path = policy.decide("GET", f"/v1.44/containers/json?{query}", b"").path
        assert urlencode({"": own})[1:] in path
    for filters in ('{"ancestor": ["alpine"]}', '{"label": [1]}', "[]", "x"):
        with pytest.raises(Refused):
            policy.decide("GET", "/containers/json?" + urlencode({"filters": filters}), b"")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COMPOSE_PROJECT", ""),
        ("PROJECT_HOST_PATH", ""),
        ("PROJECT_HOST_PATH", "check/out"),
        ("PROJECT_HOST_PATH", "/"),
        ("PROJECT_HOST_PATH", "/home/../"),
        ("PROJECT_HOST_PATH", "/etc"),
        ("PROJECT_HOST_PATH", "/var/run"),
        ("DATA_HOST_PATHS", "/srv/data,/var/lib/docker/volumes"),
        ("DATA_HOST_PATHS", "/proc/1/root"),
    ],
)
def test_settings_that_would_open_the_host_stop_the_proxy(
    environment: dict[str, str], name: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment(environment | {name: value})


def test_nobody_named_means_the_images_own_user(environment: dict[str, str], stage: dict) -> None:
    settings = Settings.from_environment(
        {n: v for n, v in environment.items() if n != "STAGE_USER"}
    )
    policy = ContainerPolicy(settings)
    with pytest.raises(Refused, match="STAGE_USER"):
        policy.check(json.dumps(stage).encode(), None)
    del stage["User"]
    assert policy.check(json.dumps(stage).encode(), None)
