r"""A real GGUF round trip: the model is exported, quantised as llama.cpp does it, and loaded again.

The same attack as :func:`~expunge.attacks.weights.quantise`, by the format in which models are passed on, tokenizer
included where it can be written (byte-level BPE that llama.cpp has a name for; else the weights alone).  Cost: a file
of the model's size in the temporary folder, a second model in memory, and two calls of ``measure``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from expunge.attacks.attack import Attack, Measure, Point, Subject
from expunge.attacks.restore import refuse_quantized
from expunge.models import gguf_write

BITS = {"Q8_0": 8, "Q4_0": 4}


def round_trip(subject: Subject, measure: Measure) -> list[Point]:
    """What is known after a Q8_0 and a Q4_0 file; the strength is 1 / bits.

    Raises InputError where the package gguf is missing or the model is of a family that cannot be written.
    """
    gguf_write.check(subject.model)
    refuse_quantized(subject.model)
    points = []
    for kind, bits in BITS.items():
        with tempfile.TemporaryDirectory(prefix="expunge-gguf-") as folder:
            file = Path(folder) / "model.gguf"
            gguf_write.write(subject.model, file, kind, subject.tokenizer)
            points.append(Point(1 / bits, f"GGUF {kind}", measure(gguf_write.read_again(file, subject.model))))
    return points


ATTACKS = (Attack("gguf", "weights", "exported to GGUF, quantised and loaded again", round_trip, unit="1 / bits"),)
