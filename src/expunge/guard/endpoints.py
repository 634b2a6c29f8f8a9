"""Where answers come from: a local model, or a server that speaks OpenAI's protocol.

An endpoint is any function with :class:`Endpoint`'s signature.  It raises :class:`EndpointError` if it has no answer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Protocol
from urllib.parse import urlsplit

from expunge.data.example import Message, Row
from expunge.errors import InputError
from expunge.guard.trail import Trail

KEY = "OPENAI_API_KEY"


class EndpointError(InputError):
    """A model gave no answer; ``status``: the HTTP status of a server's response; ``trail``: the steps up to the failure."""

    def __init__(self, message: str, *, status: int = 502) -> None:
        super().__init__(message)
        self.status = status
        self.trail: Trail | None = None


class Endpoint(Protocol):
    """``n`` answers to a conversation, drawn at ``temperature`` (0: the likeliest), of at most ``max_tokens`` each."""

    def __call__(self, messages: Sequence[Message], *, n: int, temperature: float, max_tokens: int) -> list[str]: ...


def answers(
    endpoint: Endpoint, messages: Sequence[Message], *, n: int, temperature: float, max_tokens: int
) -> list[str]:
    """The ``n`` answers of ``endpoint``; anything else is an EndpointError, whose message holds no text of the model."""
    try:
        texts = endpoint(messages, n=n, temperature=temperature, max_tokens=max_tokens)
    except EndpointError:
        raise
    except InputError as error:  # a chat template that refuses the conversation
        raise EndpointError(str(error), status=400) from error
    except Exception as error:  # a model may raise anything
        raise EndpointError(f"the model failed with {type(error).__name__}") from error
    if not isinstance(texts, list) or len(texts) != n or not all(isinstance(text, str) for text in texts):
        raise EndpointError(f"the model did not give the {n} texts that it was asked for")
    return [text.encode("utf-8", "replace").decode() for text in texts]  # lone surrogates cannot be encoded


def local(model: Any, tokenizer: Any, *, seed: int = 0, chat_template: bool | None = None) -> Endpoint:
    """A model in memory, as :func:`expunge.models.load.load` gives it; it answers one query at a time.

    If its chat template has no system role, the system message is put before the first user's message; without
    a template, or with ``chat_template=False``, the conversation is plain text, "Question: … Answer:".  A conversation that
    is longer than the model reads, or that the template refuses, is an EndpointError.
    """
    import torch

    from expunge.data.chat import prompt_ids
    from expunge.generation.greedy import end_tokens
    from expunge.generation.sample import Sampling, sampled

    ends = end_tokens(model, tokenizer)
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    template = bool(getattr(tokenizer, "chat_template", None)) if chat_template is None else chat_template
    generator = torch.Generator().manual_seed(seed)
    lock = threading.Lock()

    def encode(messages: Sequence[Message]) -> tuple[int, ...]:
        return tuple(prompt_ids(Row((*messages,), "", where="the conversation"), tokenizer, chat_template=template))

    def prompt_tokens(messages: Sequence[Message]) -> tuple[int, ...]:
        try:
            return encode(messages)
        except InputError:
            if messages[0]["role"] != "system" or len(messages) < 2:
                raise
            first = {"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
            return encode([first, *messages[2:]])

    def endpoint(messages: Sequence[Message], *, n: int, temperature: float, max_tokens: int) -> list[str]:
        with lock:  # tokenizers are not thread-safe either
            prompt = prompt_tokens(messages)
            max_new_tokens = max_tokens if longest is None else min(max_tokens, longest - len(prompt))
            if max_new_tokens < 1:
                raise EndpointError(
                    f"the conversation, or what an agent is given, has {len(prompt)} tokens; the model reads {longest}",
                    status=400,
                )
            sampling = Sampling(temperature=temperature, top_p=1.0, max_new_tokens=max_new_tokens)
            continuations = sampled(model, tokenizer, [prompt] * n, sampling, ends, generator)
            return [tokenizer.decode(s.tokens, skip_special_tokens=True).strip() for s in continuations]

    return endpoint


def check_address(url: str) -> None:
    """Raise InputError where ``url`` is no address or the package openai is missing."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("the address of an endpoint is such as http://127.0.0.1:8000/v1")
    if find_spec("openai") is None:
        raise InputError("an endpoint needs the package openai: pip install 'expunge[guard]'")


def remote(url: str, model: str, *, timeout: float = 60.0, retries: int = 2) -> Endpoint:
    """``model`` at a server's OpenAI-compatible address ``url``, such as ``http://127.0.0.1:8000/v1``.

    The server's key, if any, is the environment variable OPENAI_API_KEY; it appears in no message and no
    log.  A request waits at most ``timeout`` seconds for the server's next sign of life, and is sent again at most
    ``retries`` times.  ``n`` answers are ``n`` requests, since many servers give one whatever they are asked.

    Raises InputError where ``url`` is no address or the package openai is missing.
    """
    check_address(url)
    import openai

    parts = urlsplit(url)
    where = (
        f"the endpoint {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # a password may stand before @
    )
    client = openai.OpenAI(base_url=url, api_key=os.environ.get(KEY) or "none", timeout=timeout, max_retries=retries)

    def endpoint(messages: Sequence[Message], *, n: int, temperature: float, max_tokens: int) -> list[str]:
        def request() -> str:
            completion: Any = client.chat.completions.create(
                model=model,
                messages=list(messages),  # type: ignore[arg-type]
                temperature=temperature,
                max_tokens=max_tokens,
            )
            text = completion.choices[0].message.content
            if not isinstance(text, str | None):
                raise TypeError("no text")
            return text or ""

        return [_call_server(request, openai, where, timeout) for _ in range(n)]

    return endpoint


def _call_server(call: Callable[[], str], openai: Any, where: str, timeout: float) -> str:
    """The result of ``call``; its errors as one sentence, without the server's message, which may repeat key or query."""
    try:
        return call()
    except openai.APITimeoutError as error:
        raise EndpointError(f"{where} gave no answer within {timeout:g} s", status=504) from error
    except openai.APIConnectionError as error:
        raise EndpointError(f"{where} cannot be reached, or broke the connection off") from error
    except openai.APIStatusError as error:
        hint = f"; set {KEY}" if error.status_code in (401, 403) else ""
        raise EndpointError(f"{where} answered with HTTP status {error.status_code}{hint}") from error
    except Exception as error:  # no JSON, no choices, no content
        raise EndpointError(f"{where} gave an answer that is no chat completion ({type(error).__name__})") from error
