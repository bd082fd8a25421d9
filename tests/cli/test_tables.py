"""Tables by the command: every objective without a game trains on one, and the summary has likelihoods."""

import json
import math
from pathlib import Path

import pytest

from gebm_lightning.cli import train

SMOKE = [
    "data=uci",
    "data.table=iris",
    "trainer.max_base_updates=3",
    "callbacks.sampling=null",
    "callbacks.evaluation.curve_steps=[]",
    "callbacks.evaluation.num_samples=60",
    "callbacks.evaluation.equilibrium.pool=200",
    "callbacks.evaluation.scores.kid_subsets=2",
]
CASES = {
    "ml": ["objective=maximum_likelihood"],
    "cd": ["objective=contrastive_divergence"],
    "pcd": ["objective=contrastive_divergence", "objective.start=replay", "objective.replay_size=200"],
    "nce": ["objective=nce", "model=flow_nsf"],
    "sliced": ["objective=score_matching", "model=flow_maf"],
    "denoising": ["objective=score_matching", "objective.kind=denoising", "model=flow_gaussian"],
    "kale": ["objective=kale", "objective.base_by=likelihood"],
    "ratio of flows": ["objective=kale", "model/energy=flow", "callbacks.ema=null"],
    "ebm": ["objective=contrastive_divergence", "model=identity", "train_mode=energy"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_table_is_trained_on_and_scored(command, case):
    status, out, err = command(train, *SMOKE, *CASES[case])
    assert status == 0, err
    told = json.loads((Path(out.strip().splitlines()[-1]) / "summary.json").read_text())["likelihood"]
    known = case in ("ml", "ratio of flows")
    assert told["log_partition"]["method"] == ("exact" if known else "monte_carlo")
    test = told["splits"]["test"]
    assert test["num"] == 15 and math.isfinite(test["nll"]) and math.isfinite(test["base_nll"])
    if case == "ml":
        assert test["nll"] == pytest.approx(test["base_nll"]) and told["log_partition"]["value"] == 0
    else:
        assert test["nll"] != test["base_nll"]
