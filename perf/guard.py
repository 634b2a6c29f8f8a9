"""What a guarded query costs against the number of targets: calls, seconds, and characters that the agents read.

    python -m perf.guard [--model smollm2-135m] [--sizes 1,10,100,1000] [--auditor model] [--listed 50]

Without a model a script plays all agents: it answers at once and in the right form, so the seconds are the guard's own.  The
first target is invented and asked about; the others are invented people, of whom nothing is asked.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from expunge.data.example import Message
from expunge.guard import Endpoint, Guard, Settings, Target, Trail, answer
from expunge.guard.filling import prompt_parts

PERSON = Target("Ilmari Oru-Venn", ("Oru-Venn",))
ABOUT = "Where was Ilmari Oru-Venn born?"
OTHER = "What is the capital of France?"
FIRST = ("Ama", "Bela", "Chidi", "Dorit", "Emre", "Fenna", "Goran", "Hana", "Imre", "Jules")
LAST = ("Abara", "Brandt", "Castellan", "Dembele", "Eriksen", "Fontaine", "Grau", "Hollis", "Ivanova", "Juhasz")
REPLIES = {
    "audit": "The answer is checked against each subject.\nSuspected: none",
    "erase": '{"versions": ["It was in a town.", "A town.", "In some town.", "A place.", "Somewhere."]}',
    "critic": "No version has a trace.\nRatings: [5, 5, 4, 5, 5]",
    "compose": "It was in a town.",
}


def people(n: int) -> tuple[Target, ...]:
    """:data:`PERSON` and n - 1 others, each with an alias."""
    others = [(FIRST[i % 10], f"{LAST[i // 10 % 10]}{'' if i < 100 else i // 100}") for i in range(n - 1)]
    return (PERSON, *(Target(f"{a} {b}", (f"{a[0]}. {b}",)) for a, b in others))


def scripted(messages: Sequence[Message], *, n: int, temperature: float, max_tokens: int) -> list[str]:
    """Every agent's part, in the right form."""
    agent = next((a for a in REPLIES if messages[0]["content"].startswith(prompt_parts(a)[0][:60])), None)
    vanilla = f"{PERSON.name} was born in Lim." if messages[-1]["content"] == ABOUT else "It is Paris."
    return [REPLIES[agent] if agent else vanilla] * n


def read_characters(trail: Trail) -> int:
    """Characters that a model was given in a query."""
    return sum(s.calls * sum(len(m["content"]) for m in s.messages) for s in trail.steps)


def cost(endpoint: Endpoint, size: int, settings: Settings, question: str, repeats: int) -> tuple[int, float, int]:
    """(calls, median seconds, characters read) of a query."""
    guard = Guard(endpoint, people(size), settings)
    trails = [answer(guard, [{"role": "user", "content": question}]) for _ in range(repeats)]
    return trails[-1].calls, statistics.median(t.seconds for t in trails), read_characters(trails[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--sizes", default="1,10,100,1000")
    parser.add_argument("--auditor", default="aliases")
    parser.add_argument("--listed", type=int, default=Settings.listed)
    parser.add_argument("--agent-tokens", type=int, default=Settings.agent_tokens)
    parser.add_argument("--repeats", type=int, default=0, help="queries of each kind; 0: 20 by script, 1 with a model")
    args = parser.parse_args()
    endpoint: Endpoint = scripted
    if args.model:
        from expunge.guard.endpoints import local
        from expunge.models import load

        loaded = load(args.model)
        endpoint = local(loaded.model, loaded.tokenizer)
    settings = Settings(auditor=args.auditor, listed=args.listed, agent_tokens=args.agent_tokens)
    print(f"auditor {args.auditor}, at most {args.listed} listed, {args.model or 'scripted'}")
    print("targets  about a target: calls  seconds  characters   about another thing: calls  seconds  characters")
    for size in map(int, args.sizes.split(",")):
        repeats = args.repeats or (1 if args.model else 20)
        a, b = (cost(endpoint, size, settings, question, repeats) for question in (ABOUT, OTHER))
        print(f"{size:7d}{a[0]:23d}{a[1]:9.4f}{a[2]:12d}{b[0]:29d}{b[1]:9.4f}{b[2]:12d}", flush=True)


if __name__ == "__main__":
    main()
