"""Pairing is a function of (seed, epoch, index); padding is little; ranks share an epoch."""

from __future__ import annotations

import pytest
import tiny
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from expunge.data.collate import collate
from expunge.data.refusals import refusal, refusals
from expunge.data.streams import EpochSampler, PairedDataset, order

LENGTHS = [7, 3, 9, 1, 8, 2, 6, 4, 5, 0, 11, 10, 12]


@pytest.mark.parametrize("window", [1, 4, 50])
def test_order_is_a_permutation_and_a_function(window):
    one = order(LENGTHS, (0,), 0, window)
    assert sorted(one) == list(range(13)) and one == order(LENGTHS, (0,), 0, window)
    assert one != order(LENGTHS, (0,), 1, window) or window == 50
    assert order(LENGTHS, (0,), 0, 1) != order(LENGTHS, (1,), 0, 1)


def test_windows_hold_like_lengths():
    indices = order(LENGTHS, (0,), 0, 4)  # 13 rows are one bucket of 16: windows are ranks 0-3, 4-7, 8-11, and 12 alone
    windows = {tuple(sorted(LENGTHS[i] for i in indices[s : s + 4])) for s in range(0, 13, 4)}
    assert windows == {(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12,)}
    assert LENGTHS[indices[-1]] == 12  # the short window stays last


def test_every_row_is_seen_once_before_any_is_seen_twice():
    data = PairedDataset({"forget": tiny.examples(0, 4), "retain": tiny.examples(50, 10)}, seed=3, window=2)
    pairs = [data[k] for k in range(20)]  # 5 epochs of forget, 2 of retain
    for e in range(5):
        assert sorted(s["forget"]["index"] for s in pairs[4 * e : 4 * e + 4]) == [0, 1, 2, 3]
    for c in range(2):
        assert sorted(s["retain"]["index"] for s in pairs[10 * c : 10 * c + 10]) == list(range(10))
    assert pairs == [PairedDataset(data.streams, seed=3, window=2)[k] for k in range(20)]


def test_alternates_are_aligned_with_forget():
    data = tiny.paired()
    for k in range(16):
        row = data[k]
        assert row["alternate"]["index"] == row["forget"]["index"]
        assert row["alternate"]["input_ids"] == data.streams["alternate"][row["forget"]["index"]].input_ids


def test_two_ranks_cover_an_epoch_without_overlap():
    sampler = EpochSampler(8)
    sampler.set_epoch(3)
    shards = [BatchSamplerShard(BatchSampler(sampler, 2, False), 2, rank) for rank in range(2)]
    ranks = [[k for batch in shard for k in batch] for shard in shards]
    assert not set(ranks[0]) & set(ranks[1]) and sorted(ranks[0] + ranks[1]) == list(range(24, 32))


def test_an_epochs_short_end_goes_on_with_filler_for_several_processes():
    sampler = EpochSampler(9, together=4)
    sampler.set_epoch(1)
    assert len(sampler) == 12 and list(sampler) == [*range(9, 18), -18, -18, -18]
    shards = [BatchSamplerShard(BatchSampler(sampler, 2, False), 2, rank) for rank in range(2)]
    assert [list(shard)[-1] for shard in shards] == [[17, -18], [-18, -18]]
    assert list(EpochSampler(9)) == list(range(9))
    data = tiny.paired(9)
    last, filler = data[17], data[-18]
    assert filler == {name: {**row, "filler": True} for name, row in last.items()}
    mixed, nothing = (collate(rows, pad_id=0) for rows in ([last, filler], [filler, filler]))
    for name, row in last.items():
        assert mixed[name]["index"] == (row["index"],) and "filler" not in mixed[name]
        assert nothing[name]["index"] == (row["index"],) and nothing[name]["filler"]


def test_collate_by_hand():
    rows = [
        {"input_ids": (5, 6), "labels": (-100, 6), "index": 3},
        {"input_ids": (7, 0, 0), "labels": (7, 0, 0), "index": 1},
    ]
    out = collate([{"forget": r} for r in rows], pad_id=0)["forget"]
    assert out["input_ids"].tolist() == [[5, 6, 0], [7, 0, 0]]
    assert out["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]  # the 0 that is an end of turn is attended
    assert out["labels"].tolist() == [[-100, 6, -100], [7, 0, 0]]
    assert out["labels"].dtype == torch.long
    # what a step would otherwise read back from the device
    assert out["index"] == (3, 1) and out["lengths"] == (1, 2) and out["padding"] == "right"
    assert out["labelled"].tolist() == [[0, 1, 1], [0, 0, 1]]  # row, and the position that predicts the label
    assert out["real"].tolist() == [[0, 0, 1, 1, 1], [0, 1, 0, 1, 2]]
    empty = collate([{"input_ids": (5,), "labels": (-100,), "index": 0}], pad_id=0)
    assert empty["labelled"].shape == (2, 0) and empty["labelled"].dtype == torch.long and empty["lengths"] == (0,)


def test_refusals_are_many_distinct_and_drawn_by_the_seed():
    assert len(set(refusals())) == len(refusals()) >= 50 and all(r.strip() == r and r.endswith(".") for r in refusals())
    drawn = [refusal(0, i) for i in range(len(refusals()))]
    assert set(drawn) == set(refusals()) and drawn == [refusal(0, i) for i in range(len(drawn))]
    assert drawn != [refusal(1, i) for i in range(len(drawn))]
