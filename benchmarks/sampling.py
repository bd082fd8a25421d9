"""A step of each kernel against one forward and backward pass written by hand, and against textbook code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from gebm_lightning import GEBM, Potential, build, compose
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import KLA, MALA, ULA, LatentSampler, sample_chain

from .timing import Row, interleave, ratio

PAIRS = ("dcgan", "sngan", "resnet")
CHAINS, STEPS, STEP_SIZE = 64, 2, 1e-3
KERNELS = {"ULA": ULA(STEP_SIZE), "KLA": KLA(STEP_SIZE, 1.0), "MALA": MALA(STEP_SIZE)}
COMPILED: dict[str, dict[str, Any]] = {
    "compiled": {},
    "bf16, channels_last, compiled": {"precision": "bf16-mixed", "channels_last": True},
}
# A chain of ULA or MALA evaluates its first state as well: time is told for an evaluation.
EVALUATIONS = {"ULA": STEPS + 1, "KLA": STEPS, "MALA": STEPS + 1}


def pair(name: str, device: str, overrides: Sequence[str] = ()) -> GEBM:
    """The generator and critic of a config at 32×32 unless overrides say otherwise, untrained, in eval mode."""
    return build(compose([f"model={name}", "data=cifar10", *overrides])).to(device).eval()


def plain(name: str, device: str, overrides: Sequence[str] = ()) -> GEBM:
    """The same with constants for weights: what a program written by hand would have."""
    gebm = pair(name, device, overrides)
    for module in gebm.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    return gebm.requires_grad_(False)


def floor(gebm: GEBM, z: Tensor, half: bool = False) -> Callable[[], Tensor]:
    """One forward of E∘B and one backward to z, with `half` in bfloat16."""

    def work() -> Tensor:
        # Not the leaf: the counter of operations cannot see a gradient to one.
        at = z.clone().requires_grad_().view_as(z)
        with torch.autocast(z.device.type, torch.bfloat16, enabled=half):
            energy = gebm.energy(gebm.base(at)).float()
        u = 0.5 * at.square().sum(1) + energy
        return torch.autograd.grad(u.sum(), at)[0]

    return work


def steps(kernel: Any, potential: Potential, z: Tensor) -> Callable[[], object]:
    """A short chain as ours."""
    return lambda: sample_chain(kernel, potential, z, STEPS, generator=BlockNoise(1))


def textbook(gebm: GEBM, z: Tensor, evaluations: int) -> Callable[[], None]:
    """A step as textbooks have it: `loss.backward()` with weights that want gradients, `evaluations` times a step."""
    gebm.requires_grad_(True)

    def gradient(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_()
        (0.5 * at.square().sum(1) + gebm.energy(gebm.base(at))).sum().backward()
        assert at.grad is not None
        return at.grad

    def work() -> None:
        at = z
        for _ in range(STEPS):
            proposal = at - STEP_SIZE * gradient(at) + math.sqrt(2 * STEP_SIZE) * torch.randn_like(at)
            for _ in range(evaluations - 1):
                gradient(proposal)
            at = proposal

    return work


def rows(device: str) -> Iterator[Row]:
    """The table's part on sampling."""
    for name in PAIRS:
        gebm, bare = pair(name, device), plain(name, device)
        z = gebm.prior.sample(CHAINS, BlockNoise(0)).to(device)
        works: dict[str, Callable[[], object]] = {"floor": floor(bare, z)}
        for kernel, settings in KERNELS.items():
            fast = LatentSampler(settings, precision="bf16-mixed", channels_last=True).potential(gebm)
            works[kernel], works[f"{kernel} bf16"] = (steps(settings, p, z) for p in (gebm.potential(), fast))
        for how in COMPILED:
            sampler = LatentSampler(KERNELS["ULA"], compile=True, **COMPILED[how])
            works[f"ULA {how}"] = steps(KERNELS["ULA"], sampler.potential(gebm), z)
        works |= {f"textbook {k}": textbook(pair(name, device), z, n) for k, n in (("ULA", 1), ("MALA", 3))}
        seconds = interleave(works)
        step = {k: [s / EVALUATIONS.get(k.split(" ")[0], STEPS) for s in v] for k, v in seconds.items()}
        step["floor"] = seconds["floor"]
        for kernel in KERNELS:
            yield Row(f"{name}: {kernel} step / floor", ratio(step[kernel], step["floor"]), 1.10)
        yield Row(f"{name}: textbook ULA / ULA", ratio(step["textbook ULA"], step["ULA"]), 1.3, more=True)
        yield Row(f"{name}: textbook MALA / MALA", ratio(step["textbook MALA"], step["MALA"]), 2.5, more=True)
        for kernel, limit in (("ULA", 2.5), ("KLA", 2.5), ("MALA", 1.3)):
            limit_here = limit if name in ("sngan", "resnet") else None
            value = ratio(step["floor"], step[f"{kernel} bf16"])
            yield Row(f"{name}: float32 floor / {kernel} bf16, channels_last", value, limit_here, more=True)
        for how in COMPILED:
            yield Row(f"{name}: float32 floor / ULA {how}", ratio(step["floor"], step[f"ULA {how}"]), more=True)
