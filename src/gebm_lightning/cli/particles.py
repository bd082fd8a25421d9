"""`gebm-particles`: particles that flow to a sample of points, in a folder with their losses, a figure and an animation."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..errors import UserError, check_number
from .command import pick_device, run_command
from .folder import check_folder, published

ANIMATIONS = ("gif", "mp4")
LINES = 10


def main() -> None:
    """Entry of `particles.py` and `gebm-particles`."""
    run_command("particles", _task, check_arguments)


def check_arguments(arguments: list[str]) -> list[str]:
    """The arguments; a UserError if they name one folder for all jobs of a sweep, or two flows for one job."""
    sweep = bool({"-m", "--multirun"} & set(arguments))
    for argument in arguments:
        if sweep and argument.startswith("out=") and argument != "out=null":
            raise UserError(
                "out: each job of a sweep has its own folder, in sweeps/particles; choose hydra.sweep.dir=DIR"
            )
        if argument.startswith("particles=[") and not sweep:
            raise UserError(
                f"{argument}: one flow at a time, a list would merge their configs; for a sweep take -m particles=a,b"
            )
    return arguments


def _task(cfg: DictConfig) -> None:
    import torch

    from ..config import instantiate
    from ..noise import BlockNoise
    from .flow_figures import check_writer

    for key in ("num_steps", "num_particles", "frames", "fps"):
        check_number(key, cfg[key], low=1, integer=True)
    if cfg.animation is not None:
        if cfg.animation not in ANIMATIONS:
            raise UserError(f"animation must be one of {', '.join(ANIMATIONS)} or null, not {cfg.animation}")
        check_writer(cfg.animation)
    for key in ("source", "target"):
        if not OmegaConf.is_dict(cfg[key]):
            raise UserError(f"{key} holds settings, such as {key}.path=FILE: it cannot be {cfg[key]}")
    folder = choose_folder(cfg)
    device = pick_device(cfg.device)
    if device.type == "mps":
        raise UserError(f"device={cfg.device}: the flows need float64, which mps has not; take device=cpu")
    flow = instantiate(cfg.particles)
    start, target = (points.to(device, torch.float64) for points in start_and_target(cfg))
    keep_every = -(-cfg.num_steps // cfg.frames)
    noise = BlockNoise(cfg.seed, stream="flow")
    with progress(cfg.num_steps) as on_step:
        told = flow.run(start, target, cfg.num_steps, noise, keep_every=keep_every, on_step=on_step)
    if told.losses[-1] > told.losses[0]:
        warnings.warn(
            f"the loss ended at {told.losses[-1]:.3g}, above the {told.losses[0]:.3g} it began with: lower particles.step_size",
            stacklevel=1,
        )
    steps = [*range(0, cfg.num_steps + 1, keep_every)]
    with published(folder) as temporary:
        write(temporary, cfg, target, told, steps)
    print(folder)


def choose_folder(cfg: DictConfig) -> Path:
    """The folder `out`, or a new one; in a sweep the job's own.

    Raises:
        UserError: it is a file, or holds what this program did not write.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return Path(HydraConfig.get().runtime.output_dir)
    out = Path(cfg.out) if cfg.out is not None else Path(f"runs/particles-{datetime.now():%Y%m%d-%H%M%S-%f}")
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is there already and is no folder: name another")
    check_folder(out)
    return out


def start_and_target(cfg: DictConfig) -> tuple[Any, Any]:
    """Particles (n, 2) where they start and the target (m, 2), of the benchmark, of files, or of the data and a Gaussian.

    Raises:
        UserError: there is no such file or benchmark, or the data are no points of the plane.
    """
    from hydra.core.hydra_config import HydraConfig

    from ..noise import BlockNoise, randn
    from ..transports.rings import three_rings

    if cfg.benchmark is not None:
        if cfg.benchmark != "three_rings":
            raise UserError(f"benchmark must be three_rings or null, not {cfg.benchmark}")
        given = HydraConfig.get().overrides.task
        for override in given:
            if re.match(r"[+~]*(num_particles|data|source|target)\b", override):
                raise UserError(f"benchmark={cfg.benchmark} has its own particles and target: leave {override} out")
        return three_rings()
    target = points_of_data(cfg) if cfg.target.path is None else points_of_file("target.path", cfg.target.path)
    if cfg.source.path is not None:
        return points_of_file("source.path", cfg.source.path), target
    check_number("source.scale", cfg.source.scale, above=0)
    mean = cfg.source.mean
    if not OmegaConf.is_list(mean) or len(mean) != 2:
        raise UserError(f"source.mean must be two numbers, not {mean}")
    for value in mean:
        check_number("source.mean", value)
    noise = randn((cfg.num_particles, 2), BlockNoise(cfg.seed, stream="source"))
    return noise.new_tensor(list(mean)) + cfg.source.scale * noise, target


def points_of_data(cfg: DictConfig) -> Any:
    """(m, 2) points of the data's split, chosen by the seed."""
    import torch

    from ..config import instantiate
    from ..noise import stable_seed

    if cfg.data is None:
        raise UserError("data= is missing: name points of the plane, such as data=three_rings, or target.path=FILE")
    check_number("target.num", cfg.target.num, low=1, integer=True)
    data = instantiate(cfg.data)
    if data.shape != (2,):
        raise UserError(
            f"the data have shape {data.shape}, and particles move in the plane: take data=three_rings, ring, gaussian_grid "
            "or swiss_roll, or target.path=FILE"
        )
    split = data.dataset(cfg.target.split)
    if cfg.target.num > len(split):
        raise UserError(f"target.num={cfg.target.num}: the {cfg.target.split} split has {len(split)} points")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(stable_seed(cfg.seed, "target")))
    return split.__getitems__(order[: cfg.target.num].tolist()).x


def points_of_file(key: str, path: str) -> Any:
    """(n, 2) the array `x` of an npz file, or else `final`, a flow's particles."""
    import numpy as np
    import torch

    from ..data.arrays import load_npz

    arrays = load_npz(Path(str(path)), f"set {key}")
    found = next((arrays[name] for name in ("x", "final") if name in arrays), None)
    if found is None:
        raise UserError(f"{key}={path} has the arrays {', '.join(arrays) or 'none'}: it needs x")
    if found.ndim != 2 or found.shape[1] != 2 or len(found) == 0 or not np.issubdtype(found.dtype, np.floating):
        raise UserError(f"{key}={path} holds {found.dtype} of shape {found.shape}: points are floats of shape (n, 2)")
    return torch.from_numpy(found)


@contextmanager
def progress(total: int) -> Iterator[Any]:
    """A function to call at each step: it moves a bar, or prints a few lines where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    if not console.is_terminal:

        def line(step: int, particles: Any, loss: float, norm: float) -> None:
            if step % max(total // LINES, 1) == 0 or step == total:
                print(f"step {step} of {total}, loss {loss:.4g}, gradient norm {norm:.4g}", flush=True)

        yield line
        return
    columns = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4g}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=total, loss=float("nan"))
        yield lambda step, particles, loss, norm: bar.update(task, completed=step, loss=loss)


def write(folder: Path, cfg: DictConfig, target: Any, told: Any, steps: list[int]) -> None:
    """`losses.csv`, `particles.npz`, `final.png`, the animation, and the config of it all."""
    import numpy as np

    from ..callbacks.images import save
    from .flow_figures import animate, final_figure

    with (folder / "losses.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss", "gradient_norm"])
        rows.writerows(zip(range(len(told.losses)), told.losses.tolist(), told.gradient_norms.tolist(), strict=True))
    trace, final, goal = (points.cpu().numpy() for points in (told.trace, told.particles, target))
    np.savez(
        folder / "particles.npz",
        initial=trace[0],
        final=final,
        target=goal,
        trace=trace,
        trace_steps=np.array(steps),
    )
    save(final_figure(trace[0], final, goal, told.losses.tolist()), folder / "final.png")
    if cfg.animation is not None:
        states = list(trace) if steps[-1] == cfg.num_steps else [*trace, final]
        shown = steps if steps[-1] == cfg.num_steps else [*steps, cfg.num_steps]
        animate(states, shown, goal, folder / f"animation.{cfg.animation}", cfg.fps)
    kept = [str(key) for key in cfg if key not in ("model", "features")]
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, kept), resolve=True))


if __name__ == "__main__":
    main()
