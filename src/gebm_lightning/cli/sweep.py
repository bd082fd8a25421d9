"""Sweeps: which of their jobs are still to be done, and the table, figure and list at their end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from ..errors import UserError
from .launch import process_rank
from .lock import is_held
from .resume import check_resumable, put_aside, same_config


def take_up(cfg: DictConfig, folder: Path) -> dict[str, Any] | None:
    """What a finished job's `finished.json` holds, or None if it is to be run; then `cfg.resume` is set where it can go on.

    A folder that holds a job's beginnings but no readable checkpoint is put aside, under another name.

    Raises:
        UserError: the folder belongs to another config.
    """
    if not any(folder.iterdir()):
        return None
    if process_rank() == 0 and is_held(folder):
        raise UserError(f"the job in {folder} is going on, in another process")
    try:
        same = same_config(cfg, folder)
        if same:
            check_resumable(folder)
        done = _finished(cfg, folder) if same else None
    except (UserError, ValueError) as error:
        # Of several processes the first one moves the folder; the others come to the same end whether they see it or not.
        if process_rank() == 0:
            put_aside(folder, str(error))
        return None
    if not same:
        raise UserError(f"{folder} holds the same job of another config, or of a changed one: choose another name=")
    if done is not None:
        print(f"{folder} is finished already")
        return done
    with open_dict(cfg):
        cfg.resume = str(folder)
    return None


def _finished(cfg: DictConfig, folder: Path) -> dict[str, Any] | None:
    path = folder / "finished.json"
    unscored = cfg.callbacks.get("evaluation") is not None and not (folder / "summary.json").is_file()
    if not path.is_file() or unscored:
        return None
    done: dict[str, Any] = json.loads(path.read_text())
    return done
