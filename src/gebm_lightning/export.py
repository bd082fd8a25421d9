"""A trained run as a folder to give away: weights, config, a card, and the base as a program for torch alone."""

from __future__ import annotations

import hashlib
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from torch import Tensor, fx

from .config import build_parts, load, load_config
from .errors import UserError, first_line
from .gebm import GEBM, call_base
from .noise import BlockNoise

WEIGHTS, PROGRAM, CONFIG, CARD = "model.safetensors", "base.pt2", "config.yaml", "README.md"
FORMAT_VERSION = "1"
BASE_UPDATES = re.compile(r"[0-9]{1,18}")


class Exported(NamedTuple):
    """What `export_run` has written."""

    folder: Path
    notes: list[str]
    """What was left out and why, a sentence each."""


def export_run(
    run_dir: str | Path, out: str | Path, ema: bool = True, trust: tuple[str, ...] = (), program: bool = True
) -> Exported:
    """Write a run's model to a new folder, all or nothing; `load` reads it back bit for bit.

    Args:
        run_dir: a run's folder, or one checkpoint file in it.
        out: the folder; if it is there it must be empty.
        ema: as for `load`: whether the base is the averaged one, where the run kept one.
        trust: as for `load`.
        program: False leaves out `base.pt2`.

    Raises:
        UserError: there is no such run, its checkpoint is damaged, or the folder cannot be written.
    """
    from .hidden import without_hidden
    from .lightning.checkpoint import read_checkpoint
    from .model_card import read_summary, write_card

    check_out(out)
    if is_exported(run_dir):
        raise UserError(f"{run_dir} is an exported folder already: copy it, or name the run that it came from")
    shown = without_hidden(load_config(run_dir))
    run = run_folder(run_dir)
    state = read_checkpoint(run_dir)
    averaged = ema and any(name.startswith("ema.module.") for name in state["state_dict"])
    told = {"base": "ema" if averaged else "raw", "base_updates": str(state["gebm_lightning"]["base_updates"])}
    gebm = load(run_dir, ema, trust)
    summary, notes = read_summary(run)
    with _published(Path(out)) as folder:
        OmegaConf.save(shown, folder / CONFIG)
        told["config_sha256"] = _digest(folder / CONFIG)
        write_weights(gebm, folder / WEIGHTS, told)
        missing = write_program(gebm, folder / PROGRAM) if program else "it was not asked for"
        if missing is not None and program:
            notes.append(f"{PROGRAM} is left out: {missing}")
        write_card(folder / CARD, gebm, shown, told, summary, missing, trust)
    return Exported(Path(out), notes)


def run_folder(run_dir: str | Path) -> Path:
    """The run's folder, of itself or of a checkpoint file in it."""
    folder = Path(run_dir)
    return folder.parent.parent if folder.suffix == ".ckpt" else folder


def check_out(out: str | Path) -> None:
    """Raise a UserError if there is something at `out` already."""
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"out={out} is a folder that is not empty: name a new one")
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise UserError(f"out={out} is there already and is no folder: name a new one")


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """A new folder to write in, which gets the name `out` in the end."""
    out = out.resolve()
    above = next(parent for parent in out.parents if parent.exists())
    try:
        with tempfile.TemporaryDirectory(dir=above, prefix=".export-") as scratch:
            # One folder further in, since the outer one is for nobody else to read.
            folder = Path(scratch) / "export"
            folder.mkdir()
            yield folder
            out.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"out={out} cannot be written: {reason}; name another folder") from error


def write_weights(gebm: GEBM, path: Path, told: dict[str, str]) -> None:
    """Parameters and buffers of base, energy, prior and log Z as safetensors, with `told` and their hash as its metadata."""
    from ._version import __version__
    from .metrics.report import digest

    # Clones, because safetensors refuses tensors that share memory.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in gebm.state_dict().items()}
    own = {"format": "pt", "gebm_lightning": __version__, "format_version": FORMAT_VERSION, "sha256": digest(gebm)}
    safetensors.torch.save_file(tensors, path, metadata={**told, **own})
    # safetensors makes files that only their owner reads.
    path.chmod(0o666 & ~_umask(path.parent))


def _umask(folder: Path) -> int:
    # A folder that was just made shows it; asking the system would change it for other threads.
    return 0o777 & ~folder.stat().st_mode


def is_exported(folder: str | Path) -> bool:
    """Whether this is a folder that `export_run` has written, not a run's."""
    return (Path(folder) / WEIGHTS).is_file()


def load_exported(folder: str | Path, ema: bool = True, trust: tuple[str, ...] = ()) -> GEBM:
    """The model of an exported folder, in eval mode on the CPU, bit for bit what was exported; no code of the folder is run.

    Raises:
        UserError: the folder is damaged, of another program or format, or has not the raw base that `ema=False` asks for.
    """
    from .metrics.report import digest

    path = Path(folder) / WEIGHTS
    tensors, told = read_weights(path)
    if told.get("base") == "ema" and not ema:
        raise UserError(f"{folder} has the averaged base only: export the run with ema=false to have the raw one")
    gebm = build_parts(load_config(folder), trusted=False, trust=trust)[0]
    own = gebm.state_dict()
    wrong = sorted(name for name in own.keys() | tensors.keys() if _kind(own, name) != _kind(tensors, name))
    if wrong:
        raise UserError(
            f"{path} is of another model than {CONFIG}: {len(wrong)} tensors differ, the first is {wrong[0]}"
        )
    gebm.load_state_dict(tensors)
    if digest(gebm) != told.get("sha256"):
        raise UserError(f"{path} is damaged: its tensors are not those that were written; get the folder anew")
    if _digest(Path(folder) / CONFIG) != told["config_sha256"]:
        raise UserError(f"{folder}/{CONFIG} is not the one that was exported: get the folder anew")
    return gebm.eval()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _kind(tensors: dict[str, Tensor], name: str) -> tuple[Any, Any] | None:
    return (tensors[name].shape, tensors[name].dtype) if name in tensors else None


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by their names, and the metadata, of a `model.safetensors` that this package has written.

    Raises:
        UserError: it is damaged, or of another program or format.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except Exception as error:
        raise UserError(f"{path} is damaged or no safetensors file: {first_line(error)}") from error
    if "gebm_lightning" not in told:
        raise UserError(f"{path} is of another program: its metadata have no gebm_lightning entry")
    if told.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {told.get('format_version')}, this program reads version {FORMAT_VERSION}: "
            f"it was written by gebm_lightning {told['gebm_lightning']}"
        )
    if not {"base", "base_updates", "sha256", "config_sha256"} <= told.keys() or not BASE_UPDATES.fullmatch(
        told["base_updates"]
    ):
        raise UserError(f"{path} is damaged: its metadata do not say what base it holds; get the folder anew")
    return tensors, told


def example(gebm: GEBM, n: int) -> tuple[Tensor, ...]:
    """What the base takes: latents (n, d), and labels (n,) where there are classes."""
    z = gebm.prior.sample(n, BlockNoise(0, stream="export"))
    return (z,) if gebm.num_classes is None else (z, torch.arange(n) % gebm.num_classes)


def write_program(gebm: GEBM, path: Path) -> str | None:
    """The base as a program of `torch.export` for any number of samples, run once to see that it makes the same ones.

    Returns:
        None, or a sentence that says why there is no such file: tracing has limits, and any network may be a base.
    """
    from .samplers import sampling_mode

    name = type(gebm.base).__name__
    inputs = example(gebm, 3)
    batch = torch.export.Dim("batch", min=1)
    try:
        with sampling_mode(gebm, cached=False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(gebm.base, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
            for module in program.graph_module.modules():
                for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
                    # Paths of files on this machine are nobody else's business.
                    node.meta.pop("stack_trace", None)
            torch.export.save(program, path)
            run = torch.export.load(path).module()
            same = all(torch.allclose(run(*given), call_base(gebm.base, *given)) for given in _examples(gebm))
    except Exception as error:
        same, reason = False, f"torch.export cannot take this base, {name} ({first_line(error)[:200]})"
    else:
        reason = f"the program of this base, {name}, does not make the samples that the base makes"
    if not same:
        path.unlink(missing_ok=True)
        return reason
    return None


def _examples(gebm: GEBM) -> Iterator[tuple[Tensor, ...]]:
    return (example(gebm, n) for n in (1, 2, 5))
