"""Norms beside the curves: gradients before clipping, the critic's layers as they are when sampled."""

import copy
import csv

import pytest
import pytorch_lightning as pl
import torch

from gebm_lightning import compose
from gebm_lightning.callbacks import Monitor
from gebm_lightning.config import build_parts, instantiate
from gebm_lightning.lightning import GEBMModule, make_trainer
from gebm_lightning.lightning.loggers import RunCSVLogger


class Norms(pl.Callback):
    """The norms that the optimisers see, which are those after clipping, by player; and the last step's own."""

    def __init__(self):
        self.seen, self.logs = {"energy": [], "base": []}, {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        player = "energy" if optimizer is trainer.optimizers[0] else "base"
        parameters = (pl_module.critic if player == "energy" else pl_module.gebm.base).parameters()
        self.seen[player].append(torch.cat([p.grad.flatten() for p in parameters]).norm().item())

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.logs = dict(pl_module.logs)


def train(overrides, *callbacks, logger=False, updates=1):
    cfg = compose(["model.width=4", "data.batch_size=16", "energy_schedule.num=2", *overrides])
    optim, schedule = instantiate(cfg.optim), instantiate(cfg.energy_schedule)
    module = GEBMModule(*build_parts(cfg), optim, schedule, cfg.train_mode, cfg.seed)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = make_trainer(updates, accelerator="cpu", logger=logger, callbacks=list(callbacks), **quiet)
    trainer.fit(module, datamodule=instantiate(cfg.data))
    return module


def test_gradient_norms_are_those_before_clipping():
    free, clipped = Norms(), Norms()
    train([], free)
    for player in ("energy", "base"):
        assert free.logs[f"grad_norm/{player}"].item() == pytest.approx(free.seen[player][-1], rel=1e-5)
        assert not free.logs[f"grad_norm/{player}"].requires_grad
    # The base's turn comes after both of the energy's, whose first gradient is that of the free game.
    train(["optim.energy_clip_norm=1e-4", "energy_schedule.num=1"], clipped)
    assert clipped.seen["energy"][-1] == pytest.approx(1e-4, rel=1e-2)
    assert clipped.logs["grad_norm/energy"].item() == pytest.approx(free.seen["energy"][0], rel=1e-5)


def test_a_player_that_stays_has_no_norm():
    seen = Norms()
    train(["train_mode=energy"], seen)
    assert "grad_norm/energy" in seen.logs and "grad_norm/base" not in seen.logs


@pytest.mark.parametrize("spectral", [False, True])
def test_the_monitor_logs_norms_and_moves_no_power_iteration(tmp_path, spectral):
    choice = [f"model.energy.spectral={spectral}"]
    plain = train(choice, updates=2)
    logger = RunCSVLogger(str(tmp_path))
    module = train(choice, Monitor(2, 2, 16), logger=logger, updates=2)
    logger.save()
    (row,) = csv.DictReader((tmp_path / "metrics.csv").open())
    assert float(row["grad_norm/energy"]) > 0 and float(row["grad_norm/base"]) > 0
    critic = copy.deepcopy(module.critic).eval()
    layers = {n: m for n, m in critic.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))}
    assert {k.removeprefix("spectral_norm/") for k in row if k.startswith("spectral_norm/")} == layers.keys() != set()
    for name, layer in layers.items():
        expected = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item()
        assert float(row[f"spectral_norm/{name}"]) == pytest.approx(expected, rel=1e-4)
    expected, found = plain.state_dict(), module.state_dict()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
