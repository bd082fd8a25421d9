"""A training iteration, callbacks and all, against the bare loop and textbook code."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from gebm_lightning import build, compose
from gebm_lightning.callbacks.monitor import bounds
from gebm_lightning.cli import fit as command
from gebm_lightning.config import instantiate

from .bare import Bare
from .timing import REPEATS, WARMUP, Row, interleave, ratio


class Interleaved(pl.Callback):
    """Lets other loops do as many base updates as ours just did, block by block, each on its own clock."""

    def __init__(self, others: dict[str, Bare], block: int) -> None:
        self.others, self.block, self.seen = others, block, 0
        self.seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in others}}
        self.began = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        updates = pl_module.base_updates
        if updates == self.seen or updates % self.block:
            return
        self.seen = updates
        taken = {"ours": time.perf_counter() - self.began}
        for name, loop in self.others.items():
            start = time.perf_counter()
            for _ in range(self.block):
                loop.update()
            taken[name] = time.perf_counter() - start
        if updates > WARMUP * self.block:
            for name, seconds in taken.items():
                self.seconds[name].append(seconds)
        self.began = time.perf_counter()


FASTER = {
    "channels_last": ["trainer.channels_last=true"],
    "bf16, channels_last": ["trainer.channels_last=true", "trainer.precision=bf16-mixed"],
}


def against_bare(overrides: list[str], block: int, textbook: bool = False) -> dict[str, list[float]]:
    """Seconds of each block of `block` base updates: ours, the bare loop's, and textbook code's if asked for.

    Those overrides that make training faster do not reach the bare loop.
    """
    updates = block * (WARMUP + REPEATS)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        always = ["trainer.accelerator=cpu", f"trainer.max_base_updates={updates}", f"run_dir={folder}/run"]
        cfg = compose([*always, "callbacks.sampling=null", "callbacks.evaluation=null", *overrides])
        data: Any = instantiate(cfg.data).dataset("train")
        images = data.__getitems__(list(range(len(data)))).x
        clock = Interleaved(
            {"bare": Bare(cfg, images)} | ({"textbook": Bare(cfg, images, True)} if textbook else {}), block
        )

        def with_clock(node: Any, *args: Any, **kwargs: Any) -> Any:
            if "callbacks" in kwargs:
                kwargs["callbacks"] = [*kwargs["callbacks"], clock]
            return instantiate(node, *args, **kwargs)

        command.instantiate = with_clock
        try:
            command.fit(cfg, Path(folder) / "run")
        finally:
            command.instantiate = instantiate
    return clock.seconds


def bounds_share(overrides: list[str]) -> float:
    """What the monitor's bounds take, which come too seldom for a block, over what a bare loop takes from one to the next.

    With as many energy updates as the overrides say, or by default.
    """
    cfg = compose(overrides)
    data: Any = instantiate(cfg.data)
    gebm, train = build(cfg), data.dataset("train")
    loop = Bare(cfg, train.__getitems__(list(range(min(len(train), 1000)))).x)

    def work() -> None:
        bounds(gebm, {split: data.batches(split, stop=1000) for split in ("train", "val")}, 1000)

    seconds = interleave({"bounds": work, "update": loop.update}, repeats=2, warmup=1)
    return ratio(seconds["bounds"], seconds["update"]) / cfg.callbacks.monitor.bounds_every


def rows(device: str) -> Iterator[Row]:
    """The table's part on training; on the CPU only."""
    if device != "cpu":
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.npz"
        images = torch.randint(0, 256, (2000, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        np.savez(path, train_x=images.numpy(), test_x=images[:500].numpy())
        cifar = [f"data.path={path}", "data.batch_size=64", "features=identity"]
        cifar += ["optim.energy.lr=1e-5", "optim.base.lr=1e-5", "callbacks.calibration=null"]
        for name, limit in (("dcgan", None), ("sngan", 1.3), ("resnet", None)):
            label, block = f"{name} at 32×32, batch 64", {"dcgan": 5, "sngan": 2, "resnet": 1}[name]
            default = [f"model={name}", "data=npz", *cifar]
            # One energy update for each of the base, so that it ends in time.
            settings = [*default, "energy_schedule.num=1"]
            seconds = against_bare(settings, block, textbook=True)
            yield from ours(label, seconds, 1.05, bounds_share(default))
            yield Row(f"{label}: textbook / training", ratio(seconds["textbook"], seconds["ours"]), limit, more=True)
            for how, faster in FASTER.items():
                seconds = against_bare([*settings, *faster], block)
                yield Row(
                    f"{label}: bare loop / training with {how}", ratio(seconds["bare"], seconds["ours"]), more=True
                )
    seconds = against_bare([], 20)
    yield from ours("digits, default model", seconds, 1.15, bounds_share([]))


def ours(label: str, seconds: dict[str, list[float]], limit: float, share: float) -> Iterator[Row]:
    """Training against the bare loop, and the part of the monitor's bounds, which is to be added."""
    value = ratio(seconds["ours"], seconds["bare"])
    yield Row(f"{label}: training / bare loop, bounds included", value * (1 + share), limit)
    yield Row(f"{label}: the monitor's bounds / 100 updates of the default schedule", share)
