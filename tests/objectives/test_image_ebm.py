"""The image-space EBM: its chains are those of Du & Mordatch (NeurIPS 2019), its replay buffer holds images, its runs learn."""

import json
import math
from dataclasses import replace

import pytest
import torch

from gebm_lightning import UserError, build, compose, load
from gebm_lightning.cli.fit import fit
from gebm_lightning.config import build_parts
from gebm_lightning.lightning.checkpoint import read_checkpoint
from gebm_lightning.lightning.losses import energy_loss
from gebm_lightning.noise import BlockNoise, rand, randn
from gebm_lightning.objectives import ContrastiveDivergence
from gebm_lightning.samplers import ULA
from gebm_lightning.samplers.gradients import value_and_grad

MODEL = ["model=ebm", "model.width=4", "objective=contrastive_divergence", "objective.start=replay"]
STEP, SIGMA, CLIP = 0.2, 0.02, 0.1


def grey(gebm, n):
    """Images well inside the box, where neither clipping nor reflection is felt."""
    return 0.5 * (2 * rand((n, *gebm.base.shape), BlockNoise(3)) - 1)


def objective(**settings):
    kernel = ULA(SIGMA**2 / 2, clip=CLIP * 2 * STEP / SIGMA**2)
    return ContrastiveDivergence(
        kernel, num_steps=7, start="replay", replay_size=32, restart=0.0, beta=2 * STEP / SIGMA**2, **settings
    )


def with_energy(gebm, cd):
    critic = gebm.energy
    gebm.energy = cd.make_energy(critic)
    return gebm, critic, cd


def test_the_energy_is_that_of_the_chains():
    """Mean, likelihood and resampling are of exp(−βE), as the chains are, and so is the base's gradient."""
    gebm, critic, cd = with_energy(build(compose(MODEL)).double(), replace(objective(), beta=3.0))
    x = grey(gebm, 8).double()
    torch.testing.assert_close(gebm.energy(x), 3 * critic(x))
    assert replace(cd, beta=1.0).make_energy(critic) is critic
    e = critic(x)
    wanted = -(torch.logsumexp(-3 * e, 0) - math.log(8))
    torch.testing.assert_close(cd.base_loss(e, gebm.log_partition)[0], wanted)


def test_the_chains_are_those_of_igebm():
    """x ← x + σξ, x ← clip(x − s∇E(x)), from the first noise to the last: its states after the noise are those of ULA."""
    gebm, critic, cd = with_energy(build(compose(MODEL)).double(), objective())
    state = cd.make_state(gebm, BlockNoise(0)).double()
    state.z = grey(gebm, 32).double().flatten(1)
    x_real = torch.zeros(16, *gebm.base.shape, dtype=torch.float64)
    noise = BlockNoise(1)
    gebm.prior.sample(16, noise), rand((16, 1), noise, dtype=torch.float64)
    kicks = [SIGMA * randn((16, *gebm.base.shape), noise, dtype=torch.float64) for _ in range(7)]
    x = state.z[state.draw(16, BlockNoise(1))].view_as(x_real)
    start, clipped = x, 0
    # The gradient is linear in the last weights: of about the size of the clip.
    with torch.no_grad():
        critic.last.weight.mul_(CLIP / value_and_grad(critic, x)[1].abs().mean())
    for kick in kicks:
        _, gradient = value_and_grad(critic, x)
        clipped += (gradient.abs() > CLIP).sum().item()
        x = (x - STEP * gradient.clamp(-CLIP, CLIP)).clamp(-1, 1) + kick
    found = cd.negatives(gebm, x_real, BlockNoise(1), None, state)
    assert 0 < clipped < 7 * x.numel() and x.abs().max() < 1
    assert (found - start).abs().mean() > 2 * SIGMA
    torch.testing.assert_close(found, x, atol=1e-9, rtol=0)
    gebm.energy = critic
    other = cd.negatives(gebm, x_real, BlockNoise(1), None, state)
    assert (other - x).abs().max() > SIGMA


def test_the_replay_buffer_holds_images():
    cd = replace(objective(), kernel=ULA(0.05), beta=40.0, restart=0.5)
    gebm, _, _ = with_energy(build(compose([*MODEL, "model.energy.spectral=true"])), cd)
    state = cd.make_state(gebm, BlockNoise(0))
    x_real, before = torch.zeros(16, *gebm.base.shape), state.z.clone()
    for step in range(10):
        x = cd.negatives(gebm, x_real, BlockNoise(0, stream=str(step)), None, state)
        assert x.shape == x_real.shape and x.abs().max() <= 1
    assert state.z.shape == (32, 64) and state.z.abs().max() <= 1
    assert (state.z != before).any(1).all()
    rows = (state.z[:, None] == x.flatten(1)).all(2).any(0)
    assert rows.all()


def test_noise_on_real_images():
    x, noise = torch.zeros(4000, 1, 8, 8), BlockNoise(0)
    assert objective().perturb(x, noise) is x
    noisy = objective(data_noise=0.03).perturb(x, noise)
    assert noisy.std().item() == pytest.approx(0.03, rel=0.01) and noisy.mean().abs() < 4.5 * 0.03 / math.sqrt(
        x.numel()
    )
    torch.manual_seed(1)
    assert torch.equal(objective(data_noise=0.03).perturb(x, BlockNoise(0)), noisy)


def test_noise_is_seen_by_the_loss():
    gebm, critic, _ = build_parts(compose(MODEL))
    x, x_base = grey(gebm, 64), torch.zeros(64, *gebm.base.shape)
    cd = objective(data_noise=0.3)
    loss, _ = energy_loss(cd, gebm, critic, x, x_base, BlockNoise(2))
    wanted = critic(cd.perturb(x, BlockNoise(2))).mean() - critic(x_base).mean()
    torch.testing.assert_close(loss, wanted)
    assert abs(loss - (critic(x).mean() - critic(x_base).mean())) > 1e-6


@pytest.mark.parametrize("key", ["beta", "data_noise"])
@pytest.mark.parametrize("value", [-1.0, math.nan, "much"])
def test_settings_out_of_range(key, value):
    with pytest.raises(UserError, match=f"objective.{key} must be a number of at least 0"):
        ContrastiveDivergence(**{key: value})


@pytest.mark.parametrize(
    ("name", "step", "sigma"), [("igebm_digits", None, None), ("jem_digits", None, None), ("igebm_cifar10", 40, 0.01)]
)
def test_the_experiments_sample_what_they_train(name, step, sigma):
    cfg = compose([f"experiment={name}"])
    assert cfg.sampler.beta == 1
    assert cfg.sampler.kernel.step_size == cfg.objective.kernel.step_size
    assert (cfg.train_mode, cfg.objective.start, cfg.callbacks.ema) == ("energy", "replay", None)
    assert cfg.model.latent_dim == math.prod(cfg.data.shape)
    assert cfg.model.prior._target_.endswith("Uniform") and cfg.model.base._target_.endswith("Identity")
    if step is not None:
        assert cfg.objective.kernel.step_size == pytest.approx(sigma**2 / 2)
        assert cfg.objective.beta == pytest.approx(2 * step / sigma**2)


def test_the_replay_buffer_is_part_of_the_run(smoke, tmp_path):
    small = ["objective.num_steps=3", "objective.replay_size=64"]
    cfg = compose(
        ["experiment=jem_digits", *smoke, *small, "callbacks.evaluation.curve_steps=[]", f"run_dir={tmp_path}"]
    )
    fit(cfg, tmp_path)
    replay = read_checkpoint(tmp_path)["state_dict"]["objective_state.z"]
    assert replay.shape == (64, 64) and replay.abs().max() <= 1
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["base", "short run", "equilibrium"]
    model = load(tmp_path)
    x = grey(model, 4)
    torch.testing.assert_close(model.energy(x), cfg.objective.beta * model.energy.critic(x))
    assert model.base(replay).shape == (64, 1, 8, 8)


@pytest.mark.slow
def test_an_energy_of_digits_learns(tmp_path):
    cfg = compose(
        [
            "experiment=jem_digits",
            "trainer.max_base_updates=400",
            "trainer.accelerator=cpu",
            "callbacks.sampling=null",
            "callbacks.evaluation.num_samples=1000",
            f"run_dir={tmp_path}",
        ]
    )
    fit(cfg, tmp_path)
    rows = {row["method"]: row for row in json.loads((tmp_path / "summary.json").read_text())["rows"]}
    # From noise, at a FID of about 77, to about 6.
    assert rows["short run"]["scores"]["test"]["relative_fid"] < 0.15
