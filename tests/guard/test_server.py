"""The OpenAI-compatible server: what it answers, what it refuses, and that it is one for OpenAI's own client."""

from __future__ import annotations

import json
import threading
import time

import pytest
from tiny_guard import Script

from expunge.errors import InputError
from expunge.guard import server
from expunge.guard.settings import REFUSAL

pytest.importorskip("starlette", reason="needs expunge[guard]")
pytest.importorskip("uvicorn", reason="needs expunge[guard]")
testclient = pytest.importorskip(
    "starlette.testclient", reason="starlette's test client needs httpx2", exc_type=Exception
)

ASK = [{"role": "user", "content": "Where did Ada Oru live?"}]
OTHER = [{"role": "user", "content": "What is the capital?"}]
URL = "/v1/chat/completions"


@pytest.fixture
def client(guarded):
    """A function from what agents say to a client; ``client.logged`` are the trails, ``client.script`` the endpoint."""

    def make(**replies):
        guard, make.script = guarded(**replies)
        make.logged = []
        app = server.app(guard, name="m", log=make.logged.append, hosts=server.names("127.0.0.1"), limit=5000)
        return testclient.TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)

    return make


def test_a_guarded_answer(client):
    response = client().post(URL, json={"model": "m", "messages": ASK, "temperature": 0.5, "max_tokens": 9}).json()
    assert (
        response["object"] == "chat.completion" and response["model"] == "m" and response["id"].startswith("chatcmpl-")
    )
    (choice,) = response["choices"]
    assert (
        choice["message"] == {"role": "assistant", "content": "It was in a town."} and choice["finish_reason"] == "stop"
    )
    assert client.script.calls[0][3:] == (0.5, 9) and client.logged[0].outcome == "rewritten"
    assert "Lim" not in json.dumps(response)


def test_a_conversation_reaches_the_model(client):
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]},
        {"role": "assistant", "content": "Hello {x}.", "refusal": None},
        OTHER[0] | {"name": "me"},
    ]
    post = client(vanilla="Ven.")
    assert (
        post.post(URL, json={"messages": turns, "user": "x", "seed": 3}).json()["choices"][0]["message"]["content"]
        == "Ven."
    )
    assert client.script.calls[0][1] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi\nthere"},
        {"role": "assistant", "content": "Hello {x}."},
        *OTHER,
    ]


def test_a_stream_is_the_whole_checked_answer(client):
    response = client().post(URL, json={"messages": ASK, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [e.removeprefix("data: ") for e in response.text.split("\n\n") if e]
    assert events.pop() == "[DONE]"
    first, last = map(json.loads, events)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "It was in a town."}
    assert last["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"} and first["id"] == last["id"]
    assert first["object"] == "chat.completion.chunk"


def test_models_and_places_that_are_not_there(client):
    http = client()
    assert [m["id"] for m in http.get("/v1/models").json()["data"]] == ["m"]
    for response, status in ((http.get("/v1/x"), 404), (http.get(URL), 405)):
        assert response.status_code == status and response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 4999, "not JSON"),
        (b"[1]", "not a JSON object"),
        ({}, "'messages'"),
        ({"messages": []}, "'messages'"),
        ({"messages": "Hi"}, "'messages'"),
        ({"messages": ["Hi"]}, "message 0: the role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "message 0: the role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "message 0: the role"),
        ({"messages": [*OTHER, {"role": "user", "content": " "}]}, "message 1: the content"),
        ({"messages": [{"role": "user"}]}, "message 0: the content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "reads text only"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "not valid Unicode"),
        ({"messages": [*ASK, {"role": "assistant", "content": "She lived in"}]}, "must be the user's"),
        ({"messages": ASK, "n": 2}, "'n'"),
        ({"messages": ASK, "tools": [{}]}, "'tools'"),
        ({"messages": ASK, "temperature": "hot"}, "'temperature'"),
        ({"messages": ASK, "temperature": True}, "'temperature'"),
        ({"messages": ASK, "temperature": 2.1}, "'temperature'"),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', "'temperature'"),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1' + b"0" * 400 + b"}", "'temperature'"),
        ({"messages": ASK, "max_tokens": 0}, "'max_tokens'"),
        ({"messages": ASK, "max_completion_tokens": 1.5}, "'max_completion_tokens'"),
    ],
)
def test_a_malformed_request_is_a_400_with_a_sentence(client, body, message):
    http = client()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = http.post(URL, content=content, headers={"content-type": "application/json; charset=utf-8"})
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]["message"] and not client.script.calls


def test_a_long_request_is_refused_however_it_comes(client):
    http = client()
    long = json.dumps({"messages": [{"role": "user", "content": "x" * 6000}]}).encode()
    for content in (long, iter([long[:4000], long[4000:]])):
        response = http.post(URL, content=content, headers={"content-type": "application/json"})
        assert response.status_code == 413 and "5000 bytes" in response.json()["error"]["message"]


def test_a_web_page_cannot_ask(client):
    http, body = client(), json.dumps({"messages": ASK}).encode()
    assert http.post(URL, content=body, headers={"content-type": "text/plain"}).status_code == 400
    rebound = {"host": "evil.example", "content-type": "application/json"}
    assert http.post(URL, content=body, headers=rebound).status_code == 400 and not client.script.calls
    for host in ("localhost:9", "[::1]:8000"):
        assert http.get("/v1/models", headers={"host": host}).status_code == 200
    assert "access-control-allow-origin" not in http.get("/v1/models", headers={"origin": "http://evil"}).headers


@pytest.mark.parametrize("agent", ["vanilla", "erase", "critic", "compose"])
def test_a_model_that_fails_is_a_502_and_never_the_vanilla_answer(client, agent):
    response = client(**{agent: ValueError("Ada Oru lived in Lim.")}).post(URL, json={"messages": ASK})
    assert response.status_code == 502 and response.json()["error"]["message"] == "the model failed with ValueError"
    assert "Lim" not in response.text and client.logged[0].outcome == "failed"


def test_a_critic_that_talks_nonsense_is_a_refusal(client):
    response = client(critic="Fine!").post(URL, json={"messages": ASK})
    assert response.status_code == 200 and response.json()["choices"][0]["message"]["content"] == REFUSAL


def test_what_nobody_thought_of_is_a_500_without_text(client, monkeypatch, logged):
    def broken(*args, **kwargs):
        raise KeyError("Ada Oru lived in Lim.")

    monkeypatch.setattr(server, "answer", broken)
    response = client().post(URL, json={"messages": ASK})
    assert (
        response.status_code == 500
        and "Lim" not in response.text
        and response.json()["error"]["message"] == "the guard failed"
    )
    assert logged == ["the guard failed with KeyError"]


def test_names_of_a_host():
    assert (
        "localhost" in server.names("127.0.0.1")
        and "::1" in server.names("::1")
        and "127.0.0.1" in server.names("localhost")
    )
    assert (
        server.names("0.0.0.0")
        == server.names("192.168.0.3")
        == server.names("example.org")
        == server.names("::")
        == ()
    )


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'expunge\[guard\]'"):
        server.check_installed()


# -- on loopback ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def running(guarded, monkeypatch):
    """A function from what agents say to the address of a server that listens."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    started = []

    def start(**replies):
        guard, _ = guarded(**replies)
        uvicorn_server = server.uvicorn_server(
            server.app(guard, name="m", hosts=server.names("127.0.0.1")), "127.0.0.1", 0
        )
        thread = threading.Thread(target=uvicorn_server.run, daemon=True)
        thread.start()
        started.append((uvicorn_server, thread))
        until = time.monotonic() + 20
        while not uvicorn_server.started and time.monotonic() < until:
            time.sleep(0.01)
        return f"http://127.0.0.1:{uvicorn_server.servers[0].sockets[0].getsockname()[1]}/v1"

    yield start
    for uvicorn_server, thread in started:
        uvicorn_server.should_exit = True
        thread.join(10)


def test_openais_client_reads_it_and_a_guard_stands_before_a_guard(running):
    openai = pytest.importorskip("openai", reason="needs expunge[guard]")
    from expunge.guard.endpoints import EndpointError, remote

    url = running()
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    assert client.models.list().data[0].id == "m"
    completion = client.chat.completions.create(model="m", messages=ASK)
    assert completion.choices[0].message.content == "It was in a town."
    parts = client.chat.completions.create(model="m", messages=ASK, stream=True)
    assert "".join(p.choices[0].delta.content or "" for p in parts) == "It was in a town."
    with pytest.raises(openai.BadRequestError, match="must be the user's"):
        client.chat.completions.create(model="m", messages=[{"role": "assistant", "content": "x"}])
    sampling = {"n": 1, "temperature": 0.0, "max_tokens": 5}
    assert remote(url, "m")(ASK, **sampling) == ["It was in a town."]
    with pytest.raises(EndpointError, match="HTTP status 502"):
        remote(running(erase=OSError()), "m", retries=0)(ASK, **sampling)


def test_a_port_that_is_taken_is_told(running, guarded):
    port = int(running().rpartition(":")[2].split("/")[0])
    with pytest.raises(InputError, match=f"port {port}"):
        server.serve(guarded()[0], name="m", host="127.0.0.1", port=port)


def test_several_ask_at_once(running):
    url = running(vanilla=lambda messages: f"You said {messages[-1]['content']}.")
    pytest.importorskip("openai", reason="needs expunge[guard]")
    from expunge.guard.endpoints import remote

    answers: dict[int, list[str]] = {}

    def ask(i):
        messages = [{"role": "user", "content": f"number {i}"}]
        answers[i] = remote(url, "m")(messages, n=1, temperature=0.0, max_tokens=5)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert answers == {i: [f"You said number {i}."] for i in range(8)}


def test_a_script_is_an_endpoint():
    assert Script(vanilla="x")(OTHER, n=2, temperature=0.0, max_tokens=1) == ["x", "x"]
