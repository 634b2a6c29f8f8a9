"""Attacks against a server: answers are kept and taken up again, a busy server is asked again, the rate is held."""

from __future__ import annotations

import json
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest
from attacks_rows import FORGET, SUBJECT

from expunge.attacks import asking
from expunge.attacks.endpoint import BLACK_BOX, Client, answerer, messages, sampler
from expunge.attacks.registry import ATTACKS
from expunge.attacks.variants import plain
from expunge.data.example import Row
from expunge.errors import InputError
from expunge.guard.endpoints import remote


class Busy(InputError):
    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered with HTTP status {status}")
        self.status = status


def test_the_points_are_those_of_the_answers():
    def endpoint(said, *, n, temperature, max_tokens):
        return [next((r.answer for r in FORGET if r.prompt[-1]["content"] in said[-1]["content"]), "no")] * n

    client = Client(endpoint, "here")
    points = BLACK_BOX["role-play"](client, SUBJECT)
    assert [p.known.tolist() for p in points] == [[1, 1]] * 5 and points[-1].label == "worst of all"
    leaks = BLACK_BOX["leak-at-k"](client, SUBJECT)
    assert leaks[-1].strength == 16 and leaks[-1].known.tolist() == [1, 1]
    assert (
        BLACK_BOX["multiple-choice"](Client(lambda *_, n, **__: ["I know nothing"] * n, ""), SUBJECT)[1].known.sum()
        == 0
    )
    assert set(BLACK_BOX) == {n for n, a in ATTACKS.items() if a.family in ("asking", "sampling")}


def test_a_call_that_was_broken_off_goes_on(tmp_path):
    file, numbers = tmp_path / "answers.jsonl", count()

    def endpoint(said, *, n, temperature, max_tokens):
        k = next(numbers)
        if k == 3:
            raise KeyboardInterrupt
        return [f"answer {k} at {temperature}"]

    with pytest.raises(KeyboardInterrupt):
        sampler(Client(endpoint, "a", file))(plain(SUBJECT), 2)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(file.read_text().splitlines()) == 3
    with file.open("a") as stream:
        stream.write('{"key": "half a li')
    client = Client(endpoint, "a", file)
    found = sampler(client)(plain(SUBJECT), 2)
    assert found == [["answer 0 at 1.0", "answer 1 at 1.0"], ["answer 2 at 1.0", "answer 4 at 1.0"]]
    assert answerer(client)(plain(SUBJECT)) == ["answer 5 at 0.0", "answer 6 at 0.0"]
    again = Client(endpoint, "a", file)
    assert sampler(again)(plain(SUBJECT), 2) == found and next(numbers) == 7
    assert answerer(Client(endpoint, "b", file))(plain(SUBJECT)[:1]) == [
        "answer 8 at 0.0"
    ]  # another model's are not its own
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 7


def test_a_file_of_another_kind_is_left_as_it_is(tmp_path):
    file = tmp_path / "notes.jsonl"
    file.write_text('{"question": "a"}\n')
    with pytest.raises(InputError, match=r"notes\.jsonl, line 1: not an answer"):
        Client(lambda *_, **__: [""], "a", file)
    assert file.read_text() == '{"question": "a"}\n'


@pytest.mark.parametrize(("status", "calls"), [(429, 3), (503, 3), (401, 1), (400, 1), (404, 1)])
def test_what_may_succeed_is_sent_again_after_a_longer_pause(status, calls):
    pauses, made = [], []

    def endpoint(*_, **__):
        made.append(1)
        raise Busy(status)

    client = Client(endpoint, "a", retries=2, sleep=pauses.append)
    with pytest.raises(Busy):
        client.ask([{"role": "user", "content": "q"}], draw=None, max_tokens=4)
    assert len(made) == calls and pauses == [1.0, 2.0][: calls - 1]


def test_a_busy_server_that_answers_at_last():
    replies = iter([Busy(429), Busy(502), ["yes"]])

    def endpoint(*_, **__):
        if isinstance(reply := next(replies), Exception):
            raise reply
        return reply

    assert Client(endpoint, "a", sleep=lambda _: None).ask([], draw=0, max_tokens=4) == "yes"


def test_the_rate_is_held():
    now, sent = [100.0], []

    def sleep(seconds):
        now[0] += seconds

    def endpoint(*_, **__):
        sent.append(now[0])
        now[0] += 0.1  # of its own
        return ["a"]

    client = Client(endpoint, "a", rate=2.0, sleep=sleep, clock=lambda: now[0])
    for k in range(4):
        client.ask([], draw=k, max_tokens=1)
    assert sent == pytest.approx([100.0, 100.5, 101.0, 101.5])
    for rate in (0, -1, float("nan")):
        with pytest.raises(InputError, match="above 0"):
            Client(endpoint, "a", rate=rate)


def test_prompts_as_conversations():
    assert messages(Row("Once", "")) == [{"role": "user", "content": "Once"}]
    begun = asking.GROUPS["prefill"][1]["first word"](SUBJECT)[0].row
    assert messages(begun)[-1] == {"role": "assistant", "content": "Ilse"}


@pytest.fixture
def server():
    """An OpenAI-compatible server on the loopback that is busy every third time; it knows one of the rows."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(body)
            if len(requests) % 3 == 0:
                self.send_error(503)
                return
            known = "born" in body["messages"][-1]["content"]
            message = {"role": "assistant", "content": FORGET[0].answer if known else "I do not know."}
            reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
            text = json.dumps(reply | {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1", requests
        running.shutdown()
        thread.join()


def test_a_server_served_here(server, tmp_path):
    url, requests = server
    endpoint = remote(url, "m", timeout=10, retries=0)
    client = Client(endpoint, url, tmp_path / "answers.jsonl", sleep=lambda _: None)
    points = BLACK_BOX["role-play"](client, SUBJECT)
    assert [p.known.tolist() for p in points] == [[1, 0]] * 5
    assert len(requests) == 11 and {r["temperature"] for r in requests} == {0.0}  # 8 answers, 3 of them asked twice
    assert BLACK_BOX["leak-at-k"](client, SUBJECT)[-1].known.tolist() == [1, 0]
    assert {r["temperature"] for r in requests[-8:]} == {1.0}
