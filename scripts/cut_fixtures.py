"""Cut ``tests/fixtures`` from the originals that ``tests/fixtures/SOURCES.md`` names: ``cut_fixtures.py FOLDER``.

Rows and columns are left out, nothing is changed or rounded.  The same originals give the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
TOFU = "tofu_Llama-3.2-1B-Instruct_"
LOGS = {f"full{s}": f"{TOFU}full/evals_forget{s}" for s in ("01", "05", "10")} | {
    f"retain{s}": f"{TOFU}retain{s}" for s in ("99", "95", "90")
}
DOCUMENTS = 6  # of each task of LUME
PEOPLE = ("3_Bruce_Lee", "10_Prince_Harry,_Duke_of_Sussex")
PROBES = ("forget_level1", "forget_level2", "forget_level3", "neighbor_level1", "neighbor_level2")
TASKS = (1, 2, 3, 4, 10, 11, 12, 510, 511, 600, 601, 602, 974)  # of MBPP: its parts' first and last
SUBJECTS = ("abstract_algebra", "high_school_world_history", "us_foreign_policy")


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True)


def write(name: str, text: str) -> None:
    path = FIXTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")


def copy(source: Path, names: Iterable[str]) -> None:
    for name in names:
        (FIXTURES / name).parent.mkdir(parents=True, exist_ok=True)
        (FIXTURES / name).write_bytes((source / name).read_bytes())


def tofu_eval_logs(source: Path) -> None:
    """Of each log the columns that a figure is computed from, in lists; texts of one model only, for ROUGE."""
    for model, place in LOGS.items():
        log, summary = (
            json.loads((source / "tofu_eval_logs" / place / f"TOFU_{kind}.json").read_text())
            for kind in ("EVAL", "SUMMARY")
        )
        cut = {name: _metric(name, of, texts=model == "retain90") for name, of in log.items()}
        data = json.dumps({"log": cut, "summary": summary}, ensure_ascii=False, separators=(",", ":")).encode()
        (FIXTURES / "tofu_eval_logs").mkdir(parents=True, exist_ok=True)
        (FIXTURES / "tofu_eval_logs" / f"{model}.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))


def _metric(name: str, of: dict[str, Any], *, texts: bool) -> dict[str, Any]:
    if name.startswith("mia_"):
        return {k: _columns(of[k], ("score",)) for k in ("forget", "holdout")} | {"auc": of["auc"]}
    return {"agg_value": of["agg_value"]} | _columns(of, _keys(name, texts))


def _keys(name: str, texts: bool) -> tuple[str, ...]:
    if name.endswith("_ROUGE"):
        all_of = ("rouge1_recall", "rougeL_f1", "rougeL_recall", "ground_truth", "generation")
        if texts and not name.startswith("retain"):
            return all_of
        return ("rougeL_recall", "ground_truth") if name.startswith("forget") else ("rougeL_recall",)
    if name.endswith("_Prob"):
        return ("avg_loss", "prob") if name.endswith("_Q_A_Prob") else ("avg_loss",)
    return ("prob",) if name.endswith("_normalised") else ("score",)


def _columns(of: dict[str, Any], keys: tuple[str, ...]) -> dict[str, list[Any]]:
    rows = of.get("value_by_index", {})
    return {k: [rows[i][k] for i in sorted(rows, key=int)] for k in keys if rows}


def lume(source: Path) -> None:
    """All rows of the first documents of each task."""
    for split in ("forget", "retain"):
        seen: dict[str, dict[str, None]] = {}
        out = []
        for line in lines(source / "lume" / f"{split}.jsonl"):
            row = json.loads(line)
            documents, document = seen.setdefault(row["task"], {}), re.sub(r"(sc|qa)\d+$", "", row["id"])
            if document in documents or len(documents) < DOCUMENTS:
                documents[document] = None
                out.append(line)
        write(f"lume/{split}.jsonl", "".join(out))
    copy(source, ["lume/LICENSE", "lume/NOTICE"])


def rwku(source: Path) -> None:
    copy(source, [f"rwku/Target/{person}/{name}.json" for person in PEOPLE for name in PROBES])


def wmdp(source: Path) -> None:
    """Of each area and each of the four answers the first question, if there is one the first with blanks around it."""
    for area in ("bio", "chem", "cyber"):
        rows = json.loads((source / "wmdp" / f"{area}-questions.json").read_text())
        rows.sort(key=lambda r: r["question"] == r["question"].strip())
        cut = [next(r for r in rows if r["answer"] == i and len(r["question"]) < 1000) for i in range(4)]
        write(f"wmdp/{area}-questions.json", json.dumps(cut, ensure_ascii=False, indent=1) + "\n")


def mmlu(source: Path) -> None:
    """Three subjects: all five examples and the first eight questions."""
    for subject in SUBJECTS:
        copy(source, [f"mmlu/dev/{subject}_dev.csv"])
        path = source / "mmlu" / "test" / f"{subject}_test.csv"
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            for _ in range(9):  # a header and eight questions, which may be several lines long
                next(reader)
            end = reader.line_num
        with path.open(newline="", encoding="utf-8") as file:
            write(f"mmlu/test/{subject}_test.csv", "".join(file.readlines()[:end]))


def muse(source: Path) -> None:
    names = ("forget_qa", "forget_qa_icl", "retain2_qa", "retain2_qa_icl")
    copy(source, [f"muse_news_knowmem/{name}.json" for name in names])


def ner(source: Path) -> None:
    """WikiGold whole, for its published counts; of WNUT-17 every tenth sentence."""
    copy(source, ["ner/wikigold/wikigold.conll.txt"])
    for name in ("train", "test"):
        sentences = (source / "ner/wnut17" / f"{name}.conll").read_text(encoding="utf-8").strip("\n").split("\n\n")
        write(f"ner/wnut17/{name}.conll", "\n\n".join(sentences[::10]) + "\n\n")


def code(source: Path) -> None:
    """HumanEval whole; of MBPP the first and last of each part; the first problems of GSM8K."""
    copy(source, ["humaneval/HumanEval.jsonl.gz"])
    mbpp = lines(source / "mbpp" / "mbpp.jsonl")
    write("mbpp/mbpp.jsonl", "".join(row for row in mbpp if json.loads(row)["task_id"] in TASKS))
    for name, n in (("train", 20), ("test", 5)):
        write(f"gsm8k/{name}.jsonl", "".join(lines(source / "gsm8k" / f"{name}.jsonl")[:n]))


TWEETS = (
    "The cat sat on the mat.",
    "What a beautiful day.",
    "The river is forty miles long.",
    "You are an idiot.",
    "Shut up, you stupid, STUPID fool.",
    "Café naïve don't 123 the the the",
    "zzzz",
)


def hatesonar() -> None:
    """The weights of the words of a few texts in HateSonar's model, and what onnxruntime makes of each text."""
    import numpy as np
    import onnx
    import onnxruntime

    spec = find_spec("hatesonar")
    assert spec is not None and spec.origin is not None
    model = onnx.load(str(Path(spec.origin).parent / "model" / "model.onnx"))
    read = onnx.helper.get_attribute_value
    nodes = {n.op_type: {a.name: read(a) for a in n.attribute} for n in model.graph.node}
    idf = onnx.numpy_helper.to_array(next(i for i in model.graph.initializer if i.name == "idfcst"))
    coefficients = np.reshape(nodes["LinearClassifier"]["coefficients"], (3, -1))
    counted = nodes["TfIdfVectorizer"]
    column = dict(zip((w.decode() for w in counted["pool_strings"]), counted["ngram_indexes"], strict=True))
    words = sorted({w for text in TWEETS for w in re.findall(r"\w+", text.lower(), re.ASCII)} & set(column))
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":  # its own locale, en_US, is not on every machine
            node.attribute.append(onnx.helper.make_attribute("locale", "C"))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    cut = {
        "texts": TWEETS,
        "neither": [float(session.run(None, {"text": np.array([t], dtype=object)})[1][0][2]) for t in TWEETS],
        "words": words,
        "weights": [[*map(float, coefficients[:, column[w]]), float(idf[column[w]])] for w in words],
        "intercepts": [float(b) for b in nodes["LinearClassifier"]["intercepts"]],
    }
    write("hatesonar.json", json.dumps(cut, ensure_ascii=False, indent=1) + "\n")


def main(source: Path) -> None:
    parts: tuple[Callable[[Path], None], ...] = (tofu_eval_logs, lume, rwku, wmdp, mmlu, muse, ner, code)
    for part in parts:
        part(source)
    if find_spec("hatesonar") and find_spec("onnxruntime"):
        hatesonar()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
