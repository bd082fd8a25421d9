"""`gebm-export`: a run's model as a folder to give away, and, if asked, on a Hugging Face hub."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from ..errors import UserError
from .command import run_command


def main() -> None:
    """Entry of `export.py` and `gebm-export`."""
    run_command("export", _task, name_run)


def name_run(arguments: list[str], key: str = "ckpt") -> list[str]:
    """The arguments with a bare RUN as `ckpt=RUN`, or under another key.

    Raises:
        UserError: several runs are named.
    """
    # What follows a flag of Hydra's, such as --config-dir, is the flag's.
    bare = [
        i
        for i, argument in enumerate(arguments)
        if argument and "=" not in argument and argument[0] not in "-~" and not arguments[max(i, 1) - 1].startswith("-")
    ]
    named = [arguments[i] for i in bare] + [a for a in arguments if a.startswith(f"{key}=")]
    if len(named) > 1:
        raise UserError(f"{' '.join(named)}: one run at a time")
    # Quoted, since Hydra's grammar has commas, spaces and brackets of its own.
    quoted = {i: f"{key}='" + arguments[i].replace("'", "\\'") + "'" for i in bare}
    return [quoted.get(i, argument) for i, argument in enumerate(arguments)]


def _task(cfg: DictConfig) -> None:
    from ..export import check_out, export_run, run_folder
    from ..hub import hub_api, push

    if cfg.ckpt is None:
        raise UserError("a run's folder is missing: gebm-export RUN, or ckpt=RUN")
    out = run_folder(cfg.ckpt) / "export" if cfg.out is None else cfg.out
    check_out(out)
    # Before the work, since it may not be there.
    api = None if cfg.hub is None else hub_api(cfg.hub)
    folder, notes = export_run(cfg.ckpt, out, cfg.ema, tuple(cfg.trust), cfg.program)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if api is not None:
        print(push(api, cfg.hub, folder))
    print(folder)


if __name__ == "__main__":
    main()
