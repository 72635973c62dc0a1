"""Nagle's algorithm together with delayed acknowledgements costs 40 ms an answer on a kept connection."""

import socket

from fastapi import FastAPI

from live_server import live_server, read_answer


def test_connections_send_without_delay() -> None:
    app = FastAPI()
    with live_server(app) as server, server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(sock).status == 404
        connections = list(server.server.server_state.connections)

        assert len(connections) == 1
        kept = connections[0].transport.get_extra_info("socket")
        assert kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
