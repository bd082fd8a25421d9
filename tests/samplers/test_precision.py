"""Half-precision drifts: exact kernels stay exact, values are in full, networks are left alone, and approximate chains hardly move."""

from typing import ClassVar

import pytest
import torch
from scipy import stats
from targets import Identity, Target, departures
from test_laws_exact import P_LIMIT, Z_LIMIT
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gebm_lightning import GEBM, UserError, build, compose
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian
from gebm_lightning.samplers import (
    HMC,
    KLA,
    MALA,
    ULA,
    BaseSampler,
    LatentSampler,
    ParallelTempering,
    sample_chain,
    value_and_grad,
)
from gebm_lightning.samplers.precision import Fast

N = 20_000


class Coarse(nn.Module):
    """E = ½Σ((z + 200) − 200)², whose sum is a whole number in bfloat16: a staircase."""

    def __init__(self, d=3):
        super().__init__()
        self.layer = nn.Linear(d, d)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(d))
            self.layer.bias.fill_(200.0)

    def forward(self, x):
        return 0.5 * (self.layer(x) - 200).square().sum(1)


def sample(n, generator):
    return torch.randn(n, 3, generator=generator) * 0.5**0.5


COARSE = Target(
    GEBM(Identity(), Coarse(), Gaussian(3)),
    sample,
    [(lambda z, i=i: z[:, i], stats.norm(0, 0.5**0.5).cdf) for i in range(3)],
)
KERNELS = {
    "mala": (MALA(0.15), 30),
    "hmc": (HMC(0.4, 4), 30),
    "tempering": (ParallelTempering(MALA(0.15), [0.0, 0.5, 1.0]), 150),
}


def departs(kernel, steps, exact):
    z0 = sample(N, torch.Generator().manual_seed(1))
    potential = Fast(COARSE.gebm, exact=exact)
    chain = sample_chain(kernel, potential, z0, steps, generator=torch.Generator().manual_seed(2))
    p, score = departures(chain.z, COARSE)
    return p <= P_LIMIT or score >= Z_LIMIT


@pytest.mark.parametrize("name", KERNELS)
def test_an_exact_kernel_stays_exact_whatever_the_drift(name):
    assert not departs(*KERNELS[name], exact=True)
    assert departs(*KERNELS[name], exact=False), "a law that is never put to the test"


@pytest.fixture(scope="module", params=["dcgan", "sngan", "resnet"])
def model(request):
    return build(compose([f"model={request.param}", "model.width=8", "data=digits", "data.size=16", "seed=3"])).eval()


def test_the_value_is_the_models_own_and_the_gradient_is_near(model):
    z = model.prior.sample(16, BlockNoise(0))
    u, gradient = value_and_grad(model.potential(2.0), z)
    assert torch.equal(value_and_grad(Fast(model, 2.0), z)[0], u)
    fast_u, fast = value_and_grad(Fast(model, 2.0, channels_last=True), z)
    torch.testing.assert_close(fast_u, u, rtol=1e-5, atol=1e-5)
    assert not torch.equal(fast, gradient)
    assert (fast - gradient).norm() < 0.05 * gradient.norm()


def test_channels_last_alone_is_the_same_up_to_rounding(model):
    z = model.prior.sample(16, BlockNoise(0))
    u, gradient = value_and_grad(model.potential(2.0), z)
    same_u, same = value_and_grad(Fast(model, 2.0, half=False, channels_last=True, exact=False), z)
    torch.testing.assert_close(same_u, u, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(same, gradient, rtol=1e-3, atol=1e-4)


def test_the_model_is_left_as_it_was(model):
    before = {k: (v.clone(), v.stride()) for k, v in model.state_dict().items()}
    sampler = LatentSampler(ULA(1e-2), num_steps=2, precision="bf16-mixed", channels_last=True)
    x = sampler.refine(model, 8, BlockNoise(0)).x
    assert x.dtype == torch.float32
    assert all(
        torch.equal(v, before[k][0]) and v.stride() == before[k][1] and v.dtype == before[k][0].dtype
        for k, v in model.state_dict().items()
    )


@pytest.mark.parametrize("kernel", [ULA(1e-2), KLA(1e-2, 1.0), MALA(1e-2)])
def test_a_short_run_goes_to_the_same_place(model, kernel):
    def run(precision):
        return LatentSampler(kernel, num_steps=10, precision=precision).refine(model, 64, BlockNoise(0))

    full, half, start = run("32-true"), run("bf16-mixed"), BaseSampler().refine(model, 64, BlockNoise(0))
    assert (half.z - full.z).norm() < 0.05 * (full.z - start.z).norm()
    assert half.info["gradients"] == full.info["gradients"]


@pytest.mark.parametrize(("precision", "kernel"), [("32-true", ULA(1e-2)), ("bf16-mixed", MALA(1e-2))])
def test_compiled_chains_are_the_same(precision, kernel):
    """Spectrally normalised, with labels, in chunks of two sizes."""
    settings = ["model=sngan", "model.width=4", "model.num_classes=10", "data=digits", "data.size=16"]
    model = build(compose(settings)).eval()
    y = torch.arange(96) % 10

    def run(**how):
        sampler = LatentSampler(kernel, num_steps=3, precision=precision, chunk=64, thin=1, **how)
        return sampler.refine(model, 96, BlockNoise(0), y)

    plain, before = run(), torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled = run(compile="reduce-overhead")
    near = 1e-4 if precision == "32-true" else 1e-2
    torch.testing.assert_close(compiled.info["trace"], plain.info["trace"], rtol=near, atol=near)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before, "nothing was compiled"
    assert any(map(is_parametrized, model.modules())), "the model lost its spectral norm"


class Graph:
    """Stands for a CUDA graph: outputs and gradients always lie in the same memory, which the next step fills anew."""

    memory: ClassVar[dict] = {}

    def __init__(self, module, mode=None):
        self.module = module

    @classmethod
    def kept(cls, name, value):
        place = cls.memory.setdefault((name, tuple(value.shape)), torch.empty_like(value))
        return place.copy_(value.detach())

    @classmethod
    def begin_step(cls):
        for place in cls.memory.values():
            place.fill_(float("nan"))

    def __call__(self, z, y, half):
        return Replayed.apply(z, y, half, self.module)


class Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, y, half, module):
        with torch.enable_grad():
            ctx.z = z.detach().clone().requires_grad_()
            ctx.value = module(ctx.z, y, half)
        return Graph.kept(f"value {half}", ctx.value)

    @staticmethod
    def backward(ctx, grad):
        (gradient,) = torch.autograd.grad(ctx.value, ctx.z, grad)
        return Graph.kept("gradient", gradient), None, None, None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "kernel", [ULA(1e-2), MALA(1e-2), HMC(1e-1, 3), ParallelTempering(MALA(1e-2), [0.0, 0.5, 1.0])]
)
def test_what_a_cuda_graph_writes_is_copied_before_the_next(kernel, precision, monkeypatch):
    model = build(compose(["model=mlp", "data=ring"])).eval()

    def run(**how):
        return LatentSampler(kernel, num_steps=5, chunk=64, precision=precision, **how).refine(model, 96, BlockNoise(0))

    plain = run()
    monkeypatch.setattr(torch, "compile", Graph)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", Graph.begin_step)
    assert torch.equal(run(compile="reduce-overhead").z, plain.z)
    # Of the energy alone, to whose gradient nothing is added.
    fast = Fast(model, half=precision == "bf16-mixed", compiled="reduce-overhead")
    gradient = value_and_grad(fast.energy, plain.z)[1]
    before = gradient.clone()
    value_and_grad(fast.energy, 2 * plain.z)
    assert torch.equal(gradient, before)


def test_what_cannot_be_compiled_is_said(monkeypatch, tmp_path):
    model = build(compose(["model=mlp", "data=ring"])).eval()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/g++",))
    torch._dynamo.reset()
    with pytest.raises(UserError, match=r"sampler\.compile=true: torch\.compile cannot"):
        LatentSampler(ULA(1e-2), num_steps=1, compile=True).refine(model, 8, BlockNoise(0))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("compile", "fast"),
        ("compile", 1),
        ("precision", "16"),
        ("precision", "bf16"),
        ("precision", None),
        ("channels_last", "yes"),
    ],
)
def test_settings_that_mean_nothing(key, value):
    with pytest.raises(UserError, match=f"sampler.{key}"):
        LatentSampler(ULA(1e-2), **{key: value})
