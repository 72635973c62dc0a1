"""A real supervisor with small services."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from product_classifier.core.errors import RuntimeServiceError
from product_classifier.runtime.layout import STATE_VARIABLE
from product_classifier.runtime.services import Service
from product_classifier.runtime.supervision import Supervisor

# A leader that starts a child in its own group; `stubborn` children ignore SIGTERM.
TREE = """
import os, signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", code])
time.sleep(600)
"""


def service(layout, name, *arguments, **environment):
    environment = {STATE_VARIABLE: str(layout.state), **environment}
    command = (sys.executable, "-c", TREE, *arguments)
    return Service(name, command, layout.state, environment, stop_seconds=1)


@pytest.fixture
def supervisor(layout):
    supervisor = Supervisor(layout)
    yield supervisor
    supervisor.stop()


def until(fact, seconds=120):
    deadline = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def lives(process):
    """Says whether a process still runs; one that has ended waits for a moment until its parent takes note."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(supervisor, name):
    """Waits until leader and child of a service run, and gives both."""

    def both():
        leader = psutil.Process(supervisor.states()[name].pid)
        children = leader.children()
        return [leader, *children] if children else None

    return until(both)


def test_services_start_once_and_only_what_changed_starts_again(supervisor, layout):
    one, two = service(layout, "one"), service(layout, "two")
    assert sorted(supervisor.apply([one, two])) == ["one", "two"]
    pids = {name: state.pid for name, state in supervisor.states().items()}
    assert supervisor.apply([one, two]) == []
    assert supervisor.apply([one, service(layout, "two", LEVEL="new")]) == ["two"]
    after = {name: state.pid for name, state in supervisor.states().items()}
    assert after["one"] == pids["one"]
    assert after["two"] != pids["two"]
    supervisor.apply([one])
    assert set(supervisor.states()) == {"one"}


def test_a_service_is_added_beside_the_others_and_replaced_alone(supervisor, layout):
    supervisor.apply([service(layout, "one")])
    pid = supervisor.states()["one"].pid
    assert supervisor.add(service(layout, "two")) is True
    assert supervisor.add(service(layout, "two")) is False
    second = supervisor.states()["two"].pid
    assert supervisor.add(service(layout, "two", LEVEL="new")) is True
    states = supervisor.states()
    assert states["one"].pid == pid
    assert states["two"].pid != second
    # A start that knows nothing of it leaves it alone where it is told to.
    assert supervisor.apply([service(layout, "one")], keep=lambda: ["two"]) == []
    assert supervisor.states()["two"].pid == states["two"].pid
    supervisor.apply([service(layout, "one")])
    assert set(supervisor.states()) == {"one"}


def test_nothing_is_added_where_no_supervisor_runs(supervisor, layout):
    with pytest.raises(RuntimeServiceError, match="No supervisor runs"):
        supervisor.add(service(layout, "one"))


def test_services_of_an_older_version_are_not_swept_away(supervisor, layout):
    supervisor.apply([service(layout, "one")])
    (layout.services / "one.conf").unlink()
    with pytest.raises(RuntimeServiceError, match="older version"):
        supervisor.add(service(layout, "two"))
    assert supervisor.states()["one"].alive


def test_changes_at_the_same_time_all_count(supervisor, layout):
    supervisor.apply([service(layout, "one")])
    names = [f"extra{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda name: supervisor.add(service(layout, name)), names))
    assert set(supervisor.states()) == {"one", *names}


def test_stop_leaves_no_process_not_even_stubborn_children(supervisor, layout):
    supervisor.apply([service(layout, "one", "stubborn")])
    processes = family(supervisor, "one")
    assert supervisor.stop() is True
    assert not any(lives(process) for process in processes)
    assert supervisor.marked_processes() == []
    assert not supervisor.layout.socket.parent.exists()
    assert supervisor.stop() is False


def test_a_killed_leader_comes_back_without_its_old_children(supervisor, layout):
    supervisor.apply([service(layout, "one")])
    leader, orphan = family(supervisor, "one")
    leader.send_signal(signal.SIGKILL)
    psutil.wait_procs([leader], timeout=60)

    def restarted():
        state = supervisor.states()["one"]
        return state.pid and state.pid != leader.pid

    until(restarted)
    until(lambda: not lives(orphan))


def test_a_killed_supervisors_services_are_ended_by_the_next_start(supervisor, layout):
    supervisor.apply([service(layout, "one")])
    processes = family(supervisor, "one")
    os.kill(supervisor.call("getPID"), signal.SIGKILL)
    until(lambda: not supervisor.answers())
    assert supervisor.apply([service(layout, "one")]) == ["one"]
    until(lambda: not any(lives(process) for process in processes))


def test_what_runs_is_kept_private(supervisor, layout):
    supervisor.apply([service(layout, "one", TOKEN="top secret")])
    specification = layout.services / "one.json"
    assert "top secret" in specification.read_text()
    assert specification.stat().st_mode & 0o077 == 0
    assert "top secret" not in (layout.state / "supervisord.conf").read_text()
    for process in supervisor.marked_processes():
        assert "top secret" not in " ".join(process.cmdline())


def test_a_folder_for_the_socket_that_others_can_write_is_refused(layout):
    layout.socket.parent.chmod(0o777)
    with pytest.raises(RuntimeServiceError, match="mode 700"):
        layout.prepare()


def test_the_sockets_path_is_short_enough_wherever_the_checkout_is(layout):
    assert len(os.fsencode(layout.socket)) <= 107
