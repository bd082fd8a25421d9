"""`gebm-sample`: samples of a trained model, as PNGs or one npz, with no dataset on the machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..errors import UserError
from .command import pick_device, run_command


def main() -> None:
    """Entry of `sample.py` and `gebm-sample`."""
    run_command("sample", _task)


def _task(cfg: DictConfig) -> None:
    from ..config import load
    from ..noise import BlockNoise
    from .refiners import given_or_run

    if cfg.num_samples < 1:
        raise UserError(f"num_samples must be at least 1, not {cfg.num_samples}")
    device = pick_device(cfg.device)
    gebm = load(cfg.ckpt, cfg.ema).to(device)
    sampler = given_or_run(cfg.sampler, cfg.ckpt)
    folder = Path(cfg.ckpt)
    folder = folder.parent.parent if folder.suffix == ".ckpt" else folder
    out = Path(cfg.out) if cfg.out is not None else folder / "samples"
    samples = sampler.refine(gebm, cfg.num_samples, BlockNoise(cfg.seed, stream="evaluation"))
    if out.suffix == ".npz":
        write_npz(out, samples)
    else:
        write_pngs(out, samples.x)
    print(out)


def write_npz(path: Path, samples: Any) -> None:
    """`x`: uint8 images (n, H, W, C) or float32 points (n, d); `z`: latents, where there are any. All or nothing."""
    import numpy as np

    from ..data.batch import to_uint8

    x = samples.x
    x = to_uint8(x).permute(0, 2, 3, 1) if x.dim() == 4 else x
    arrays = {"x": x.cpu().numpy()} | ({} if samples.z is None else {"z": samples.z.cpu().numpy()})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(temporary, path)


def write_pngs(folder: Path, x: Any) -> None:
    """`000000.png` … of images (n, C, H, W); points become one scatter plot `points.png`."""
    from torchvision.io import write_png

    from ..callbacks.images import save, side_by_side
    from ..data.batch import to_uint8

    folder.mkdir(parents=True, exist_ok=True)
    if x.dim() != 4:
        save(side_by_side({"samples": x}), folder / "points.png")
        return
    for i, image in enumerate(to_uint8(x).cpu()):
        write_png(image, str(folder / f"{i:06d}.png"))
    save(side_by_side({"samples": x[:64]}), folder / "grid.png")


if __name__ == "__main__":
    main()
