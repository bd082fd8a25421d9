"""Two processes with batches of B are one with a batch of 2B; a checkpoint's scores do not depend on how many score it."""

import json
import math

import pytest
import torch
from games import exchange, play, score

from gebm_lightning.cli.launch import launch
from gebm_lightning.distributed import shard

OBJECTIVES = [
    "fgan_kl",
    "fgan_js",
    "fgan_pearson",
    "logistic",
    "hinge",
    "least_squares",
    "wasserstein",
    "mmd",
    "scaled_mmd",
]
CASES = {
    "kale": ["objective=kale"],
    "donsker_varadhan": ["objective=donsker_varadhan"],
    "batch norm in the critic": ["objective=kale", "model.energy.norm=batch", "model.energy.spectral=true"],
    "all penalties, labels, clipping": [
        "objective=donsker_varadhan",
        "model.num_classes=10",
        "optim.energy_clip_norm=0.5",
        "optim.base_clip_norm=0.5",
        "+objective.penalties.r1={_target_:gebm_lightning.objectives.GradientPenalty,weight:0.1,at:real}",
        "+objective.penalties.l2={_target_:gebm_lightning.objectives.L2Penalty,weight:0.1}",
    ],
    "weight clipping": ["objective=wasserstein", "objective.penalties.gradient=null", "optim.energy_weight_clip=0.05"],
    "persistent chains": [
        "objective=contrastive_divergence",
        "objective.start=replay",
        "objective.replay_size=100",
        "objective.base_by=kale",
    ],
    "score matching, the base by likelihood": [
        "data=ring",
        "model=flow_realnvp",
        "model.latent_dim=2",
        "objective=score_matching",
        "objective.base_by=likelihood",
    ],
    "several base samples, labels": ["objective=kale", "model.num_classes=10", "base_samples=3"],
    "several chains": [
        "objective=contrastive_divergence",
        "objective.start=replay",
        "objective.replay_size=200",
        "objective.base_by=kale",
        "base_samples=2",
    ],
    "nce": ["data=ring", "model=flow_gaussian", "model.latent_dim=2", "objective=nce"],
} | {name: [f"objective={name}"] for name in OBJECTIVES}


@pytest.mark.parametrize("case", [c if c == "kale" else pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def test_two_processes_are_one(tmp_path, case):
    play([*CASES[case], "data.batch_size=32"], 1, str(tmp_path))
    launch(play, 2, [*CASES[case], "data.batch_size=16"], 2, str(tmp_path))
    one, two, other = (torch.load(tmp_path / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    assert one["state"].keys() == two["state"].keys()
    for key, a in one["state"].items():
        b = two["state"][key]
        assert (a.double() - b.double()).norm() <= 1e-8 * (a.double().norm() + 1), key
        assert torch.equal(b, other["state"][key]), key
    assert len(one["losses"]) == len(two["losses"]) == 40
    for a, b, c in zip(one["losses"], two["losses"], other["losses"], strict=True):
        assert b == pytest.approx(a, rel=1e-8, abs=1e-10) and c == b


@pytest.mark.slow
def test_scores_do_not_depend_on_the_number_of_processes(tmp_path):
    for n in (1, 2, 3):
        launch(score, n, str(tmp_path / f"{n}.json"))
    one, two, three = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2, 3))
    assert one["rows"] == two["rows"] == three["rows"] and one["curve"] == two["curve"] == three["curve"]
    assert one["real"] == two["real"] == three["real"]


def test_gathers_sums_and_their_derivatives(tmp_path):
    """Each process's share of gradients, first and second, sums to that of the same function of the whole."""
    launch(exchange, 2, str(tmp_path))
    results = [torch.load(tmp_path / f"{r}.pt") for r in range(2)]
    x = torch.arange(6, dtype=torch.float64).view(3, 2) / 7
    x = torch.cat([x, x + 1]).requires_grad_()
    torch.logsumexp(x.square().sum(1), 0).backward()
    torch.testing.assert_close(torch.cat([r["gather"] for r in results]), x.grad)
    x.grad = None
    norm = torch.nn.BatchNorm1d(2, dtype=torch.float64)
    (slope,) = torch.autograd.grad(norm(x).pow(3).sum(), x, create_graph=True)
    slope.square().sum().backward()
    torch.testing.assert_close(torch.cat([r["second"] for r in results]), x.grad)
    for r in results:
        torch.testing.assert_close(r["running_mean"], norm.running_mean)
        torch.testing.assert_close(r["running_var"], norm.running_var)
        assert r["rows"].tolist() == [[0.0], [1.0], [1.0]] and r["max"] == [5, 9] and r["broadcast"] == "from 0"
        assert r["none"].shape == (0,) or r["none"].shape == (1, 4)


@pytest.mark.parametrize("n", [1, 63, 64, 200, 1000])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shards_cover_everything_once_at_borders_of_blocks(monkeypatch, n, world):
    import gebm_lightning.distributed as distributed

    covered = []
    for r in range(world):
        monkeypatch.setattr(distributed, "world_size", lambda: world)
        monkeypatch.setattr(distributed, "rank", lambda r=r: r)
        start, stop = shard(n)
        assert start % 64 == 0 or start == n
        covered += range(start, stop)
        assert stop - start <= math.ceil(n / 64 / world) * 64
    assert covered == list(range(n))
