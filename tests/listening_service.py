"""A supervised service whose child listens on a port, without the mark that its leader carries."""

import sys

from product_classifier.runtime.layout import STATE_VARIABLE, Layout
from product_classifier.runtime.services import Service

_LEADER = """
import subprocess, sys, time
code = "import socket,sys,time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", code, sys.argv[1]], env={})
time.sleep(600)
"""


def listening_service(layout: Layout, name: str, port: int) -> Service:
    """Makes it; where the port is taken the child ends at once, and the leader goes on in vain."""
    command = (sys.executable, "-c", _LEADER, str(port))
    environment = {STATE_VARIABLE: str(layout.state)}
    return Service(name, command, layout.state, environment, port=port, stop_seconds=1)
