"""The scale of energies whose critic gives no log-ratio: found by a run, kept by it, and not found where there is none."""

import json

import pytest
import torch

from gebm_lightning import load
from gebm_lightning.cli import train
from gebm_lightning.config import instantiate, load_config
from gebm_lightning.noise import BlockNoise
from gebm_lightning.transports.calibration import calibrate, logits

TOY = [
    "model=mlp",
    "data=swiss_roll",
    "model.width=16",
    "data.source.num_train=2000",
    "data.source.num_held_out=400",
    "callbacks.sampling=null",
    "callbacks.evaluation.curve_steps=[]",
    "callbacks.evaluation.num_samples=100",
    "callbacks.evaluation.equilibrium.pool=200",
    "callbacks.evaluation.scores.kid_subsets=2",
]


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["program", *TOY, "run_dir=run", *arguments])
        train.main()
        return tmp_path / "run"

    return run


# So few updates that the critic does not tell all real points from all of the base's.
@pytest.mark.parametrize("objective", ["hinge", "mmd", "fgan_total_variation"])
def test_a_run_finds_the_scale(trained, objective):
    run = trained(f"objective={objective}", "trainer.max_base_updates=5")
    told = json.loads((run / "summary.json").read_text())["calibration"]
    gebm = load(run)
    assert told["calibrated"] and told["scale"] > 0 and gebm.energy.scale.item() == pytest.approx(told["scale"])
    # Calibrated again on the same held-out data, what is calibrated has the slope 1; and real data have the lower energy.
    data = instantiate(load_config(run).data)
    real = torch.cat([batch.x for batch in data.batches("val", stop=2000)])
    d_real, d_base = logits(gebm, real, BlockNoise(load_config(run).seed, stream="calibration"), None)
    assert calibrate(d_real, d_base).slope.item() == pytest.approx(1, rel=1e-3)
    assert d_real.mean() > d_base.mean()


def test_a_critic_that_ranks_the_wrong_way_stays_uncalibrated(trained):
    # A critic that learns nothing: what it says of held-out data is chance, or the wrong way about.
    with pytest.warns(UserWarning, match="stays uncalibrated"):
        run = trained("objective=hinge", "optim.energy.lr=0.0", "trainer.max_base_updates=2", "seed=1")
    told = json.loads((run / "summary.json").read_text())["calibration"]
    assert not told["calibrated"] and told["scale"] == 1.0 and load(run).energy.scale.item() == 1.0
