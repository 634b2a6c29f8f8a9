"""The optimizer's state whole, as safetensors: in shards or not, each kind of run goes on from the other's."""

from __future__ import annotations

import one_mesh
import pytest
import torch
from torch.distributed.tensor import Shard, distribute_tensor

from expunge.sophia import Sophia
from expunge.training import checkpoints, moments, pieces

OPTIMIZERS = {
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.1, betas=(0.8, 0.9), foreach=False),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.1, momentum=0.9),
    "sophia": lambda ps: Sophia(ps, lr=0.1, rho=1.0),
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1),
}


def parameters(mesh=None):
    plain = [torch.linspace(-1, 1, 6).reshape(3, 2), torch.linspace(0, 1, 4)]
    return [torch.nn.Parameter(p if mesh is None else distribute_tensor(p, mesh, [Shard(0)])) for p in plain]


def step(optimizer, number):
    """A step with gradients that follow from ``number``."""
    for group in optimizer.param_groups:
        for i, p in enumerate(group["params"]):
            p.grad = p.detach() * (number + 1) + i
            if isinstance(optimizer, Sophia):
                optimizer.update_curvature({p: p.grad**2})
    optimizer.step()


def whole(params):
    return torch.cat([getattr(p, "full_tensor", lambda p=p: p)().detach().flatten() for p in params])


def saved(place, optimizer, sharded):
    if sharded:
        pieces.write(place, moments.NAME, moments.tensors(optimizer))
        moments.write_groups(place, optimizer)
    else:
        torch.save(optimizer.state_dict(), place / moments.WHOLE)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("into", [True, False], ids=["into shards", "into one"])
@pytest.mark.parametrize("of", [True, False], ids=["of shards", "of one"])
def test_a_step_after_going_on_is_the_same(tmp_path, name, of, into):
    with one_mesh.mesh(tmp_path) as mesh:
        first = parameters(mesh if of else None)
        optimizer = OPTIMIZERS[name](first)
        step(optimizer, 0)
        optimizer.param_groups[0]["lr"] = 0.05
        saved(tmp_path, optimizer, of)
        assert checkpoints.has_optimizer(tmp_path) and moments.exists(tmp_path) == of
        second = parameters(mesh if into else None)
        again = OPTIMIZERS[name](second)
        step(again, 0)  # the weights as they were saved
        again.state.clear()
        moments.load(tmp_path, again)
        groups = [{k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (again, optimizer)]
        assert groups[0] == groups[1]
        for one in (optimizer, again):
            step(one, 1)
        assert torch.equal(whole(second), whole(first))
        kinds = [{k: hasattr(v, "placements") for k, v in again.state[p].items()} for p in second]
        assert all(is_cut == (into and key != "step") for kind in kinds for key, is_cut in kind.items())


def test_a_state_of_another_shape_is_the_same_in_all_processes(tmp_path):
    with one_mesh.mesh(tmp_path) as mesh:
        (first, *_), plain = parameters(mesh), torch.ones(2)
        assert moments._placed(torch.tensor(3.0), first, ()).dim() == 0
        assert moments._placed(plain, first, (2,)).placements[0].is_replicate()
        assert moments._placed(plain, plain, (2,)) is plain
