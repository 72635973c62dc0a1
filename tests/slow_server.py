"""A server that takes a request and never finishes its answer."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def slow_server(head: bytes = b"", drip: bytes = b"") -> Iterator[str]:
    """Serves one caller until the end of the block.

    Args:
        head: What is answered at once.
        drip: What follows, again and again, every 50 ms; nothing where it is empty.

    Yields:
        The server's address.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            sock, _ = listener.accept()
            with sock:  # closed also where the caller has gone while it drips
                sock.recv(65536)
                sock.sendall(head)
                while drip and not stop.wait(0.05):
                    sock.sendall(drip)
                stop.wait(60)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread where nobody has called
        listener.close()
        thread.join(10)
