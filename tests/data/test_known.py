"""Laws of known truth: samples, energies and log Z against independent formulas; what a run recovers of them."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from gebm_lightning import GEBM, UserError, build, compose, load
from gebm_lightning.cli.fit import fit
from gebm_lightning.data.known import Flower, Line
from gebm_lightning.metrics.truth import quadrature_log_partition, recovery
from gebm_lightning.networks.support import FlowerBase, LineBase
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian, Uniform

N = 40_000


def draw(source, seed=0):
    return source.latents(N, torch.Generator().manual_seed(seed))


def test_the_line_has_the_mass_that_its_density_says():
    line = Line(floor=0.3)
    # The distribution function, integrated by hand.
    cdf = lambda t: 0.5 * (0.3 * (t + 1) + 0.7 * (t**3 + 1))  # noqa: E731
    z = draw(line)[:, 0].numpy()
    assert stats.kstest(z, cdf).pvalue > 1e-4
    # A test that cannot tell the floor would not be one.
    assert stats.kstest(draw(Line(floor=0.2))[:, 0].numpy(), cdf).pvalue < 1e-10
    t = torch.linspace(-0.99, 0.99, 7, dtype=torch.float64)
    slope = torch.from_numpy((cdf(t.numpy() + 1e-5) - cdf(t.numpy() - 1e-5)) / 2e-5)
    torch.testing.assert_close(line.log_ratio(t[:, None]).exp() / 2, slope, atol=1e-8, rtol=1e-8)


def test_points_of_the_line_by_hand():
    line = Line(offset=(1.0, 2.0), direction=(3.0, -4.0), half_length=5.0)
    wanted = torch.tensor([[-2.0, 6.0], [1.0, 2.0], [4.0, -2.0]])
    torch.testing.assert_close(line.points(torch.tensor([[-1.0], [0.0], [1.0]])), wanted)


def test_the_flowers_directions_are_von_mises_fisher():
    flower = Flower(mean=(1.0, -2.0, 0.5), concentration=2.5)
    u = draw(flower).numpy()
    mean = np.array([1.0, -2.0, 0.5]) / np.linalg.norm([1.0, -2.0, 0.5])
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1, atol=1e-12)
    other = stats.vonmises_fisher(mean, 2.5)
    theirs = other.rvs(N, random_state=np.random.default_rng(0))
    assert stats.ks_2samp(u @ mean, theirs @ mean).pvalue > 1e-4
    # Around the mean direction nothing is preferred: the angle in the plane across it is uniform.
    first = np.cross(mean, [1.0, 0.0, 0.0])
    first /= np.linalg.norm(first)
    angle = np.arctan2(u @ np.cross(mean, first), u @ first)
    assert stats.kstest(angle, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-4
    # scipy's density is with respect to area, 4π of it on the sphere.
    wanted = other.logpdf(u[:100]) + math.log(4 * math.pi)
    torch.testing.assert_close(flower.log_ratio(torch.from_numpy(3 * u[:100])), torch.from_numpy(wanted))


def test_the_flowers_surface_by_hand():
    u = torch.tensor([[0.0, 0.6, -0.8]], dtype=torch.float64)
    v = torch.tensor([0.0, 0.6 + 0.6**4, -0.8 + 0.8**4], dtype=torch.float64)
    wanted = (v @ v) * u
    torch.testing.assert_close(Flower().points(u), wanted)
    torch.testing.assert_close(Flower().points(5 * u), wanted)


@pytest.mark.parametrize("source", [Line(), Line(floor=0.05), Flower(), Flower(concentration=4.0)], ids=repr)
def test_quadrature_is_exact(source):
    z, w = source.quadrature()
    assert w.sum().item() == pytest.approx(1, abs=1e-12)
    assert torch.logsumexp(w.log() - source.energy(z), 0).item() == pytest.approx(source.log_partition, abs=1e-9)
    # E_P[f] by weights is that of samples, for an f of every coordinate of the points.
    weights = w * source.log_ratio(z).exp()
    x, samples = source.points(z).sin(), source.points(draw(source)).sin()
    error = samples.std(0) / math.sqrt(N)
    assert ((samples.mean(0) - weights @ x).abs() < 4.5 * error).all()


MODELS = {
    "line": (Line, lambda: LineBase([0.0, 0.0], [1.0, 0.0]), lambda: Uniform(1)),
    "flower": (Flower, FlowerBase, lambda: Gaussian(3)),
}


class Truth(nn.Module):
    """E* + offset, where the latent can be had back from the point."""

    def __init__(self, source, offset):
        super().__init__()
        self.source, self.offset = source, offset

    def forward(self, x):
        if isinstance(self.source, Line):
            offset, direction = (p.to(x) for p in self.source.parameters.values())
            x = ((x - offset) @ direction / self.source.half_length)[:, None]
        return self.source.energy(x) + self.offset


def true_model(name, offset=0.7):
    kind, base, prior = MODELS[name]
    source = kind()
    gebm = GEBM(base(), Truth(source, offset), prior(), source.log_partition - offset).double()
    with torch.no_grad():
        for key, value in source.parameters.items():
            gebm.base.get_parameter(key).copy_(value)
    return gebm, source


@pytest.mark.parametrize("name", MODELS)
def test_the_base_can_be_the_truth_and_does_not_begin_there(name):
    gebm, source = true_model(name)
    z = gebm.prior.sample(100, BlockNoise(0))
    torch.testing.assert_close(gebm.base(z), source.points(z))
    begun = build(compose([f"data={name}"]))
    assert all((begun.base.support()[k] - v).abs().max() > 0.2 for k, v in source.parameters.items())


@pytest.mark.parametrize("name", MODELS)
def test_recovery_of_the_truth_itself(name):
    gebm, source = true_model(name)
    found = recovery(gebm, source, BlockNoise(0), num_samples=2000)
    assert all(p["error"] < 1e-12 for p in found["parameters"].values())
    assert found["energy"]["slope"] == pytest.approx(1) and found["energy"]["r2"] == pytest.approx(1)
    z = found["log_partition"]
    assert z["quadrature"] == pytest.approx(source.log_partition - 0.7, abs=1e-9)
    assert z["learned"]["error"] == pytest.approx(0, abs=1e-6)
    for method in ("monte_carlo", "ais"):
        assert abs(z[method]["error"]) < 4.5 * z[method]["standard_error"] < 0.2


@pytest.mark.parametrize("name", MODELS)
def test_a_support_is_the_same_with_the_other_sign(name):
    gebm, source = true_model(name)
    (signless,) = source.signless
    with torch.no_grad():
        dict(gebm.base.named_parameters())[signless].neg_()
    found = recovery(gebm, source, BlockNoise(0), num_samples=2000)
    assert found["parameters"][signless]["error"] < 1e-12
    z = gebm.prior.sample(20, BlockNoise(1))
    mirrored = -z if name == "line" else z
    torch.testing.assert_close(gebm.base(mirrored), source.points(z))


@pytest.mark.parametrize("name", MODELS)
def test_recovery_tells_of_what_is_wrong(name):
    gebm, source = true_model(name)
    with torch.no_grad():
        gebm.log_partition.add_(0.3)
        next(iter(gebm.base.parameters()))[0] += 0.25
    energy = gebm.energy.forward
    gebm.energy.forward = lambda x: 0.5 * energy(x)
    found = recovery(gebm, source, BlockNoise(0), num_samples=2000)
    assert next(iter(found["parameters"].values()))["error"] == pytest.approx(0.25)
    assert found["energy"]["slope"] < 0.6
    exact, _ = quadrature_log_partition(gebm, source)
    assert found["log_partition"]["learned"]["error"] == pytest.approx(gebm.log_partition.item() - exact)


def test_the_relative_variance_is_that_of_its_closed_form():
    gebm, source = true_model("flower")
    k = source.concentration
    wanted = (math.sinh(2 * k) / (2 * k)) / (math.sinh(k) / k) ** 2 - 1
    assert quadrature_log_partition(gebm, source)[1] == pytest.approx(wanted)


def test_splits_are_fixed_and_differ():
    line = Line(num_train=100, num_held_out=50)
    assert line.split("train").shape == (2,) and len(line.split("val")) == 50
    assert torch.equal(line.split("train").x, line.split("train").x)
    assert not torch.equal(line.split("val").x, line.split("test").x)


def test_mistakes():
    with pytest.raises(UserError, match="floor"):
        Line(floor=0.0)
    with pytest.raises(UserError, match="direction"):
        Line(direction=(0.0, 0.0))
    with pytest.raises(UserError, match="direction"):
        Flower(mean=(0.0, 0.0, 0.0))
    with pytest.raises(UserError, match="num_train"):
        Flower(num_train=0)
    with pytest.raises(UserError, match=r"base\.direction is a direction"):
        LineBase([0.0], [1.0, 2.0])
    with pytest.raises(UserError, match="half_length"):
        LineBase([0.0], [1.0], 0)
    with pytest.raises(UserError, match="at least one number"):
        FlowerBase([])


def run(tmp_path, *overrides):
    cfg = compose(["trainer.accelerator=cpu", f"run_dir={tmp_path}", "callbacks.sampling=null", *overrides])
    fit(cfg, tmp_path)
    return json.loads((tmp_path / "summary.json").read_text())["truth"]


@pytest.mark.parametrize(
    ("choice", "message"), [("data=ring", "known truth"), ("data=line model=mlp", "take model=line")]
)
def test_a_truth_that_is_not_there_is_told_before_training(tmp_path, choice, message):
    target = "+callbacks.truth._target_=gebm_lightning.callbacks.truth.Truth"
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", *choice.split(), "callbacks.evaluation=null", target)
    assert not (tmp_path / "run").exists()


def test_a_run_without_an_evaluation_still_tells(tmp_path):
    short = ["trainer.max_base_updates=2", "model.width=4", "callbacks.truth.num_samples=200"]
    found = run(tmp_path / "run", "experiment=flower", "callbacks.evaluation=null", *short)
    assert found["parameters"]["coefficients"]["error"] > 0.5 and found["energy"]["num_samples"] == 200


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("line", 0.05), ("flower", 0.05)])
def test_a_run_recovers_the_truth(tmp_path, name, tolerance):
    found = run(tmp_path / "run", f"experiment={name}")
    assert all(p["error"] < tolerance for p in found["parameters"].values()), found["parameters"]
    energy, z = found["energy"], found["log_partition"]
    assert 0.9 <= energy["slope"] <= 1.1 and energy["r2"] >= 0.9, energy
    for method in ("learned", "monte_carlo", "ais"):
        assert abs(z[method]["error"]) < 0.05, z
    # What was saved is what was judged.
    gebm = load(tmp_path / "run")
    assert gebm.log_partition.item() == pytest.approx(z["learned"]["value"], abs=1e-6)
    source = {"line": Line, "flower": Flower}[name]()
    assert quadrature_log_partition(gebm, source)[0] == pytest.approx(z["quadrature"], abs=1e-5)
