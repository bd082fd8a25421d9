"""The weights of the best held-out likelihood: kept, restored before the last checkpoint, carried through a resume; patience."""

import copy

import pytest
import pytorch_lightning as pl
import torch

from gebm_lightning import UserError, compose
from gebm_lightning.callbacks import EMA, BestOnValidation, Checkpoint
from gebm_lightning.config import build_parts, instantiate
from gebm_lightning.lightning import GEBMModule, make_trainer
from gebm_lightning.lightning.checkpoint import read_checkpoint
from gebm_lightning.metrics.likelihood import mean_nll
from gebm_lightning.noise import BlockNoise

# The rate is such that the likelihood rises and then falls.
ML = ["data=uci", "data.table=iris", "model=flow_gaussian", "objective=maximum_likelihood", "optim.base_scheduler=null"]


class Nlls(pl.Callback):
    def __init__(self):
        self.seen, self.weights = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.seen.append(nll_of(pl_module, trainer.datamodule))
        self.weights.append(copy.deepcopy(pl_module.gebm.state_dict()))


def nll_of(module, data):
    return mean_nll(module.gebm, data, "val", BlockNoise(0, stream="validation"), 100)


def fit(path, updates, callbacks, overrides=(), resume=None):
    cfg = compose([*ML, "optim.base.lr=0.5", *overrides])
    module = GEBMModule(
        *build_parts(cfg), instantiate(cfg.optim), instantiate(cfg.energy_schedule), cfg.train_mode, cfg.seed
    )
    trainer = make_trainer(
        updates,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        default_root_dir=str(path),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=instantiate(cfg.data), ckpt_path=resume, weights_only=True)
    return module, trainer.datamodule


def test_the_run_ends_with_its_best_weights(tmp_path):
    every, best = Nlls(), BestOnValidation(1)
    module, data = fit(tmp_path, 10, [every, best, Checkpoint()])
    lowest = min(every.seen)
    assert lowest < every.seen[-1] and best.best == lowest and best.best_at == every.seen.index(lowest) + 1
    assert nll_of(module, data) == lowest
    saved = read_checkpoint(tmp_path)["state_dict"]
    wanted = every.weights[best.best_at - 1]
    assert all(torch.equal(saved[f"gebm.{key}"], value) for key, value in wanted.items())


def test_the_best_weights_are_saved_though_the_last_update_was(tmp_path):
    module, _ = fit(tmp_path, 10, [BestOnValidation(1), Checkpoint(5)])
    saved = read_checkpoint(tmp_path)["state_dict"]
    assert all(torch.equal(saved[f"gebm.{key}"], value) for key, value in module.gebm.state_dict().items())


def test_a_look_that_fails_is_not_the_best(tmp_path, monkeypatch):
    looks = iter([5.0, UserError("NaN"), 6.0])

    def look(*_):
        value = next(looks)
        if isinstance(value, UserError):
            raise value
        return value

    monkeypatch.setattr("gebm_lightning.callbacks.validation.mean_nll", look)
    best = BestOnValidation(1)
    fit(tmp_path, 3, [best])
    assert (best.best, best.best_at, best.looks_since) == (5.0, 1, 2)


def test_it_looks_at_its_cadence_and_has_patience(tmp_path):
    every, best = Nlls(), BestOnValidation(2, patience=3)
    fit(tmp_path, 100, [every, best])
    looks = every.seen[1::2]
    lowest = looks.index(min(looks))
    assert len(looks) == lowest + 1 + 3 and best.best == looks[lowest]


def test_a_resumed_run_remembers_its_best(tmp_path):
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if pl_module.base_updates == 6:
                pl_module.interrupted, trainer.should_stop = 1, True

    whole, straight = BestOnValidation(1), BestOnValidation(1)
    one, _ = fit(tmp_path / "one", 12, [whole, Checkpoint()])
    fit(tmp_path / "two", 12, [straight, Stop(), Checkpoint(every_n_base_updates=6)])
    again = BestOnValidation(1)
    two, _ = fit(
        tmp_path / "two", 12, [again, Checkpoint(6)], resume=str(tmp_path / "two" / "checkpoints" / "last.ckpt")
    )
    assert (again.best, again.best_at, again.looks_since) == (whole.best, whole.best_at, whole.looks_since)
    for key, value in one.gebm.state_dict().items():
        torch.testing.assert_close(two.gebm.state_dict()[key], value, rtol=0, atol=0)


def test_what_has_no_likelihood_or_an_average(tmp_path):
    with pytest.raises(UserError, match=r"base has a density: set it to null"):
        fit(tmp_path, 1, [BestOnValidation()], ["model=mlp", "objective=kale", "train_mode=both"])
    with pytest.raises(UserError, match=r"set callbacks\.ema=null"):
        fit(tmp_path, 1, [EMA(0.9), BestOnValidation()])
    with pytest.raises(UserError, match="patience"):
        BestOnValidation(1, patience=0)
