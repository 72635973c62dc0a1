"""Asks the service of this container whether it is ready: `python -I -S healthcheck.py VARIABLE DEFAULT PATH`.

The port is in the environment variable named first, or the default. Standard library only, and started without
site packages: a check runs every few seconds and should cost next to nothing. Ends with 0 where the answer is a 2xx.
"""

import http.client
import os
import sys

TIMEOUT_SECONDS = 3


def main() -> int:
    """Asks once, on the loopback address; no proxy of the environment is used."""
    variable, default, path = sys.argv[1:]
    port = int(os.environ.get(variable) or default)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        return 0 if connection.getresponse().status // 100 == 2 else 1
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
