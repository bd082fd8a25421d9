"""Where a run goes, and how one that ended early is taken up again."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ..errors import UserError
from .launch import launched
from .lock import is_held

Arguments = list[str]
NOT_COMPARED = ("run_dir", "resume", "debug", "sweep_objective", "name", "trust")
"""Keys that may differ between a run and its resumption."""


def choose_run_dir(arguments: Arguments) -> Arguments:
    """The arguments with `resume=auto` resolved, and with the folder that Hydra has to know before it makes a new one.

    Raises:
        UserError: what is to be resumed cannot be, or several processes would each choose a folder of their own.
    """
    sweep = bool({"-m", "--multirun"} & set(arguments))
    given = any(a.startswith("run_dir=") for a in arguments)
    if sweep and given:
        raise UserError("run_dir: each job of a sweep has its own folder, sweeps/NAME/…; choose name=NAME")
    resumes = [a for a in arguments if re.fullmatch(r"resume=(['\"]?)(.+)\1", a) and a != "resume=null"]
    if sweep and resumes:
        raise UserError(f"{resumes[0]}: a sweep that is run again resumes its unfinished jobs by itself")
    if "resume=auto" in resumes:
        arguments = [a for a in arguments if a != "resume=auto"]
        found = newest_unfinished(arguments)
        if found is None:
            print("note: there is no unfinished run of this config: a new one begins", file=sys.stderr)
        resumes = [] if found is None else [f"resume={found}"]
        # The run has the others already.
        arguments = [a for a in arguments if found is None or a.startswith(("-", "trust=")) or "hydra." in a] + resumes
    if resumes:
        folder = resumes[0].split("=", 1)[1].strip("'\"")
        check_resumable(Path(folder))
        return [*arguments, f"hydra.run.dir='{folder}'"]
    if launched() and not sweep and not given and not any(a.startswith("hydra.run.dir=") for a in arguments):
        return [*arguments, f"run_dir='{_common_folder()}'"]
    return arguments


def _common_folder() -> str:
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if name == "none" and "SLURM_JOB_ID" in os.environ:
        name = f"slurm-{os.environ['SLURM_JOB_ID']}"
    if name == "none":
        raise UserError("several processes need one folder: name it with run_dir=, or give torchrun an --rdzv-id")
    return f"runs/{name}"


def check_resumable(folder: Path) -> None:
    """Raise if there is nothing in the folder that a run could go on from."""
    from ..config import load_config
    from ..lightning.checkpoint import read_checkpoint

    if folder.suffix == ".ckpt":
        raise UserError(f"resume={folder}: give the run's folder, not a checkpoint in it")
    load_config(folder)
    read_checkpoint(folder, to_resume=True)


def newest_unfinished(overrides: Arguments) -> Path | None:
    """The run in `runs/`, or in the folder that `run_dir` names, of the same config, that began last and has not finished."""
    from ..config import compose
    from ..lightning.checkpoint import has_checkpoint

    cfg = compose(search_path(overrides) + [a for a in overrides if not a.startswith(("-", "hydra."))])
    folders = [Path(cfg.run_dir)] if cfg.run_dir is not None else list(Path("runs").glob("*"))
    for folder in sorted((f for f in folders if (f / "config.yaml").is_file()), key=_began, reverse=True):
        unfinished = has_checkpoint(folder) and not (folder / "finished.json").is_file() and not is_held(folder)
        if unfinished and same_config(cfg, folder):
            return folder
    return None


def search_path(arguments: Arguments) -> Arguments:
    """Where a command line has Hydra look for configs besides, as overrides that `compose` takes."""
    folders = [a.split("=", 1)[1] for a in arguments if a.startswith("--config-dir=")]
    return [a for a in arguments if a.startswith("hydra.searchpath=")] + [
        f"hydra.searchpath=[file://{Path(folder).absolute()}]" for folder in folders
    ]


def _began(folder: Path) -> float:
    return (folder / "config.yaml").stat().st_mtime


def same_config(cfg: DictConfig, folder: Path) -> bool:
    """Whether a run's folder is one of this config, but for where it lies and how it was started."""
    from ..config import load_config

    return _comparable(cfg, folder) == _comparable(load_config(folder), folder)


def _comparable(cfg: DictConfig, folder: Path) -> Any:
    copied: Any = OmegaConf.create(OmegaConf.to_container(cfg))
    copied.run_dir = str(folder)
    plain: Any = OmegaConf.to_container(copied, resolve=True)
    for key in NOT_COMPARED:
        plain.pop(key, None)
    for node in plain.get("logger", {}).values():
        if isinstance(node, dict):
            node.pop("save_dir", None)
            node.pop("hide", None)
    return plain


def put_aside(folder: Path, why: str) -> None:
    """Rename a run's folder, of which nothing is lost, and make an empty one in its place."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.broken-{number}")).exists():
        number += 1
    print(f"note: {folder} is broken ({why}): put aside as {aside.name}, the run begins anew", file=sys.stderr)
    folder.rename(aside)
    folder.mkdir()


def resumed_config(folder: Path, overrides: list[str]) -> DictConfig:
    """The run's own config, with those overrides that may change, and its loggers pointed at where the run is now."""
    from ..config import load_config

    cfg = load_config(folder)
    before: Any = cfg.trainer.max_base_updates
    with open_dict(cfg):
        # Whom to trust is said by who resumes, never by the file.
        cfg.trust = []
        hidden = {name: list(node.hide) for name, node in cfg.logger.items() if _has_hide(node)}
        for override in overrides:
            # Hydra asks for a plus where the default config has no such key; the run's own may.
            key, _, value = override.removeprefix("+").partition("=")
            if key.startswith(("trainer.", "callbacks.", "logger.")) or key in ("debug", "trust"):
                new = OmegaConf.from_dotlist([f"value={value}"]).value
                OmegaConf.update(cfg, key, new)
                # What loggers share, such as logger.offline, is written out in each of them.
                group, _, shared = key.partition(".")
                for node in cfg.logger.values() if group == "logger" else []:
                    if OmegaConf.is_dict(node) and shared in node:
                        node[shared] = new
            elif key != "resume":
                raise UserError(
                    f"{override}: a resumed run keeps its config; only trainer, callbacks, logger and trust may change"
                )
        for name, node in cfg.logger.items():
            if OmegaConf.is_config(node) and "save_dir" in node:
                node.save_dir = str(folder)
            # What came from the environment is in there, and cannot be told any more.
            if name in hidden and _has_hide(node):
                node.hide = [*hidden[name], *node.hide]
        cfg.resume = str(folder)
    if cfg.trainer.max_base_updates != before and any(cfg.optim.get(f"{p}_scheduler") for p in ("energy", "base")):
        print(f"note: the learning-rate schedules stay those of a run of {before} base updates", file=sys.stderr)
    return cfg


def _has_hide(node: Any) -> bool:
    return OmegaConf.is_dict(node) and OmegaConf.is_list(node.get("hide"))
