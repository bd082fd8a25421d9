"""c finished by its raw gradient: where the amortised one leaves it too low, it comes to log Z, and is saved."""

import csv
import math

import pytest
import torch
from torch import nn

from gebm_lightning import GEBM, UserError, compose, load
from gebm_lightning.callbacks.log_partition import FinishLogPartition, finish, moments
from gebm_lightning.cli.fit import fit
from gebm_lightning.networks import Identity
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian


class Linear(nn.Module):
    """E = a·x₀, so that under N(0, 1) log Z = a²/2 and CV² = e^{a²} − 1."""

    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, x):
        return self.a * x[:, 0]


def gebm(a=1.2, c=0.0):
    return GEBM(Identity([1]), Linear(a), Gaussian(1), c).double()


def amortised_root(a, batch, draws=4000):
    """The root of E[e^{c − ĉ}] = 1, with ĉ of a batch."""
    x = torch.randn(draws, batch, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return math.log(draws) - torch.logsumexp(-(torch.logsumexp(-a * x, 1) - math.log(batch)), 0).item()


def test_moments():
    log_z, variance = moments(gebm(0.8), BlockNoise(0), 100_000)
    assert log_z == pytest.approx(0.32, abs=4.5 * math.sqrt(math.expm1(0.64) / 100_000))
    assert variance == pytest.approx(math.expm1(0.64), rel=0.05)


@pytest.mark.parametrize("start", [-5.0, "amortised", 3.0])
def test_the_raw_gradient_ends_at_log_z_where_the_amortised_one_does_not(start):
    a, batch = 1.2, 16
    biased = amortised_root(a, batch)
    cv2 = math.expm1(a**2)
    # The bias is real, and of the order that the threshold goes by.
    assert a**2 / 2 - biased == pytest.approx(cv2 / batch, rel=0.5) and a**2 / 2 - biased > 0.08
    c = finish(gebm(a, biased if start == "amortised" else start), BlockNoise(1), batch, 4000)
    # 64,000 samples in all: the standard error of log Z.
    assert abs(c - a**2 / 2) < 4.5 * math.sqrt(cv2 / (batch * 4000))


def test_it_is_the_same_again_and_other_noise_is_other_noise():
    model = gebm()
    values = [finish(model, BlockNoise(seed), 20, 5) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


TOY = [
    "data=ring",
    "model.width=8",
    "callbacks=finish_log_partition",
    "callbacks.ema=null",
    "callbacks.sampling=null",
    "callbacks.evaluation=null",
    "trainer.accelerator=cpu",
    "trainer.max_base_updates=4",
    "data.batch_size=8",
    "data.source.num_train=500",
    "callbacks.log_partition.num_steps=50",
    "callbacks.monitor.bounds_every=4",
]


def last(path):
    with (path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("log_partition/after")]
    assert len(rows) == 1
    return {key: float(rows[0][f"log_partition/{key}"]) for key in ("bias", "before", "after")}


@pytest.mark.parametrize("every", [2, 500])
def test_what_it_finds_is_saved_also_where_the_last_update_is_saved_anyway(tmp_path, every):
    run = tmp_path / "run"
    settings = [f"callbacks.checkpoint.every_n_base_updates={every}", "callbacks.log_partition.threshold=0"]
    fit(compose([*TOY, *settings, f"run_dir={run}"]), run)
    told = last(run)
    assert told["after"] != told["before"]
    assert load(run).log_partition.item() == pytest.approx(told["after"], abs=1e-6)


def test_it_finishes_the_weights_that_were_best_also_of_a_run_that_ends_early(tmp_path):
    run = tmp_path / "run"
    validation = [
        "+callbacks.validation._target_=gebm_lightning.callbacks.BestOnValidation",
        "+callbacks.validation.every_n_base_updates=1",
        "+callbacks.validation.patience=1",
    ]
    table = ["data=uci", "data.table=iris", "model=flow_gaussian", "energy_schedule.num=1", "optim.base.lr=1"]
    toy = [setting for setting in TOY if not setting.startswith(("data", "model", "trainer.max"))]
    settings = ["callbacks.log_partition.threshold=0", "trainer.max_base_updates=40", f"run_dir={run}"]
    fit(compose([*table, *toy, *validation, *settings]), run)
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    looks = [float(row["val/nll"]) for row in rows if row.get("val/nll")]
    assert len(looks) < 40 and looks.index(min(looks)) < len(looks) - 1
    assert load(run).log_partition.item() == pytest.approx(last(run)["after"], abs=1e-6)


def test_below_the_threshold_c_stays(tmp_path):
    run = tmp_path / "run"
    fit(compose([*TOY, "callbacks.log_partition.threshold=1e9", f"run_dir={run}"]), run)
    told = last(run)
    assert told["after"] == told["before"] and told["bias"] >= 0


def test_an_objective_without_c_is_left_alone(tmp_path):
    run = tmp_path / "run"
    fit(compose([*TOY, "objective=donsker_varadhan", f"run_dir={run}"]), run)
    assert "log_partition/after" not in (run / "metrics.csv").read_text()


def test_mistakes():
    for key, value in (("threshold", -1), ("num_steps", 0), ("num_samples", 1.5)):
        with pytest.raises(UserError, match=key):
            FinishLogPartition(**{key: value})
