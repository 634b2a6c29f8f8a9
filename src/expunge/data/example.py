"""tmp"""
from dataclasses import dataclass
@dataclass(frozen=True)
class Row:
    prompt: object; answer: str; alternate: str | None = None; paraphrase: str | None = None; perturbed: tuple = (); where: str = ""
@dataclass(frozen=True)
class Example:
    input_ids: tuple; labels: tuple
