"""Memory format and compiler: the same game, on networks held otherwise; and numbers that are looked at without waiting."""

import math

import pytest
import pytorch_lightning as pl
import torch
from players import fit, make

from gebm_lightning import UserError, compose
from gebm_lightning.callbacks import EMA, Checkpoint, NonFiniteGuard
from gebm_lightning.config import instantiate
from gebm_lightning.lightning import GEBMModule
from gebm_lightning.lightning.checkpoint import read_checkpoint
from gebm_lightning.lightning.networks import compilable

PAIR = ["model=sngan", "data.size=16", "energy_schedule.num=1", "features=identity"]


class Losses(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.seen.append([float(v) for v in pl_module.logs.values()])


def losses(overrides, tmp_path, **how):
    module, data = make([*PAIR, *overrides])
    told = Losses()
    fit(module, data, 3, [EMA(), told], tmp_path=tmp_path, **how)
    return module, torch.tensor(told.seen)


def four_dimensional(module):
    return [
        p for p in (*module.critic.parameters(), *module.gebm.base.parameters()) if p.dim() == 4 and p[0, 0].numel() > 1
    ]


def test_images_as_height_width_channels_are_the_same_game(tmp_path):
    plain, expected = losses([], tmp_path)
    module, seen = losses([], tmp_path, channels_last=True)
    torch.testing.assert_close(seen, expected, rtol=1e-3, atol=1e-4)
    assert not all(p.is_contiguous(memory_format=torch.channels_last) for p in four_dimensional(plain))
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in four_dimensional(module))
    averaged = [p for p in module.ema.parameters() if p.dim() == 4 and p[0, 0].numel() > 1]
    assert averaged and all(p.is_contiguous(memory_format=torch.channels_last) for p in averaged)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "objective"), [("sngan", "hinge"), ("dcgan", "kale")])
def test_a_compiled_game_is_the_same(model, objective, tmp_path):
    """Of KALE with its gradient penalty the base alone is compiled: its critic needs second derivatives."""
    overrides = [f"model={model}", "data.size=16", f"objective={objective}"]
    overrides += ["objective.penalties.gradient=null"] if objective == "hinge" else []
    _, expected = losses(overrides, tmp_path)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    module, seen = losses(overrides, tmp_path, compile=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before, "nothing was compiled"
    torch.testing.assert_close(seen, expected, rtol=1e-3, atol=1e-4)
    assert module.gebm.base._compiled_call_impl is not None
    assert (module.critic._compiled_call_impl is not None) == (objective == "hinge")
    assert not any("_orig_mod" in key for key in module.state_dict())


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (["objective=kale", "objective.penalties.gradient=null"], (True, True)),
        (["objective=kale"], (True, False)),
        (["objective=mmd", "objective.penalties.gradient=null"], (True, True)),
        (["objective=scaled_mmd", "objective.penalties.gradient=null"], (True, False)),
        (["objective=score_matching"], (True, False)),
        (["objective=maximum_likelihood", "model=flow_gaussian", "data=ring"], (False, False)),
    ],
)
def test_only_what_has_no_second_derivatives_is_compiled(objective, expected):
    assert compilable(instantiate(compose(objective).objective)) == expected


def test_a_game_with_nothing_to_compile_is_refused(tmp_path):
    module, data = make(["objective=maximum_likelihood", "model=flow_gaussian", "data=ring"])
    with pytest.raises(UserError, match=r"trainer\.compile=true leaves nothing to compile with MaximumLikelihood"):
        fit(module, data, tmp_path=tmp_path, compile=True)


@pytest.mark.parametrize("key", ["channels_last", "compile"])
def test_words_are_no_settings(key):
    with pytest.raises(UserError, match=f"trainer.{key} must be true or false"):
        fit(*make(), **{key: "yes"})


class Poison(pl.Callback):
    def __init__(self, at):
        self.at = at

    def on_train_batch_end(self, trainer, pl_module, *_):
        if pl_module.base_updates == self.at:
            pl_module.logs["loss/energy"] = torch.tensor(math.nan)


@pytest.mark.parametrize("at", [2, 4])
def test_on_a_gpu_a_nan_is_told_one_update_later_and_never_not(at, tmp_path, monkeypatch):
    """As far as it can be seen without one."""
    monkeypatch.setattr(GEBMModule, "on_gpu", True)
    module, data = make(["energy_schedule.num=1"])
    with pytest.raises(UserError, match=rf"diverged: loss/energy is not finite at base update {at};"):
        fit(module, data, 4, [Poison(at), NonFiniteGuard()], tmp_path=tmp_path)
    assert module.base_updates == min(at + 1, 4)


@pytest.mark.parametrize("at", [2, 4])
def test_nor_is_it_saved_meanwhile(at, tmp_path, monkeypatch):
    monkeypatch.setattr(GEBMModule, "on_gpu", True)
    module, data = make(["energy_schedule.num=1"])
    with pytest.raises(UserError, match="diverged: loss/energy"):
        fit(module, data, 4, [Poison(at), NonFiniteGuard(), Checkpoint(every_n_base_updates=1)], tmp_path=tmp_path)
    assert read_checkpoint(tmp_path)["gebm_lightning"]["base_updates"] == at - 1
