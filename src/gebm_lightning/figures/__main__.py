"""Writes the figures as OUT/NAME.png and prints their paths: `python -m gebm_lightning.figures OUT [NAME ...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ..callbacks.images import save
from ..errors import UserError
from . import FIGURES, RUN_FIGURES


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figures asked for, all by default; a mistake is one sentence on stderr and status 1."""
    parser = argparse.ArgumentParser(prog="python -m gebm_lightning.figures", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder they are written into")
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(FIGURES)}; by default all")
    parser.add_argument("--seed", type=int, help="of all figures; by default each one's own")
    parser.add_argument("--run", type=Path, help=f"a run's folder, for the names {', '.join(RUN_FIGURES)}")
    given = parser.parse_args(arguments)
    try:
        draw(given.out, given.names, given.seed, given.run)
    except UserError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{given.out} cannot be written: {error.strerror or error}")


def draw(out: Path, names: Sequence[str] = (), seed: int | None = None, run: Path | None = None) -> None:
    """Write the figures of these names; by default all that need no run.

    Raises:
        UserError: an unknown name, or a figure of a run without a run.
    """
    known = {**FIGURES, **RUN_FIGURES}
    for name in names:
        if name not in known:
            raise UserError(f"there is no figure {name}: the figures are {', '.join(known)}")
        if name in RUN_FIGURES and run is None:
            raise UserError(f"{name} needs a run's folder: --run=RUN")
    for name in names or FIGURES:
        given = {"run": run} if name in RUN_FIGURES else {} if seed is None else {"seed": seed}
        save(known[name](**given), out / f"{name}.png")
        print(out / f"{name}.png", flush=True)


if __name__ == "__main__":
    # All is small: more threads would only wait for one another.
    torch.set_num_threads(1)
    main()
