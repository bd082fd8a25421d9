"""Learning rates fall when KID stands still, stay while it improves, and the state survives a resumed run."""

import dataclasses
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch.optim import lr_scheduler

from gebm_lightning import UserError, compose
from gebm_lightning.callbacks import ReduceLROnKID, reduce_lr
from gebm_lightning.config import build_parts, instantiate
from gebm_lightning.lightning import GEBMModule, make_trainer
from gebm_lightning.metrics import Digits


class Rates(pl.Callback):
    """The learning rates after every update."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        if not self.seen or pl_module.base_updates > self.seen[-1][0]:
            groups = [g for o in trainer.optimizers for g in o.param_groups]
            self.seen.append((pl_module.base_updates, *(g["lr"] for g in groups)))


def fit(tmp_path, updates, schedule=None, path=None, **settings):
    cfg = compose(["model.width=4", "data.batch_size=16", "energy_schedule.num=1"])
    optim = dataclasses.replace(instantiate(cfg.optim), energy_scheduler=schedule, base_scheduler=schedule)
    module = GEBMModule(*build_parts(cfg), optim, instantiate(cfg.energy_schedule), "both", cfg.seed)
    callback = ReduceLROnKID(Digits(), every_n_base_updates=1, num_samples=64, **settings)
    rates = Rates()
    trainer = make_trainer(
        updates,
        accelerator="cpu",
        logger=False,
        callbacks=[callback, rates],
        default_root_dir=str(tmp_path),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=instantiate(cfg.data), ckpt_path=path, weights_only=True)
    return trainer, callback, rates.seen


def stand_still(monkeypatch, p):
    monkeypatch.setattr(
        reduce_lr, "relative_kid_test", lambda new, old: (0.0, next(p) if hasattr(p, "__next__") else p)
    )


def test_three_failures_in_a_row_lower_all_rates_and_the_memory_refills(tmp_path, monkeypatch):
    stand_still(monkeypatch, 0.5)
    _, callback, seen = fit(tmp_path, 14, lag=4)
    # Tests begin at update 5; the third fails at 7; with three samples left, they begin again at 9, and the third fails at 11.
    for update, *rates in seen:
        factor = 0.8 ** ((update >= 7) + (update >= 11))
        assert rates == pytest.approx([1e-3 * factor, 1e-2 * factor, 5e-4 * factor]), update
    assert len(callback.rows) <= 4


def test_a_success_between_starts_the_count_anew(tmp_path, monkeypatch):
    stand_still(monkeypatch, iter([0.5, 0.5, 0.05] * 10))
    *_, seen = fit(tmp_path, 12, lag=1)
    assert {tuple(rates) for _, *rates in seen} == {(1e-3, 1e-2, 5e-4)}


@pytest.mark.parametrize(
    "schedule",
    [
        partial(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.1, total_iters=10),
        partial(lr_scheduler.CosineAnnealingLR, T_max=10),
        partial(lr_scheduler.LambdaLR, lr_lambda=lambda update: 0.9**update),
    ],
)
def test_rates_of_a_schedule_are_multiplied_as_well(tmp_path, monkeypatch, schedule):
    stand_still(monkeypatch, 0.05)
    plain = fit(tmp_path / "a", 8, schedule, lag=1)[2]
    stand_still(monkeypatch, iter([0.5] * 3 + [0.05] * 10))
    lowered = fit(tmp_path / "b", 8, schedule, lag=1)[2]
    for (update, *a), (_, *b) in zip(plain, lowered, strict=True):
        assert b == pytest.approx([rate * (0.8 if update >= 4 else 1.0) for rate in a], rel=1e-6), update


def test_a_resumed_run_remembers(tmp_path, monkeypatch):
    stand_still(monkeypatch, 0.5)
    trainer, *_ = fit(tmp_path, 6, lag=4)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    _, after, seen = fit(tmp_path, 8, path=tmp_path / "a.ckpt", lag=4)
    _, plain, whole = fit(tmp_path, 8, lag=4)
    assert seen == whole[6:]
    torch.testing.assert_close(torch.stack(after.rows), torch.stack(plain.rows))


def test_without_improvement_the_real_test_fails_and_with_it_succeeds():
    """A base that stays as it is against itself: p is not small; against pure noise: it is."""
    from gebm_lightning.data import Digits as Data
    from gebm_lightning.data.batch import to_unit
    from gebm_lightning.metrics.relative_kid import kid_rows, relative_kid_test

    x = to_unit(Data(8).split("train").x)
    features = Digits()
    real, good = features(x[:300]), features(x[300:600])
    noise = features(2 * torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 1)
    assert relative_kid_test(kid_rows(good, real), kid_rows(noise, real))[1] < 1e-6
    assert relative_kid_test(kid_rows(features(x[600:900]), real), kid_rows(good, real))[1] > 0.1


@pytest.mark.parametrize(
    "settings", [{"lag": 0}, {"patience": 0}, {"threshold": 1.5}, {"factor": 1.0}, {"num_samples": 2}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        ReduceLROnKID(Digits(), **settings)
