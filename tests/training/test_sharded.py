"""FSDP2: every method on several processes, each with its shards, moves the weights as one process does."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import ANY

import launch
import one_mesh
import pytest
import sharded_worker
import tiny
import torch
from torch.distributed.tensor import Shard, distribute_tensor

from expunge import methods
from expunge.errors import InputError
from expunge.method import build
from expunge.training import sharded
from expunge.training.arguments import arguments, parse
from expunge.training.gradients import gramian, write_combined
from expunge.unlearning import settings as recipe

CASES = sharded_worker.cases()


def same(got: torch.Tensor, name: str) -> None:
    case = CASES[name]
    method = build(case.method, case.parameters)
    tiny.assert_same_steps(got, sharded_worker.moved(case, 1), method, atol=1e-4, rtol=0)


# -- numbers ----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def mesh(tmp_path):
    with one_mesh.mesh(tmp_path) as made:
        yield made


def lists(seed: int) -> list[torch.Tensor | None]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, generator=g), None if seed else torch.randn(2, generator=g), torch.randn(5, generator=g)]


def test_the_gramian_and_the_weighted_sum_of_dtensors_are_those_of_plain_tensors(mesh):
    plain, cut = [lists(0), lists(1)], [lists(0), lists(1)]
    cut = [[g if g is None else distribute_tensor(g, mesh, [Shard(0)]) for g in gs] for gs in cut]
    found = gramian(cut)
    assert type(found) is torch.Tensor
    torch.testing.assert_close(found, gramian(plain), rtol=0, atol=0)
    params = [torch.nn.Parameter(torch.zeros(s)) for s in ((4, 3), (2,), (5,))]
    shards = [torch.nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)])) for p in params]
    weights = torch.tensor([0.5, -2.0])
    write_combined(params, plain, weights)
    write_combined(shards, cut, weights)
    for p, q in zip(params, shards, strict=True):
        torch.testing.assert_close(q.grad.full_tensor(), p.grad, rtol=0, atol=0)


def test_inner_products_are_summed_over_the_mesh_of_the_shards_once(mesh, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x, group=None: calls.append(x) or x.mul_(2))
    whole, shard = torch.ones(3), distribute_tensor(torch.ones(3), mesh, [Shard(0)])
    assert gramian([[whole, shard]]).tolist() == [[3.0 + 2 * 3.0]]  # as if another process held as much
    assert [c.shape for c in calls] == [(1, 1)]


# -- refusals ---------------------------------------------------------------------------------------------------------------
def test_version_1_is_refused_and_version_2_is_named():
    def accelerator(version):
        kind = SimpleNamespace(value="FSDP")
        return SimpleNamespace(
            distributed_type=kind, state=SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=version))
        )

    assert sharded.version(accelerator(2)) == 2
    with pytest.raises(InputError, match="use version 2"):
        sharded.version(accelerator(1))
    assert sharded.version(tiny.trainer(methods.npo()).accelerator) is None


def args_on(kind: str, fsdp: bool | None = None, **plugin: int) -> SimpleNamespace:
    return SimpleNamespace(fsdp=fsdp, fsdp_plugin_args=plugin, device=torch.device(kind))


def test_version_1_is_refused_before_a_model_is_loaded(monkeypatch):
    sharded.check(args_on("cuda", True, fsdp_version=2))
    with pytest.raises(InputError, match="FSDP version 1 flattens"):
        sharded.check(args_on("cuda", True, fsdp_version=1))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as accelerate launch
    with pytest.raises(InputError, match="fsdp_version: 2 in the configuration"):
        sharded.check(args_on("cuda"))
    monkeypatch.setenv("FSDP_VERSION", "2")
    sharded.check(args_on("cuda"))


def test_a_torch_that_shards_on_no_cpu_is_named_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr(torch.cpu.Stream, "record_event", lambda self: None, raising=False)
    sharded.check(args_on("cpu", True, fsdp_version=2))
    monkeypatch.delattr(torch.cpu.Stream, "record_event")
    with pytest.raises(InputError, match="shards with FSDP2 on GPUs only; for CPUs take a newer torch"):
        sharded.check(args_on("cpu", True, fsdp_version=2))
    sharded.check(args_on("cuda", True, fsdp_version=2))
    sharded.check(args_on("cpu"))  # asks for none


def test_an_optimizer_that_cannot_is_refused():
    plain = vars(args_on("cuda", True, fsdp_version=2))
    sharded.check(SimpleNamespace(**plain, optim="adamw_torch"))
    with pytest.raises(InputError, match="optim=adafactor does not run on shards"):
        sharded.check(SimpleNamespace(**plain, optim="adafactor"))


def test_the_process_that_starts_the_others_takes_what_is_of_several():
    of_several = {"fsdp": "full_shard", "fsdp_config": '{"version": 2}', "ddp_backend": "gloo"}
    given = {"model": "m", "forget": "f", "retain": "r", "processes": 2, **of_several}
    assert recipe.make(given, "the run").training == {**of_several, "fsdp_config": ANY}
    with pytest.raises(InputError, match="this is one: start several with --processes N or torchrun"):
        arguments({"fsdp": "full_shard"}, {}, "x", 0)


def test_fsdp_is_said_as_older_and_newer_transformers_say_it():
    assert [parse("fsdp", value) for value in ("true", True, "full_shard")] == [True, True, "full_shard"]


# -- in the session's launch ------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not sharded.runs_on_cpu(), reason="this torch shards on no CPU")
@pytest.mark.parametrize("name", sharded_worker.IN_SESSION)
def test_two_processes_with_shards_move_the_weights_as_one_does(name, tmp_path_factory):
    folder = launch.launched(tmp_path_factory)
    same(torch.load(folder / "sharded" / f"{name}.pt"), name)


# -- every method -----------------------------------------------------------------------------------------------------------
PARTS = 4  # launches for all cases, each within the time that one may take


@pytest.fixture(scope="module", params=[(n, part) for n in (2, 4) for part in range(PARTS)], ids="{0[0]}-{0[1]}".format)
def left(request, tmp_path_factory):
    """The cases of one launch, and the folder that several processes left their weights in."""
    n, part = request.param
    names, folder = list(CASES)[part::PARTS], tmp_path_factory.mktemp(f"sharded-{n}-{part}")
    return n, names, folder, launch.several_processes("sharded_worker.py", [str(folder), *names], folder, n)


@pytest.mark.slow
def test_every_method_moves_the_weights_as_one_process_does(left, capsys):
    """Prints the largest difference of a weight."""
    n, names, folder, said = left
    off = {}
    for name in names:
        assert (folder / f"{name}.pt").exists(), f"{name}: {said}"
        got = torch.load(folder / f"{name}.pt")
        same(got, name)
        off[name] = float((got - sharded_worker.moved(CASES[name], 1)).abs().max())
    worst = max(off, key=off.__getitem__)
    with capsys.disabled():
        print(f"\n{n} processes, {len(names)} cases: at most {off[worst]:.1e} ({worst})")
