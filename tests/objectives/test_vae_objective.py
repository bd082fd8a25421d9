"""The ELBO as an objective: its value, its gradient, what it trains and what it leaves; the spectral penalty against torch's norm."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gebm_lightning import GEBM, UserError, build, compose, load
from gebm_lightning.cli import train
from gebm_lightning.networks import VAE, Clipped, MLPBase, SNGANEnergy
from gebm_lightning.noise import BlockNoise, randn
from gebm_lightning.objectives import ELBO, SpectralPenalty
from gebm_lightning.objectives.penalties import AtLabels
from gebm_lightning.priors import Gaussian


def model(objective, base=None):
    torch.manual_seed(0)
    critic = SNGANEnergy((1, 8, 8), width=4)
    return GEBM(base or VAE(2, (1, 8, 8), 4), objective.make_energy(critic), Gaussian(66)), critic


@pytest.fixture
def x():
    return randn((6, 1, 8, 8), BlockNoise(1)).tanh()


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_loss_is_the_negative_weighted_bound(x, weight):
    objective = ELBO(kl_weight=weight)
    gebm, _ = model(objective)
    loss, logs = objective.direct_base_loss(gebm, x, BlockNoise(2))
    terms = gebm.base.elbo_terms(x, BlockNoise(2))
    torch.testing.assert_close(loss, -(terms.log_likelihood - weight * terms.kl).mean())
    torch.testing.assert_close(logs["elbo"], gebm.base.elbo(x, BlockNoise(2)).mean().detach())
    assert not logs["elbo"].requires_grad and not logs["kl"].requires_grad
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in gebm.base.parameters())


def test_descent_on_it_raises_the_bound(x):
    objective = ELBO()
    gebm, _ = model(objective)
    optimizer = torch.optim.Adam(gebm.base.parameters(), 1e-2)
    values = []
    for step in range(60):
        loss, logs = objective.direct_base_loss(gebm, x, BlockNoise(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(logs["elbo"].item())
    assert values[-1] > values[0] + 20


def test_the_energy_is_flat(x):
    objective = ELBO()
    gebm, critic = model(objective)
    assert torch.equal(gebm.energy(x), torch.zeros(6)) and not gebm.energy.state_dict()
    v = critic(x)
    assert objective.energy_loss(v, v, gebm.log_partition)[0] == 0
    with pytest.raises(TypeError, match="direct_base_loss"):
        objective.base_loss(v, gebm.log_partition)


def test_a_base_without_a_bound_is_a_mistake(x):
    objective = ELBO()
    gebm, _ = model(objective, MLPBase(66, (1, 8, 8), width=4))
    with pytest.raises(UserError, match="MLPBase has no elbo, take model=vae"):
        objective.direct_base_loss(gebm, x, BlockNoise(0))
    with pytest.raises(UserError, match="kl_weight"):
        ELBO(kl_weight=-1.0)


class Critic(nn.Module):
    """Layers of every kind that counts, wide and tall, and one that does not."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(3, 2, 2, 2),
            nn.Flatten(),
            nn.Linear(512, 7),
            nn.Linear(7, 40),
            nn.Linear(40, 1),
        )
        self.embedding = nn.Embedding(3, 4)

    def forward(self, x, y=None):
        return self.layers(x).squeeze(1)


def reference(critic):
    """Σ σ_max by torch, whose own gradient is that of its singular value decomposition."""
    total = 0.0
    for layer in critic.layers:
        if hasattr(layer, "weight"):
            w = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
            total = total + torch.linalg.matrix_norm(w.flatten(1), ord=2)
    return total


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: AtLabels(c, torch.zeros(2)), lambda c: Clipped(c, -10.0)])
def test_the_spectral_penalty_is_the_sum_of_largest_singular_values_with_their_gradient(wrap):
    torch.manual_seed(0)
    critic = Critic().double()
    x = torch.zeros(2, 1, 8, 8).double()
    value = SpectralPenalty(0.2)(wrap(critic), x, x, BlockNoise(0))
    expected = 0.2 * reference(critic)
    torch.testing.assert_close(value, expected)
    weights = [p for name, p in critic.layers.named_parameters() if name.endswith("weight")]
    for mine, theirs in zip(torch.autograd.grad(value, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_spectral_penalty_of_normalised_layers_is_their_number():
    torch.manual_seed(0)
    critic = nn.Sequential(spectral_norm(nn.Linear(5, 4)), spectral_norm(nn.Linear(4, 1)))
    for _ in range(200):
        critic(torch.zeros(1, 5))
    value = SpectralPenalty(1.0)(critic, torch.zeros(1, 5), torch.zeros(1, 5), BlockNoise(0))
    torch.testing.assert_close(value.item(), 2.0, rtol=1e-4, atol=0)


def test_the_spectral_penalty_needs_layers():
    with pytest.raises(UserError, match="Flatten has none"):
        SpectralPenalty(1.0)(nn.Flatten(), torch.zeros(1, 2), torch.zeros(1, 2), BlockNoise(0))
    with pytest.raises(UserError, match="weight"):
        SpectralPenalty(-1.0)


@pytest.fixture
def stages(smoke, tmp_path, monkeypatch, capsys):
    """`stages(name, *overrides) -> (status, folder, stderr)` of a smoke run of an experiment."""
    monkeypatch.chdir(tmp_path)

    def run(name, *overrides):
        chains = ["sampler.num_steps=2"] if name == "vaebm_digits" else []
        shorter = [o for o in smoke if not o.startswith("sampler.")] + chains + ["callbacks.evaluation.curve_steps=[]"]
        monkeypatch.setattr("sys.argv", ["program", f"experiment={name}", *shorter, *overrides])
        try:
            train.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        out, err = capsys.readouterr()
        return status, Path(out.strip().splitlines()[-1]) if out.strip() else None, err

    return run


def test_both_stages_run_and_the_second_leaves_the_vae_as_it_was(stages):
    status, first, err = stages("vaebm_digits_vae")
    assert status == 0, err
    status, second, err = stages("vaebm_digits", f"init={first}", "objective.num_steps=2")
    assert status == 0, err
    vae, vaebm = load(first), load(second)
    for key, value in vae.base.state_dict().items():
        assert torch.equal(value, vaebm.base.state_dict()[key]), key
    x = vae.sample_base(4, BlockNoise(0))
    assert torch.equal(vae.energy(x), torch.zeros(4)) and vaebm.energy(x).abs().sum() > 0
    rows = json.loads((second / "summary.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["base", "short run", "equilibrium"]


def test_the_second_stage_may_scale_its_critic(stages):
    """A model without an energy is the start of one with any."""
    _, first, _ = stages("vaebm_digits_vae", "callbacks.evaluation=null")
    settings = ["objective.num_steps=2", "objective.beta=5", "callbacks.evaluation=null"]
    status, second, err = stages("vaebm_digits", f"init={first}", *settings)
    assert status == 0, err
    assert load(second).energy.objective.beta == 5
    # One that has an energy is not: its critic's convention may be another.
    status, _, err = stages("vaebm_digits", f"init={second}", *settings[::2])
    assert status == 1 and "the checkpoint is of another model than the config" in err


def test_persistent_chains_run_too(stages):
    _, first, _ = stages("vaebm_digits_vae", "callbacks.evaluation=null")
    status, second, err = stages(
        "vaebm_digits",
        f"init={first}",
        "objective.start=replay",
        "objective.replay_size=64",
        "objective.num_steps=2",
        "callbacks.evaluation=null",
    )
    assert status == 0, err
    state = torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["objective_state.z"].shape == (64, 16 + 64)


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_the_stages_agree_on_the_model_and_chains_are_as_long_in_training_as_in_sampling(data):
    first = compose([f"experiment=vaebm_{data}_vae"])
    second = compose([f"experiment=vaebm_{data}", "init=somewhere"])
    assert (first.model.base, first.model.prior) == (second.model.base, second.model.prior)
    assert second.train_mode == "energy" and first.train_mode == "base"
    assert second.sampler.kernel == second.objective.kernel and second.sampler.beta == 1
    assert second.sampler.num_steps == second.objective.num_steps
    gebm = build(first)
    assert gebm.prior.dim == first.model.latent_dim + gebm.base(gebm.prior.sample(1, BlockNoise(0))).numel()
    assert not any("Norm" in type(m).__name__ for m in gebm.modules())
