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
    one = server.uvicorn_server(application, "127.0.0.1", 0, head_seconds=SOON, connections=3)
    thread = threading.Thread(target=one.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not one.started and time.monotonic() < until:
        time.sleep(0.01)
    yield one.servers[0].sockets[0].getsockname()
    one.should_exit = True
    thread.join(10)


def said(address, *parts, pause=0.0):
    """What the server answers to ``parts`` up to the end of the connection, and after how many seconds that was."""
    began = time.monotonic()
    with socket.create_connection(address, timeout=5) as one:
        for part in parts:
            one.sendall(part)
            time.sleep(pause)
        got = b""
        while chunk := one.recv(4096):
            got += chunk
    return got, time.monotonic() - began


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
WHOLE = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("sent", [[], [b"POST /v1/chat"], [HEAD]], ids=["nothing", "half a line", "half a head"])
def test_a_head_that_does_not_come_ends_the_connection(address, sent):
    got, seconds = said(address, *sent)
    assert got == b"" and seconds < 3


def test_a_head_that_drips_is_not_waited_for(address):
    with pytest.raises(OSError), socket.create_connection(address, timeout=5) as one:  # noqa: PT012  reset or broken pipe
        for _ in range(100):
            one.sendall(b"X-A: b\r\n")
            time.sleep(SOON / 4)


def test_a_second_request_that_does_not_come_whole(address):
    got, seconds = said(address, WHOLE, b"GET /v1", pause=SOON / 4)
    assert got.startswith(b"HTTP/1.1 200") and got.count(b"HTTP/1.1") == 1 and seconds < 3


def test_a_body_that_does_not_come_is_told(address):
    got, seconds = said(address, HEAD + b"Content-Length: 100\r\n\r\n", b'{"messages"')
    assert got.startswith(b"HTTP/1.1 408") and b"not whole within 0.2 seconds" in got and seconds < 3


def test_a_body_that_is_too_long_is_refused(address):
    got, _ = said(address, HEAD + b"Content-Length: 1100000\r\n\r\n", b" " * 1_100_000)
    assert got.startswith(b"HTTP/1.1 413")


def test_so_many_connections_and_no_more(address):
    idle = [socket.create_connection(address, timeout=5) for _ in range(3)]
    try:
        got, seconds = said(address)
        assert got == b"" and seconds < SOON  # the fourth is closed at once
    finally:
        for one in idle:
            one.close()
    time.sleep(SOON)
    with socket.create_connection(address, timeout=5) as one:
        one.sendall(WHOLE)
        assert one.recv(4096).startswith(b"HTTP/1.1 200")


def test_an_answer_that_takes_longer_is_not_cut_off(address):
    """The clock is for what the client sends: a request that is whole is answered however long that takes."""
    made = server.uvicorn_server(slow, "127.0.0.1", 0, head_seconds=SOON)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not made.started and time.monotonic() < until:
        time.sleep(0.01)
    with socket.create_connection(made.servers[0].sockets[0].getsockname(), timeout=5) as one:
        one.sendall(WHOLE)
        assert one.recv(4096).startswith(b"HTTP/1.1 204")
    made.should_exit = True
    thread.join(10)


async def slow(scope, receive, send):
    import asyncio

    if scope["type"] != "http":
        return
    await asyncio.sleep(2 * SOON)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})
