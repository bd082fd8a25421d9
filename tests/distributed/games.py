"""What the processes of these tests run: it has to be importable by name in each of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from gebm_lightning import compose
from gebm_lightning.callbacks import EMA
from gebm_lightning.callbacks.cadence import BaseUpdateCallback
from gebm_lightning.config import build_parts, instantiate
from gebm_lightning.lightning import GEBMModule, make_trainer

BASE = ["model.width=4", "model.latent_dim=6", "trainer.max_base_updates=20", "energy_schedule.num=2"]


def play(overrides: list[str], devices: int, out: str, dtype: str = "64-true") -> dict[str, Any]:
    """Train, and save parameters, buffers and losses of this process."""
    import pytorch_lightning as pl

    class Losses(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[dict[str, float]] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.seen.append({k: float(v) for k, v in pl_module.logs.items()})

    cfg = compose([*BASE, *overrides])
    torch.manual_seed(0)
    module = GEBMModule(
        *build_parts(cfg), instantiate(cfg.optim), instantiate(cfg.energy_schedule), "both", cfg.seed, cfg.base_samples
    )
    losses = Losses()
    trainer = make_trainer(
        cfg.trainer.max_base_updates,
        accelerator="cpu",
        devices=devices,
        precision=dtype,
        logger=False,
        callbacks=[EMA(0.9), losses],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )
    trainer.fit(module, datamodule=instantiate(cfg.data))
    torch.save(
        {"state": module.state_dict(), "losses": losses.seen}, Path(out) / f"{trainer.global_rank}-of-{devices}.pt"
    )
    return {"rank": trainer.global_rank}


def _meet() -> int:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    return dist.get_rank()


def exchange(out: str) -> None:
    """Gathers and sums of known numbers; each process saves its share of the gradients."""
    import torch.distributed as dist

    from gebm_lightning import distributed as d

    r = _meet()
    x = (torch.arange(6, dtype=torch.float64).view(3, 2) / 7 + r).requires_grad_()
    torch.logsumexp(d.gather(x.square().sum(1)), 0).backward()
    results = {"gather": x.grad}
    x.grad = None
    norm = torch.nn.Sequential(torch.nn.BatchNorm1d(2, dtype=torch.float64))
    d.synchronise(norm)
    (slope,) = torch.autograd.grad(norm(x).pow(3).sum(), x, create_graph=True)
    slope.square().sum().backward()
    results |= {"second": x.grad, "running_mean": norm[0].running_mean, "running_var": norm[0].running_var}
    results |= {"rows": d.gather_rows(torch.full((r + 1, 1), float(r))), "max": d.all_max([5 * r, 9 - r])}
    results |= {
        "broadcast": d.broadcast(f"from {r}"),
        "none": d.gather_rows(torch.zeros(r, 4) if r else torch.zeros(0)),
    }
    torch.save(results, Path(out) / f"{r}.pt")
    dist.destroy_process_group()


def score(out: str) -> None:
    """Scores of an untrained model, by however many processes there are."""
    import json

    import torch.distributed as dist

    from gebm_lightning import build
    from gebm_lightning.metrics import Digits
    from gebm_lightning.metrics.compare import compare, real_scorers
    from gebm_lightning.metrics.curve import sampling_curve
    from gebm_lightning.samplers import SIR, ULA, LatentSampler

    class Costly(Digits):
        name, costly = "costly", True

    os.environ["GEBM_CACHE"] = f"{out}.cache"
    r = _meet()
    cfg = compose(["model.width=4", "model.num_classes=10"])
    gebm, data = build(cfg), instantiate(cfg.data)
    features = Costly()
    scorers = real_scorers(data, features, ["train", "test"], 0, max_real=300)
    sampler = LatentSampler(ULA(1e-2), num_steps=3)
    rows = compare(gebm, {"ula": sampler, "sir": SIR(pool=640)}, features, scorers, 200, 0, per_class=True)
    curve = sampling_curve(gebm, sampler, features, scorers, 100, 0, [1, 3])
    for row in rows:
        # Each process draws a pool of its own: what a sample costs, and how long it takes, may differ.
        for key in ("gradients", "evaluations", "jump", "seconds", "potential", "acceptance", "ess", "ess_share"):
            row.pop(key, None)
    if r == 0:
        real = {split: scorer.real.sum().item() for split, scorer in scorers.items()}
        Path(out).write_text(json.dumps({"rows": rows, "curve": curve, "real": real}))
    dist.destroy_process_group()


class Poison(BaseUpdateCallback):
    """After the fifth base update one parameter of the second process is NaN."""

    def __init__(self) -> None:
        super().__init__(1)

    def on_base_update(self, trainer: Any, module: GEBMModule) -> None:
        if module.base_updates == 5 and trainer.global_rank == 1:
            with torch.no_grad():
                next(module.gebm.base.parameters()).fill_(torch.nan)
