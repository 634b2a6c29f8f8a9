"""An OpenAI-compatible server around a guarded model: ``/v1/chat/completions`` and ``/v1/models``, on this machine.

It checks no key and keeps no conversation.  On a loopback address it answers only to that address's names, so that a web
page in a browser cannot reach it by a name of its own, and only to JSON.  If an agent fails, so does the answer: no text of
the model is sent before it was checked.  A request's head has 10 seconds, its body 30 and a MiB; at most
64 connections are open at once.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from expunge.data.example import Message
from expunge.errors import InputError
from expunge.guard.connections import CONNECTIONS, HEAD_SECONDS, protocol
from expunge.guard.endpoints import EndpointError
from expunge.guard.pipeline import Guard, answer
from expunge.guard.trail import Trail

LIMIT = 1 << 20  # bytes of a request
BODY_SECONDS = 30.0  # for a request's body to come
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
REFUSED = ("tools", "functions", "response_format", "logprobs", "audio")  # fields that must not be ignored silently


@dataclass(frozen=True)
class ChatRequest:
    """The fields of a request that the guard uses; all others are ignored."""

    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int | None
    stream: bool


def read_request(body: bytes) -> ChatRequest:
    """The request in a body of JSON; InputError if it is malformed."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("the request is not JSON") from None
    if not isinstance(fields, dict):
        raise InputError("the request is not a JSON object")
    for name in REFUSED:
        if fields.get(name):
            raise InputError(f"this server cannot do {name!r}; leave it out")
    if fields.get("n") not in (None, 1):
        raise InputError("this server gives one answer to a request; leave out 'n'")
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError("'messages' must be a list that is not empty")
    parsed = tuple(_message(m, i) for i, m in enumerate(messages))
    if parsed[-1]["role"] != "user":
        raise InputError("the last of 'messages' must be the user's")
    temperature = fields.get("temperature") or 0
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
        raise InputError("'temperature' must be a number from 0 to 2")
    name = "max_completion_tokens" if fields.get("max_completion_tokens") is not None else "max_tokens"
    max_tokens = fields.get(name)
    if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1):
        raise InputError(f"{name!r} must be a whole number from 1 on")
    return ChatRequest(parsed, float(temperature), max_tokens, fields.get("stream") is True)


def app(
    guard: Guard,
    *,
    name: str,
    log: Callable[[Trail], None] | None = None,
    hosts: tuple[str, ...] = (),
    limit: int = LIMIT,
    body_seconds: float = BODY_SECONDS,
) -> Any:
    """The Starlette application; ``hosts``: the host names it answers to, any if empty; ``log`` gets every trail.

    Raises InputError where starlette is missing.
    """
    check_installed()
    import anyio
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    created = int(time.time())

    def error_response(message: str, status: int) -> Response:
        kind = "invalid_request_error" if status < 500 else "api_error"
        error = {"error": {"message": message, "type": kind, "param": None, "code": None}}
        headers = {"connection": "close"} if status in (408, 413) else None  # the rest of the request may never come
        return JSONResponse(error, status, headers=headers)

    async def models(request: Request) -> Response:
        row = {"id": name, "object": "model", "created": created, "owned_by": "expunge"}
        return JSONResponse({"object": "list", "data": [row]})

    async def completions(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return error_response("the request must have the content type application/json", 400)
        body = bytearray()
        with anyio.move_on_after(body_seconds) as within:
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    return error_response(f"the request is longer than {limit} bytes", 413)
        if within.cancelled_caught:
            return error_response(f"the request was not whole within {body_seconds:g} seconds", 408)
        try:
            chat_request = read_request(bytes(body))
            trail = await run_in_threadpool(_answer_and_log, guard, chat_request, log)
        except EndpointError as error:
            return error_response(str(error), error.status)
        except InputError as error:
            return error_response(str(error), 400)
        if chat_request.stream:
            return Response(_event_stream(trail, name), media_type="text/event-stream")
        return JSONResponse(_completion(trail, name))

    async def http_error(request: Request, error: Any) -> Response:
        return error_response(str(error.detail), error.status_code)

    async def failed(request: Request, error: Exception) -> Response:
        logging.getLogger(__name__).error("the guard failed with %s", type(error).__name__)
        return error_response("the guard failed", 500)

    return Starlette(
        routes=[
            Route("/v1/models", models, methods=["GET"]),
            Route("/v1/chat/completions", completions, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)] if hosts else [],
        exception_handlers={HTTPException: http_error, Exception: failed},
    )


def names(host: str) -> tuple[str, ...]:
    """The host names that a server on ``host`` answers to: loopback names, or () for any if it is open to other machines.

    >>> names("127.0.0.1"), names("0.0.0.0")
    (('127.0.0.1', 'localhost', '[::1]', '::1'), ())
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    return tuple(dict.fromkeys([host, "127.0.0.1", "localhost", "[::1]", "::1"])) if loopback else ()


def serve(guard: Guard, *, name: str, host: str, port: int, log: Callable[[Trail], None] | None = None) -> None:
    """Answer requests until interrupted.  Raises InputError where uvicorn is missing or the port is taken."""
    server = uvicorn_server(app(guard, name=name, log=log, hosts=names(host)), host, port)
    try:
        server.run()
    except KeyboardInterrupt as error:  # Ctrl-C is how a server is ended; of another signal the exit status tells
        if getattr(error, "number", signal.SIGINT) != signal.SIGINT:
            raise
    except SystemExit:
        raise InputError(f"nothing can listen on {host} port {port}; it may be taken, give another --port") from None


def check_installed() -> None:
    """Raise InputError where starlette or uvicorn is missing."""
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise InputError("a server needs starlette and uvicorn: pip install 'expunge[guard]'")


def uvicorn_server(
    application: Any, host: str, port: int, *, head_seconds: float = HEAD_SECONDS, connections: int = CONNECTIONS
) -> Any:
    """A server that is not yet running.  It logs nothing: tracebacks hold texts.  For the limits see
    :mod:`expunge.guard.connections`.
    """
    check_installed()
    import uvicorn

    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        http=protocol(head_seconds, connections),
        log_level="critical",
        server_header=False,
    )
    return uvicorn.Server(config)


def _answer_and_log(guard: Guard, request: ChatRequest, log: Callable[[Trail], None] | None) -> Trail:
    try:
        trail = answer(guard, request.messages, temperature=request.temperature, max_tokens=request.max_tokens)
    except EndpointError as error:
        if log and error.trail:
            log(error.trail)
        raise
    if log:
        log(trail)
    return trail


def _completion(trail: Trail, name: str) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": trail.answer},
        "finish_reason": "stop",
        "logprobs": None,
    }
    return _head("chat.completion", name) | {"choices": [choice]}


def _event_stream(trail: Trail, name: str) -> str:
    """The whole answer as one event, and the end: nothing is sent before it was checked."""
    head = _head("chat.completion.chunk", name)
    first = {"index": 0, "delta": {"role": "assistant", "content": trail.answer}, "finish_reason": None}
    last: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events = [json.dumps(head | {"choices": [c]}) for c in (first, last)]
    return "".join(f"data: {e}\n\n" for e in (*events, "[DONE]"))


def _head(kind: str, name: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}


def _message(raw: Any, i: int) -> Message:
    if not isinstance(raw, dict) or not isinstance(raw.get("role"), str) or raw["role"] not in ROLES:
        raise InputError(f"message {i}: the role must be one of {', '.join(ROLES)}")
    content = raw.get("content")
    if isinstance(content, list):
        if not all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content):
            raise InputError(f"message {i}: this server reads text only")
        content = "\n".join(p["text"] for p in content)
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"message {i}: the content must be a text that is not empty")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise InputError(f"message {i}: the content is not valid Unicode") from None
    return {"role": ROLES[raw["role"]], "content": content}
