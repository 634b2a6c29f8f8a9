"""tmp"""
import torch
def collate(rows, *, pad_id):
    if "input_ids" not in rows[0]:
        return {k: collate([r[k] for r in rows], pad_id=pad_id) for k in rows[0]}
    T = max(len(r["input_ids"]) for r in rows)
    ids = torch.full((len(rows), T), pad_id); m = torch.zeros(len(rows), T, dtype=torch.long); y = torch.full((len(rows), T), -100)
    for i, r in enumerate(rows):
        n = len(r["input_ids"]); ids[i,:n] = torch.tensor(list(r["input_ids"])); m[i,:n]=1; y[i,:n]=torch.tensor(list(r["labels"]))
    return {"input_ids": ids, "attention_mask": m, "labels": y, "index": torch.tensor([r["index"] for r in rows])}
