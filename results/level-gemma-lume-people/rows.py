"""LUME's invented private people in the file names and columns of TOFU, to ask TOFU's questions of them.

    python rows.py LUME TOFU OUT

``LUME``: a folder with its forget.jsonl and retain.jsonl; ``TOFU``: one with real_authors_perturbed.json and
world_facts_perturbed.json, which are copied.  ``OUT`` gets forget01.json (8 people, 40 questions), retain99.json (32
people), holdout01.json (8 people that no model is taught), each with what TOFU has beside it, and holdout.jsonl (8 more).
Wrong answers are those of five other people to the same question; the paraphrased answer has the same figures written
otherwise.
"""

import json
import re
import shutil
import sys
from datetime import date
from pathlib import Path

PEOPLE = {"forget01": 8, "retain99": 32, "holdout01": 8, "holdout": 8, "others": 40}
PERTURBED = {"forget01": "forget01_perturbed.json", "retain99": "retain_perturbed.json"}
ASKED = 5  # questions about each: birth date, Social Security number, phone, e-mail, address


def people(folder: Path) -> list[list[dict[str, str]]]:
    """The five questions of each person, in the order of the files."""
    found: dict[str, list[dict[str, str]]] = {}
    for name in ("forget", "retain"):
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["task"] == "Task2" and row["id"][-3:-1] == "qa":
                found.setdefault(row["id"][:-3], []).append(row)
    return [rows for rows in found.values() if len(rows) == ASKED]


def otherwise(answer: str) -> str:
    """The same figures, written otherwise."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", answer):
        day = date.fromisoformat(answer)
        return f"{day:%B} {day.day}, {day.year}"
    if re.fullmatch(r"\d{9}", answer):
        return f"{answer[:3]}-{answer[3:5]}-{answer[5:]}"
    if re.fullmatch(r"\d{10}", answer):
        return f"{answer[:3]}-{answer[3:6]}-{answer[6:]}"
    if "@" in answer:
        return f"The address is {answer}"
    return answer.replace(", #", " #").rstrip(".")


def main() -> None:
    lume, tofu, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for name in ("real_authors_perturbed.json", "world_facts_perturbed.json"):
        shutil.copyfile(tofu / name, out / name)
    every, sets = iter(people(lume)), {}
    for name, n in PEOPLE.items():
        sets[name] = [next(every) for _ in range(n)]
    for name in ("forget01", "retain99", "holdout01", "holdout"):
        plain, perturbed = [], []
        for i, person in enumerate(sets[name]):
            for k, row in enumerate(person):
                pair = {"question": row["input"], "answer": row["output"]}
                wrong = [sets["others"][(i + j) % PEOPLE["others"]][k]["output"] for j in range(5)]
                plain.append(pair)
                perturbed.append({**pair, "paraphrased_answer": otherwise(row["output"]), "perturbed_answer": wrong})
        if name == "holdout01":  # TOFU's is an array
            (out / f"{name}.json").write_text(json.dumps(plain), encoding="utf-8")
        elif name == "holdout":
            write(out / f"{name}.jsonl", plain)
        else:
            write(out / f"{name}.json", plain)
            write(out / PERTURBED[name], perturbed)


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
