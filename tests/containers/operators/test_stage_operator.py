"""Stages in containers of a real engine: what they see, how they end, and what is left of them."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from operator_stack import PREFIX, TAG, USER, Stack, finish

from docker_program import docker


def test_a_stage_runs_as_the_checkouts_owner_without_any_privilege(stack: Stack) -> None:
    stack.environment |= {"ADMIN_PASSWORD": "the administrator's", "LOG_LEVEL": "INFO"}
    outcome, message, log = stack.run("train", "look")
    assert outcome == "done", message + log
    (line,) = [line for line in log.splitlines() if "looked" in line]
    facts = json.loads(line[line.index("facts=") + 6 : line.rindex("}") + 1])
    assert facts["user"] == f"{USER}:{USER}"
    assert int(facts["capabilities"], 16) == 0
    assert facts["no_new_privileges"] == "1"
    assert "init" in facts["first_process"]
    assert facts["writes"] == ["/tmp", "/workspace"]
    assert facts["dotenv"] == ""
    assert "LOG_LEVEL" in facts["variables"]
    assert not {"ADMIN_PASSWORD", "DOCKER_HOST"} & set(facts["variables"])
    assert stack.containers() == []
    assert (stack.checkout / ".env").read_text() == "SECRET=of others\n"


@pytest.mark.parametrize(
    ("code", "outcome", "word"),
    [("0", "done", ""), ("99", "skipped", "last word"), ("2", "failed for good", "exit code 2")]
    + [("1", "failed", "exit code 1: the last word")],
)
def test_exit_codes_reach_airflow(stack: Stack, code: str, outcome: str, word: str) -> None:
    found, message, _ = stack.run("train", "exit", code)
    assert (found, word in message) == (outcome, True), message
    assert stack.containers() == []


def test_the_log_comes_line_by_line_while_the_stage_runs(stack: Stack) -> None:
    times = {}
    with stack.start("train", "talk") as process:
        assert process.stdout is not None
        for line in process.stdout:
            for number in range(3):
                if f"line {number}" in line:
                    times[number] = time.monotonic()
    assert times[2] - times[0] > 1.0


def test_no_line_of_a_chatty_stage_is_lost(stack: Stack) -> None:
    outcome, _, log = stack.run("train", "flood")
    assert outcome == "done"
    assert len(re.findall(r"\bline \d+\b", log)) == 20_000
    assert "line 19999" in log


def test_a_stopped_task_stops_its_container(stack: Stack) -> None:
    process = stack.start("train", "wait")
    stack.wait_for(1)
    process.send_signal(signal.SIGTERM)
    outcome, message, _ = finish(process)
    assert (outcome, "143" in message) == ("failed", True), message
    assert (stack.checkout / "asked to stop").exists()
    assert stack.containers() == []


def test_a_task_that_is_killed_five_seconds_after_its_stop_leaves_nothing(stack: Stack) -> None:
    """Airflow does so; the stage does not even react to SIGTERM."""
    process = stack.start("train", "wait", "deaf")
    stack.wait_for(1)
    process.send_signal(signal.SIGTERM)
    time.sleep(2)
    process.kill()
    process.communicate()
    stack.wait_until_gone()


def test_a_task_that_takes_too_long_is_ended_with_its_container(stack: Stack) -> None:
    outcome, _, _ = stack.run("train", "wait", seconds=8)
    assert outcome == "timed out"
    assert stack.containers() == []


def test_after_a_hard_kill_of_the_worker_the_next_try_leaves_no_orphan(stack: Stack) -> None:
    process = stack.start("train", "wait")
    (orphan,) = stack.wait_for(1)
    neighbour = stack.start("train", "wait", map_index=4)
    both = stack.wait_for(2)
    process.kill()
    process.communicate()
    assert orphan in stack.containers(running=True)
    outcome, message, log = stack.run("train", "exit", "0", try_number=2)
    assert outcome == "done", message
    assert "of a lost try" in log
    assert stack.containers() == [one for one in both if one != orphan]
    neighbour.send_signal(signal.SIGTERM)
    neighbour.communicate()
    assert stack.containers() == []


def test_a_worker_that_starts_again_sweeps_what_it_left(stack: Stack) -> None:
    process = stack.start("train", "wait")
    stack.wait_for(1)
    process.kill()
    process.communicate()
    program = Path(process.args[0])  # type: ignore[index]
    dags = Path(__file__).resolve().parents[3] / "airflow" / "dags"
    sweep = [str(program), "-m", "common.sweep"]
    done = subprocess.run(sweep, cwd=dags, env=stack.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "removed: 1" in done.stdout + done.stderr
    stack.wait_until_gone()


def test_a_killed_container_is_a_failure_that_is_explained(stack: Stack) -> None:
    process = stack.start("train", "wait")
    (container,) = stack.wait_for(1)
    docker("kill", container)
    outcome, message, _ = finish(process)
    assert outcome == "failed"
    assert "exit code 137" in message
    assert "STAGE_MEMORY_LIMIT" in message


def test_a_stage_that_needs_more_memory_than_it_may_have_ends(stack: Stack) -> None:
    stack.environment["STAGE_MEMORY_LIMIT"] = "64m"
    outcome, message, _ = stack.run("train", "eat")
    assert outcome == "failed"
    assert "exit code" in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PROJECT_HOST_PATH", "{folder}", "PROJECT_HOST_PATH={folder} is not this project's"),
        ("NETWORK_NAME", "no-such-network", "no network no-such-network"),
        ("TRAIN_GPUS", "all", "gives containers no GPU"),
    ],
)
def test_what_the_engine_refuses_fails_at_once_with_the_fix(
    stack: Stack, tmp_path: Path, name: str, value: str, words: str
) -> None:
    """On the engine itself: compose tells the proxy the same wrong value, which then lets it through."""
    if name == "TRAIN_GPUS" and "nvidia" in docker("info", "--format", "{{.Runtimes}}"):
        pytest.skip("This engine has GPUs to give.")
    folder = tmp_path / "no checkout"
    folder.mkdir()
    stack.environment |= {
        name: value.format(folder=folder),
        "DOCKER_HOST": "unix:///var/run/docker.sock",
    }
    outcome, message, _ = stack.run("train", "exit", "0")
    assert outcome == "failed for good"
    assert words.format(folder=folder) in message
    assert stack.containers() == []


def test_what_is_missing_is_named_with_the_fix(stack: Stack) -> None:
    environment = dict(stack.environment)
    for name, value, word in (
        ("IMAGE_TAG", "missing", "make build"),
        ("DOCKER_HOST", "tcp://127.0.0.1:9", "DOCKER_HOST"),
        ("PROJECT_HOST_PATH", "/somewhere/else", "socket proxy does not allow"),
    ):
        stack.environment = environment | {name: value}
        outcome, message, _ = stack.run("train", "exit", "0")
        assert outcome.startswith("failed"), name
        assert word in message, message


def test_folders_of_data_can_be_read_at_their_own_path(stack: Stack, data_folder: Path) -> None:
    source = str(data_folder / "autumn")
    outcome, message, log = stack.run("ingest", "look", params={"data_source": source})
    assert outcome == "done", message
    assert f'"source": "{source}"' in log
    assert docker("image", "inspect", f"{PREFIX}/ingest:{TAG}")
