"""The checkpoint's format: tensors and plain containers only, under a format version; read and written with care."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ..archive import load_torch
from ..distributed import rank
from ..errors import UserError, first_line
from ..gebm import GEBM
from .module import FORMAT_VERSION

_TOLD: set[Path] = set()


def find_checkpoint(run_dir: str | Path) -> Path:
    """The newest readable checkpoint of a run's folder, or the file itself; says so where it is not the last one.

    Raises:
        UserError: there is none.
    """
    path = Path(run_dir)
    if path.suffix == ".ckpt":
        if not path.is_file():
            raise UserError(f"there is no checkpoint {path}")
        return path
    last, previous = (path / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    problem = _damage(last) if last.is_file() else "it is missing"
    if problem is not None and previous.is_file() and _damage(previous) is None:
        note = f"note: {last} cannot be read ({problem}): going back to {previous}"
        if last.absolute() not in _TOLD:
            _TOLD.add(last.absolute())
            print(note, file=sys.stderr)
        return previous
    if not last.is_file():
        raise UserError(f"{path} has no checkpoint: {last} is missing; the run ended before its first one")
    return last


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a run has saved anything."""
    return any((run_dir / "checkpoints" / name).is_file() for name in ("last.ckpt", "previous.ckpt"))


def put_damaged_aside(checkpoint: Path) -> None:
    """Before a run goes on from `previous.ckpt`, make that the last one; what was newer and damaged is `last.damaged`."""
    last = checkpoint.with_name("last.ckpt")
    if checkpoint.name == "previous.ckpt":
        keep_as(last, "last.damaged")
        keep_as(checkpoint, "last.ckpt")


def _damage(path: Path) -> str | None:
    try:
        _read(path)
    except Exception as error:
        return first_line(error)
    return None


def _read(path: Path) -> Any:
    # torch's formats before its archives, which have no checksums, are not taken.
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip archive")
    return load_torch(path)


def read_checkpoint(run_dir: str | Path, to_resume: bool = False) -> dict[str, Any]:
    """The checkpoint's contents, loaded without running any code of it; `to_resume` also asks for the trainer's state.

    Raises:
        UserError: it is missing, damaged, of another program or of a newer format.
    """
    path = find_checkpoint(run_dir)
    try:
        checkpoint = _read(path)
    except Exception as error:
        raise UserError(f"{path} is damaged or no checkpoint: {first_line(error)}") from error
    ours = checkpoint.get("gebm_lightning") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is a checkpoint of another program: it has no gebm_lightning entry")
    if ours.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {ours.get('format_version')}, this program reads version {FORMAT_VERSION}: "
            f"it was written by gebm_lightning {ours.get('version')}"
        )
    if to_resume and not {"pytorch-lightning_version", "loops", "callbacks", "optimizer_states"} <= checkpoint.keys():
        raise UserError(f"{path} is a checkpoint of weights only: a run cannot be resumed from it")
    return checkpoint


def restore(gebm: GEBM, checkpoint: dict[str, Any], ema: bool, energy_is_new: bool = False) -> bool:
    """Load a checkpoint's weights into a model; True if the averaged base was taken.

    Args:
        gebm: the model.
        checkpoint: what `read_checkpoint` has read.
        ema: take the averaged base, where there is one.
        energy_is_new: a model without any energy, as likelihoods of the base train it, leaves this one's as it is.

    Raises:
        UserError: the checkpoint belongs to another model.
    """
    state = checkpoint["state_dict"]
    weights = {k.removeprefix("gebm."): v for k, v in state.items() if k.startswith("gebm.")}
    averaged = {k.removeprefix("ema.module."): v for k, v in state.items() if k.startswith("ema.module.")}
    if ema and averaged:
        weights |= {f"base.{k}": v for k, v in averaged.items()}
    own = gebm.state_dict()
    if energy_is_new and not any(k.startswith("energy.") for k in weights):
        weights |= {k: v for k, v in own.items() if k.startswith("energy.")}
    wrong = sorted(
        k for k in own.keys() | weights.keys() if k not in own or k not in weights or own[k].shape != weights[k].shape
    )
    if wrong:
        raise UserError(
            f"the checkpoint is of another model than the config: {len(wrong)} tensors differ, the first is {wrong[0]}"
        )
    gebm.load_state_dict(weights)
    return bool(ema and averaged)


def write_checkpoint(trainer: pl.Trainer, path: Path, before: Callable[[], None] | None = None) -> None:
    """Save all state of a trainer, all or nothing: a temporary file, flushed to disk, then renamed.

    Every process takes part, the first one writes; `before` is what it does once the file is complete, before the renaming.
    """
    temporary = path.with_suffix(".tmp")
    try:
        if rank() == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(temporary)
        if rank() == 0:
            _flush(temporary)
            if before is not None:
                before()
            os.replace(temporary, path)
            _flush(path.parent)
    except OSError as error:
        whole = (
            f", then go on with resume={path.parent.parent}: the checkpoint before is whole" if path.exists() else ""
        )
        raise UserError(f"{path} cannot be written: {error.strerror or first_line(error)}; make room{whole}") from error
    finally:
        if rank() == 0:
            temporary.unlink(missing_ok=True)


def keep_as(path: Path, name: str) -> None:
    """Give a file, if it is there, a second name beside its own; at no moment is the first one gone."""
    if path.is_file():
        temporary = path.with_name(f"{name}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
            _flush(temporary)
        os.replace(temporary, path.with_name(name))
        # Of two names of one file the renaming removes neither.
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
