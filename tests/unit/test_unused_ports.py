"""No two runs of tests get the same port, and none gets one that is in use."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unused_ports import END, FIRST, free_port

TESTS = Path(__file__).parents[1]
# Takes as many ports of a few as it is told to, or all that it can have, and holds them until its input ends.
RUN = """
import json, sys, unused_ports
unused_ports.FIRST, unused_ports.END, most = map(int, sys.argv[1:])
ports = []
try:
    while len(ports) < most:
        ports.append(unused_ports.free_port())
except RuntimeError:
    pass
print(*ports, flush=True)
sys.stdin.read()
"""


@contextmanager
def another_run(folder: Path, first: int, most: int = 6) -> Iterator[list[int]]:
    """The ports that another process has, of six; `folder` holds the locks of these tests alone."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(first), str(first + 6), str(most)],
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield [int(port) for port in process.stdout.readline().split()]


def test_two_runs_have_no_port_in_common_and_what_one_had_is_free_after_it(tmp_path: Path) -> None:
    first = free_port()
    with another_run(tmp_path, first, 3) as some, another_run(tmp_path, first) as others:
        assert len(set(some)) == 3
        assert len(set(others)) == len(others) > 0
        assert not set(some) & set(others)
    with another_run(tmp_path, first) as later:
        assert set(some) <= set(later)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_a_port_in_use_is_not_given(tmp_path: Path, kind: socket.SocketKind) -> None:
    first = free_port()
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", first))
        with another_run(tmp_path, first) as ports:
            assert ports
            assert first not in ports


def test_the_kernel_gives_none_of_them_to_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen_by_the_kernel:
        assert not FIRST <= chosen_by_the_kernel.getsockname()[1] < END
