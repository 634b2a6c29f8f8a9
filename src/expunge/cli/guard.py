"""``expunge guard``: agents that keep targets out of a model's answers while its weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.cli.errors import told

if TYPE_CHECKING:
    from expunge.guard import Endpoint, Guard, Trail

app = typer.Typer(
    help="Keep targets out of a model's answers: its weights stay, agents check and rewrite what it says.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Targets = Annotated[
    str,
    typer.Option(
        help='What must not be told of: .jsonl rows {"name": …, "aliases": […]}, or lines NAME | ALIAS | ALIAS.'
    ),
]
Model = Annotated[
    str,
    typer.Option(help="Hub id, folder, GGUF file, PEFT adapter folder, or smollm2-135m; with --url its name there."),
]
Url = Annotated[
    str | None,
    typer.Option(
        help="OpenAI-compatible address such as http://127.0.0.1:8000/v1; the key is taken from OPENAI_API_KEY."
    ),
]
AgentsModel = Annotated[
    str | None, typer.Option(help="Another model for the agents: auditor, eraser, critic and composer.")
]
AgentsUrl = Annotated[str | None, typer.Option(help="The address of that other model.")]
K = Annotated[int | None, typer.Option(help="How many versions of an answer are written.  [default: 5]")]
J = Annotated[int | None, typer.Option(help="How many of the best versions are merged.  [default: 3]")]
Threshold = Annotated[
    float | None, typer.Option(help="Mean rating, 1 to 5, below which a query is refused.  [default: 4]")
]
Auditor = Annotated[
    str | None,
    typer.Option(
        help="Who suspects a target: aliases (names in question or answer), or model too.  [default: aliases]"
    ),
]
Retries = Annotated[
    int | None, typer.Option(help="How often an agent is asked again that cannot be understood.  [default: 2]")
]
Listed = Annotated[int | None, typer.Option(help="How many targets a prompt lists at most.  [default: 50]")]
MaxTokens = Annotated[int | None, typer.Option(help="Longest answer, in tokens.  [default: 256]")]
AgentTokens = Annotated[int | None, typer.Option(help="Longest reply of an agent, in tokens.  [default: 1024]")]
Refusal = Annotated[str | None, typer.Option(help="What a refused query is answered.")]
Prompts = Annotated[
    str | None, typer.Option(help="Folder with audit.txt, erase.txt, critic.txt or compose.txt of your own.")
]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds that an address may be silent.")]
Log = Annotated[
    str | None,
    typer.Option(
        help="Append each query's trail to this file, readable by you only (mode 600): it HOLDS WHAT THE MODEL SAID before "
        "anything was erased.  Without it nothing is written."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of what a local model draws.")]
Device = Annotated[str | None, typer.Option(help="Where a local model runs, such as cuda.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that the model's repository brings.")]


@app.command("ask")
def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    model: Model,
    targets: Targets,
    url: Url = None,
    agents_model: AgentsModel = None,
    agents_url: AgentsUrl = None,
    k: K = None,
    j: J = None,
    threshold: Threshold = None,
    auditor: Auditor = None,
    retries: Retries = None,
    listed: Listed = None,
    max_tokens: MaxTokens = None,
    agent_tokens: AgentTokens = None,
    refusal: Refusal = None,
    prompts: Prompts = None,
    timeout: Timeout = 60.0,
    log: Log = None,
    seed: Seed = 0,
    device: Device = None,
    trust_remote_code: Trust = False,
    trail: Annotated[
        bool, typer.Option("--trail", help="SHOW what every agent said, so also what the model said at first.")
    ] = False,
) -> None:
    """Ask one question and print the guarded answer."""
    given = dict(locals())
    with told():
        from expunge.errors import InputError
        from expunge.guard import EndpointError, answer
        from expunge.guard.trail import readable

        if not question.strip():
            raise InputError("the question is empty")
        guard, write = _opened(given)
        try:
            said = answer(guard, [{"role": "user", "content": question}])
        except EndpointError as error:
            if error.trail:
                write(error.trail)
            raise
        write(said)
        if trail:
            typer.echo(readable(said) + "\n")
        typer.echo(said.answer)


@app.command("serve")
def serve(
    model: Model,
    targets: Targets,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any other than a loopback one lets others ask, without a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    name: Annotated[str | None, typer.Option(help="What the endpoint calls the model.  [default: as --model]")] = None,
    url: Url = None,
    agents_model: AgentsModel = None,
    agents_url: AgentsUrl = None,
    k: K = None,
    j: J = None,
    threshold: Threshold = None,
    auditor: Auditor = None,
    retries: Retries = None,
    listed: Listed = None,
    max_tokens: MaxTokens = None,
    agent_tokens: AgentTokens = None,
    refusal: Refusal = None,
    prompts: Prompts = None,
    timeout: Timeout = 60.0,
    log: Log = None,
    seed: Seed = 0,
    device: Device = None,
    trust_remote_code: Trust = False,
) -> None:
    """Serve a guarded model as an OpenAI-compatible endpoint, /v1/chat/completions and /v1/models, on this machine."""
    given = dict(locals())
    with told():
        from expunge.guard import server

        server.check_installed()
        guard, write = _opened(given)
        if not server.names(host):
            typer.echo(f"Whoever reaches {host} port {port} can ask: there is no key.", err=True)
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"http://{shown}:{port}/v1 answers for {model}; end it with Ctrl-C.")
        server.serve(guard, name=name or model, host=host, port=port, log=write)


@app.command("measure")
def measure(
    model: Model,
    targets: Targets,
    forget: Annotated[
        str, typer.Option(help="Questions about the targets, with right answers: JSONL, CSV, Parquet, …")
    ],
    retain: Annotated[str, typer.Option(help="Questions about other things, with right answers.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of each set.")] = None,
    out: Annotated[str | None, typer.Option(help="File for the figures as JSON; it holds no text.")] = None,
    url: Url = None,
    agents_model: AgentsModel = None,
    agents_url: AgentsUrl = None,
    k: K = None,
    j: J = None,
    threshold: Threshold = None,
    auditor: Auditor = None,
    retries: Retries = None,
    listed: Listed = None,
    max_tokens: MaxTokens = None,
    agent_tokens: AgentTokens = None,
    refusal: Refusal = None,
    prompts: Prompts = None,
    timeout: Timeout = 60.0,
    log: Log = None,
    seed: Seed = 0,
    device: Device = None,
    trust_remote_code: Trust = False,
) -> None:
    """Ask all questions and print how often a target is named, what is refused, ROUGE-L, calls and seconds of a query."""
    given = dict(locals())
    with told():
        from expunge.data.sources import load_rows
        from expunge.files import check_file
        from expunge.guard.measure import measure as measured
        from expunge.guard.measure import questions, table, write_json

        if out is not None:
            check_file(out)
        sets = {"forget": load_rows(forget, limit=limit), "retain": load_rows(retain, limit=limit)}
        for rows in sets.values():
            questions(rows)
        guard, write = _opened(given)
        found = {name: measured(guard, rows, each=write)[0] for name, rows in sets.items()}
        typer.echo(table(found))
        if out is not None:
            write_json(found, guard.settings, len(guard.targets), model, out)
            typer.echo(f"  {out}")


def _opened(given: dict[str, Any]) -> tuple[Guard, Callable[[Trail], Any]]:
    """The guard that the flags describe, and what keeps a trail; everything is checked before a model is loaded."""
    from expunge.errors import InputError
    from expunge.guard import Guard, Settings, read_targets
    from expunge.guard.trail import appender

    fields = {n: given[n] for n in Settings.__dataclass_fields__ if given.get(n) is not None}
    settings, targets = Settings(**fields), read_targets(given["targets"])
    Guard(lambda messages, **_: [], targets, settings)  # prompts too
    if given["agents_url"] and not given["agents_model"]:
        raise InputError("--agents-url needs --agents-model, the name of the model there")
    write = appender(given["log"]) if given["log"] else lambda trail: None
    theirs = _endpoint(given["agents_model"], given["agents_url"], given) if given["agents_model"] else None
    return Guard(_endpoint(given["model"], given["url"], given), targets, settings, theirs), write


def _endpoint(name: str, url: str | None, given: dict[str, Any]) -> Endpoint:
    """A local model, or one at an address."""
    from expunge.guard.endpoints import local, remote

    if url:
        return remote(url, name, timeout=given["timeout"])
    from expunge.cli.quiet import quiet
    from expunge.models import load

    quiet()
    loaded = load(name, device=given["device"], trust_remote_code=given["trust_remote_code"])
    return local(loaded.model, loaded.tokenizer, seed=given["seed"])
