"""Which rows meet in a step: a pure function of (seed, epoch, index), whatever the ranks, workers and micro-batches."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from expunge.data.example import Example

BUCKET = 4  # windows that are sorted by length together


def order(lengths: Sequence[int], seed: Sequence[int], cycle: int, window: int) -> list[int]:
    """A permutation of ``range(len(lengths))`` in which each window of rows has like lengths, so little is padding.

    Shuffled, cut into buckets of ``4 * window`` rows, each bucket sorted by length and cut into windows, the windows
    shuffled (a short last one stays last).  ``window`` is an optimizer step's rows: cutting it into micro-batches
    cannot change which rows a step sees.
    """
    rng = np.random.default_rng([*seed, cycle])
    shuffled = rng.permutation(len(lengths)).tolist()
    windows: list[list[int]] = []
    for start in range(0, len(shuffled), BUCKET * window):
        bucket = sorted(shuffled[start : start + BUCKET * window], key=lambda i: lengths[i])
        windows += [bucket[i : i + window] for i in range(0, len(bucket), window)]
    short = windows.pop() if windows and len(windows[-1]) < window else []
    return [i for k in rng.permutation(len(windows)) for i in windows[k]] + short


class PairedDataset(Dataset[Any]):
    """Streams of examples, read by one global index ``k = epoch * n + i``, n the rows of the forget stream.

    Stream s with n_s rows is at row k % n_s of its permutation of cycle k // n_s: every row is seen once before any
    is seen twice, and forget and retain permutations are independent.  ``alternate`` is aligned with forget: its row j
    is the alternate answer of forget row j.
    """

    def __init__(self, streams: Mapping[str, Sequence[Example]], seed: int, window: int):
        self.streams = streams
        self._lengths = {name: tuple(len(e.input_ids) for e in rows) for name, rows in streams.items()}
        self.seed = seed
        self.window = window

    def __len__(self) -> int:
        return len(self.streams["forget"])

    def __getitem__(self, k: int) -> dict[str, dict[str, Any]]:
        """The rows at ``k``; at ``-1 - k`` they are the same, marked as ``filler``, which counts for nothing."""
        if k < 0:
            return {name: {**row, "filler": True} for name, row in self[-1 - k].items()}
        out: dict[str, dict[str, Any]] = {}
        for name, examples in self.streams.items():
            j = self._row("forget" if name == "alternate" else name, k)
            out[name] = {"input_ids": examples[j].input_ids, "labels": examples[j].labels, "index": j}
        return out

    def rows(self, stream: str, n: int) -> list[int]:
        """The rows of ``stream`` among the global indices below ``n``, ascending, each once."""
        name = "forget" if stream == "alternate" else stream
        cycle = len(self.streams[name])
        return list(range(cycle)) if n >= cycle else sorted({self._row(name, k) for k in range(n)})

    def _row(self, stream: str, k: int) -> int:
        lengths = self._lengths[stream]
        cycle, at = divmod(k, len(lengths))
        return _order(lengths, (self.seed, sum(stream.encode())), cycle, self.window)[at]


_order = functools.lru_cache(maxsize=16)(order)


class EpochSampler(Sampler[int]):
    """The global indices of one epoch, in order; the data set does the shuffling.

    Where an epoch's last step is too short to give each of several processes a micro-batch, the epoch goes on with filler
    up to a multiple of ``together``, the rows of one micro-batch of all processes.

    ``reached()`` is the epoch that a resumed run goes on in, which some versions of accelerate do not pass to the sampler
    the batches that are left.
    """

    def __init__(self, rows: int, together: int = 1, reached: Callable[[], int] = int):
        self.rows = rows
        self.filler = -rows % together
        self.epoch = 0
        self.reached = reached

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is; the trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        end = (max(self.epoch, self.reached()) + 1) * self.rows
        return itertools.chain(range(end - self.rows, end), [-end] * self.filler)  # -1 - (end - 1): the last row again

    def __len__(self) -> int:
        return self.rows + self.filler
