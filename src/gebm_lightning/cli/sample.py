"""`gebm-sample`: samples of a trained model, as PNGs or one npz, with no dataset on the machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..errors import UserError, check_number
from .command import pick_device, run_command
from .folder import check_folder, published


def main() -> None:
    """Entry of `sample.py` and `gebm-sample`."""
    run_command("sample", _task)


def _task(cfg: DictConfig) -> None:
    from ..noise import BlockNoise
    from ..samplers import Fitted
    from .source import open_source, part, refiner

    check_number("num_samples", cfg.num_samples, low=1, integer=True)
    device = pick_device(cfg.device)
    source = open_source(cfg, device)
    gebm, folder = source.gebm, source.folder
    sampler = refiner(cfg.sampler, source, tuple(cfg.trust))
    out = Path(cfg.out) if cfg.out is not None else folder / "samples"
    if (out.suffix == ".npz" and out.is_dir()) or (out.suffix != ".npz" and out.exists() and not out.is_dir()):
        raise UserError(f"out={out} is there already and is no {'file' if out.is_dir() else 'folder'}: name another")
    check_folder(out)
    y = choose_labels(gebm, cfg.num_samples, cfg.labels, cfg.seed)
    if isinstance(sampler, Fitted) and getattr(sampler, "needs_data", True):
        from ..metrics.compare import HeldOut

        held_out = HeldOut.of(part(source.run, cfg, "data"), device)
        noise = BlockNoise(cfg.seed, stream="held out")
        sampler = sampler.fit(gebm, held_out.x, noise, held_out.y if gebm.num_classes is not None else None)
    samples = sampler.refine(gebm, cfg.num_samples, BlockNoise(cfg.seed, stream="evaluation"), y)
    if out.suffix == ".npz":
        write_npz(out, samples, y)
    else:
        write_pngs(out, samples.x, y, chain_strip(gebm, samples, y))
    told = [f"{key} {value:.4g}" for key, value in samples.info.items() if isinstance(value, int | float)]
    if told:
        print(", ".join(told))
    print(out)


def choose_labels(gebm: Any, n: int, given: Any, seed: int) -> Any:
    """(n,) labels: those given, in turn, or each class equally likely; None for an unconditional model."""
    import torch

    from ..noise import BlockNoise

    if given is None:
        return gebm.sample_labels(n, BlockNoise(seed, stream="labels"))
    if gebm.num_classes is None:
        raise UserError("labels: this run's model is unconditional")
    if not given or min(given) < 0 or max(given) >= gebm.num_classes:
        raise UserError(f"labels={list(given)}: the model's classes are 0 to {gebm.num_classes - 1}")
    return torch.tensor([given[i % len(given)] for i in range(n)], device=gebm.log_partition.device)


def chain_strip(gebm: Any, samples: Any, y: Any, rows: int = 8, columns: int = 16) -> Any:
    """A few chains over time from the states that `sampler.thin` keeps: images a row each, points as paths; or None."""
    import torch

    from ..callbacks.images import paths, strip
    from ..gebm import call_base
    from ..samplers import sampling_mode

    trace = samples.info.get("trace")
    if trace is None or len(trace) == 0:
        return None
    thin = samples.info["thin"]
    columns = len(trace) if samples.x.dim() == 2 else min(columns, len(trace))
    shown = torch.linspace(0, len(trace) - 1, columns).round().int().tolist()
    few = None if y is None else y[:rows]
    with sampling_mode(gebm), torch.no_grad():
        states = [call_base(gebm.base, trace[i, :rows], few) for i in shown]
    return strip(states, [(i + 1) * thin for i in shown], rows, few) if samples.x.dim() == 4 else paths(states)


def write_npz(path: Path, samples: Any, y: Any = None) -> None:
    """`x`: uint8 images (n, H, W, C) or points (n, d); `y`: labels, `z`: latents, `trace`: (kept, n, d), if any."""
    import numpy as np

    from ..data.batch import to_uint8

    x = samples.x
    x = to_uint8(x).permute(0, 2, 3, 1) if x.dim() == 4 else x
    arrays = {"x": x.cpu().numpy()} | ({} if samples.z is None else {"z": samples.z.cpu().numpy()})
    if y is not None:
        arrays["y"] = y.cpu().numpy()
    if "trace" in samples.info:
        arrays["trace"] = samples.info["trace"].cpu().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)


def write_pngs(folder: Path, x: Any, y: Any = None, chains: Any = None) -> None:
    """`000000.png` … of images (n, C, H, W), with `labels.csv` if they have labels; points become one plot `points.png`.

    A figure of `chains` over time becomes `chains.png`.

    What an earlier call left in the same folder, by its list, is replaced, so that no two samplers mix.
    """
    from torchvision.io import write_png

    from ..callbacks.images import save, side_by_side
    from ..data.batch import to_uint8

    with published(folder) as temporary:
        if x.dim() == 4:
            for i, image in enumerate(to_uint8(x).cpu()):
                write_png(image, str(temporary / f"{i:06d}.png"))
            save(side_by_side({"samples": x[:64]}, None if y is None else y[:64]), temporary / "grid.png")
            if y is not None:
                lines = [f"{i:06d}.png,{label}" for i, label in enumerate(y.tolist())]
                (temporary / "labels.csv").write_text("\n".join(["file,label", *lines]) + "\n")
        else:
            save(side_by_side({"samples": x}, y), temporary / "points.png")
        if chains is not None:
            save(chains, temporary / "chains.png")


if __name__ == "__main__":
    main()
