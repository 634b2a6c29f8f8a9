"""Where answers come from: a tiny local model, and servers that answer, fail, hang and talk nonsense, on loopback."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tiny
import torch

from expunge.data.chat import prompt_ids
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.guard.endpoints import EndpointError, answers, local, remote

ASK = [{"role": "user", "content": "Hi {x}"}]
ONE = {"n": 1, "temperature": 0.0, "max_tokens": 6}


@pytest.fixture
def model(tokenizer):
    model = tiny.model(vocab_size=len(tokenizer), max_position_embeddings=128)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


# -- a local model --------------------------------------------------------------------------------------------------------
def test_a_local_model_says_what_its_own_generate_says(model, tokenizer):
    ids = torch.tensor([prompt_ids(Row(tuple(ASK), ""), tokenizer)])
    output = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    right = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert local(model, tokenizer)(ASK, **ONE) == [right]


def test_what_is_drawn_depends_on_the_seed(model, tokenizer):
    drawn = {"n": 3, "temperature": 1.0, "max_tokens": 6}
    first, same, other = (local(model, tokenizer, seed=s)(ASK, **drawn) for s in (0, 0, 1))
    assert len(first) == 3 and len(set(first)) > 1 and first == same != other


def test_a_template_without_a_system_message(model, tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, *ASK]
    whole = local(model, tokenizer)([{"role": "user", "content": "Be brief.\n\nHi {x}"}], **ONE)
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + tokenizer.chat_template
    )
    assert local(model, tokenizer)(messages, **ONE) == whole


def test_without_a_template_the_form_is_plain_and_a_refusal_by_one_is_told(model, tokenizer):
    tokenizer.chat_template = None
    plain = torch.tensor([tokenizer("Question: Hi {x}\nAnswer: ").input_ids])
    output = model.generate(plain, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    right = tokenizer.decode(output[0, plain.shape[1] :], skip_special_tokens=True).strip()
    assert local(model, tokenizer)(ASK, **ONE) == [right]
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(EndpointError, match=r"the conversation: .* roles must alternate") as error:
        answers(local(model, tokenizer), ASK, **ONE)
    assert error.value.status == 400


def test_a_conversation_that_is_too_long_is_told(model, tokenizer):
    long = [{"role": "user", "content": "x" * 200}]
    with pytest.raises(EndpointError, match=r"has 2[0-9]{2} tokens; the model reads 128") as error:
        local(model, tokenizer)(long, **ONE)
    assert error.value.status == 400
    short = [{"role": "user", "content": "x" * 120}]  # and four of the template: room for as many tokens as are left
    assert len(local(model, tokenizer)(short, n=1, temperature=0.0, max_tokens=500)) == 1


# -- a server -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def server(monkeypatch):
    """A function from what a server does to its address; ``server.requests`` are the bodies and headers it got."""
    pytest.importorskip("openai", reason="needs expunge[guard]")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = []

    def start(reply):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                start.requests.append((body, dict(self.headers)))
                body = reply(len(start.requests))
                if body is None:
                    return
                status, content = body
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        http_server.daemon_threads = True
        running.append(http_server)
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{http_server.server_port}/v1"

    start.requests = []
    yield start
    for http_server in running:
        http_server.shutdown()
        http_server.server_close()


def good(text):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return 200, json.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


def test_a_server_is_asked_once_for_each_answer(server):
    url = server(lambda i: good(f"answer {i}"))
    assert remote(url, "m")(ASK, n=2, temperature=0.5, max_tokens=7) == ["answer 1", "answer 2"]
    body, headers = server.requests[0]
    assert body == {"model": "m", "messages": ASK, "temperature": 0.5, "max_tokens": 7}
    assert {k.lower(): v for k, v in headers.items()}["authorization"] == "Bearer sk-hidden"


def test_without_a_key_none_is_needed(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert remote(server(lambda i: good(None)), "m")(ASK, **ONE) == [""]


def test_a_server_that_hangs_is_left_after_bounded_tries(server):
    url = server(lambda i: time.sleep(3))
    began = time.monotonic()
    with pytest.raises(EndpointError, match=r"gave no answer within 0.2 s") as error:
        remote(url, "m", timeout=0.2, retries=1)(ASK, **ONE)
    assert time.monotonic() - began < 3 and error.value.status == 504 and len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((500, b'{"error": "about Hi {x} and sk-hidden"}'), "answered with HTTP status 500"),
        ((401, b'{"error": {"message": "Incorrect API key provided: sk-hidden"}}'), "status 401; set OPENAI_API_KEY"),
        ((200, b'{"choices": []}'), "no chat completion"),
        ((200, b'{"choices": null}'), "no chat completion"),
        ((200, b"<html>Hi {x}</html>"), "no chat completion"),
        ((200, b"[1]"), "no chat completion"),
        ((200, b'{"choices": [{"message": {"content": 3}}]}'), "no chat completion"),
        (None, "cannot be reached"),
    ],
)
def test_what_a_server_does_wrong_is_one_sentence(server, reply, message):
    url = server(lambda i: reply)
    with pytest.raises(EndpointError) as error:
        remote(url.replace("://", "://me:secret@"), "m", retries=0)(ASK, **ONE)
    assert message in str(error.value) and url in str(error.value)
    assert not any(hidden in str(error.value) for hidden in ("sk-hidden", "Hi", "secret"))
    assert len(server.requests) == 1


def test_a_server_that_comes_back_is_asked_again(server):
    url = server(lambda i: (503, b"{}") if i == 1 else good("back"))
    assert remote(url, "m", retries=1)(ASK, **ONE) == ["back"]


def test_nobody_listens(server):
    with pytest.raises(EndpointError, match="cannot be reached"):
        remote("http://127.0.0.1:9/v1", "m", retries=0)(ASK, **ONE)


@pytest.mark.parametrize("url", ["", "localhost:8000", "file:///etc/passwd", "http://", "ftp://a/b"])
def test_an_address_that_is_none(url):
    with pytest.raises(InputError, match="the address of an endpoint"):
        remote(url, "m")


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'expunge\[guard\]'"):
        remote("http://127.0.0.1:9/v1", "m")
