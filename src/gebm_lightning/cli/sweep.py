"""Sweeps: which of their jobs are still to be done, and the table, figure and list at their end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from ..errors import UserError
from .launch import process_rank
from .resume import check_resumable, same_config


def take_up(cfg: DictConfig, folder: Path) -> dict[str, Any] | None:
    """What a finished job's `finished.json` holds, or None if it is to be run; then `cfg.resume` is set where it can go on.

    A folder that holds a job's beginnings but no readable checkpoint is put aside, under another name.

    Raises:
        UserError: the folder belongs to another config.
    """
    if not (folder / "config.yaml").is_file():
        return None
    try:
        same = same_config(cfg, folder)
        finished = folder / "finished.json"
        done: dict[str, Any] | None = json.loads(finished.read_text()) if same and finished.is_file() else None
        if same and done is None:
            check_resumable(folder)
    except (UserError, ValueError) as error:
        if process_rank() != 0:
            return None
        aside = _free_name(folder)
        print(f"note: {folder} is broken ({error}): put aside as {aside.name}, the job begins anew", file=sys.stderr)
        folder.rename(aside)
        folder.mkdir()
        return None
    if not same:
        raise UserError(f"{folder} holds the same job of another config, or of a changed one: choose another name=")
    if done is not None:
        print(f"{folder} is finished already")
        return done
    with open_dict(cfg):
        cfg.resume = str(folder)
    return None


def _free_name(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.broken-{number}")).exists():
        number += 1
    return aside
