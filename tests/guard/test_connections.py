"""Half a request, by raw sockets, against a server that runs."""

from __future__ import annotations

import socket
import threading
import time

import pytest

pytest.importorskip("starlette", reason="needs expunge[guard]")
pytest.importorskip("uvicorn", reason="needs expunge[guard]")

from expunge.guard import server

SOON = 0.2  # seconds that a head or a body has here


@pytest.fixture(scope="module")
def address():
    """A server without a model: no request here gets as far as the guard."""
    application = server.app(None, name="m", body_seconds=SOON)
    running = server.uvicorn_server(application, "127.0.0.1", 0, head_seconds=SOON, connections=3)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not running.started and time.monotonic() < until:
        time.sleep(0.01)
    yield running.servers[0].sockets[0].getsockname()
    running.should_exit = True
    thread.join(10)


def exchange(address, *parts, pause=0.0):
    """What the server answers to ``parts`` up to the end of the connection, and after how many seconds that was."""
    began = time.monotonic()
    with socket.create_connection(address, timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        response = b""
        while chunk := connection.recv(4096):
            response += chunk
    return response, time.monotonic() - began


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
WHOLE = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("sent", [[], [b"POST /v1/chat"], [HEAD]], ids=["nothing", "half a line", "half a head"])
def test_a_head_that_does_not_come_ends_the_connection(address, sent):
    response, seconds = exchange(address, *sent)
    assert response == b"" and seconds < 3


def test_a_head_that_drips_is_not_waited_for(address):
    with pytest.raises(OSError), socket.create_connection(address, timeout=5) as connection:  # noqa: PT012  reset or broken pipe
        for _ in range(100):
            connection.sendall(b"X-A: b\r\n")
            time.sleep(SOON / 4)


def test_a_second_request_that_does_not_come_whole(address):
    response, seconds = exchange(address, WHOLE, b"GET /v1", pause=SOON / 4)
    assert response.startswith(b"HTTP/1.1 200") and response.count(b"HTTP/1.1") == 1 and seconds < 3


def test_a_body_that_does_not_come_is_told(address):
    response, seconds = exchange(address, HEAD + b"Content-Length: 100\r\n\r\n", b'{"messages"')
    assert response.startswith(b"HTTP/1.1 408") and b"not whole within 0.2 seconds" in response and seconds < 3


def test_a_body_that_is_too_long_is_refused(address):
    response, _ = exchange(address, HEAD + b"Content-Length: 1100000\r\n\r\n", b" " * 1_100_000)
    assert response.startswith(b"HTTP/1.1 413")


def test_so_many_connections_and_no_more(address):
    idle = [socket.create_connection(address, timeout=5) for _ in range(3)]
    try:
        response, seconds = exchange(address)
        assert response == b"" and seconds < SOON  # the fourth is closed at once
    finally:
        for connection in idle:
            connection.close()
    time.sleep(SOON)
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(WHOLE)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_an_answer_that_takes_longer_is_not_cut_off(address):
    """The clock is for what the client sends: a request that is whole is answered however long that takes."""
    running = server.uvicorn_server(slow, "127.0.0.1", 0, head_seconds=SOON)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not running.started and time.monotonic() < until:
        time.sleep(0.01)
    with socket.create_connection(running.servers[0].sockets[0].getsockname(), timeout=5) as connection:
        connection.sendall(WHOLE)
        assert connection.recv(4096).startswith(b"HTTP/1.1 204")
    running.should_exit = True
    thread.join(10)


async def slow(scope, receive, send):
    import asyncio

    if scope["type"] != "http":
        return
    await asyncio.sleep(2 * SOON)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})
