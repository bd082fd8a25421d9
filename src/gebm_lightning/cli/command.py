"""What all commands share: Hydra's entry, and the one place where expected errors become one sentence."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, first_line
from .schema import register

Arguments = list[str]


def run_command(
    config_name: str, task: Callable[[DictConfig], Any], prepare: Callable[[Arguments], Arguments] | None = None
) -> None:
    """Compose `config_name` with the command line and run the task, all of Hydra's flags included.

    A user's mistake ends in one sentence on stderr and status 1, or in the traceback if `debug=true`. `prepare` may check
    and complete the arguments before Hydra sees them.
    """
    arguments = sys.argv[1:]
    failures: list[Exception] = []
    sweep = bool({"-m", "--multirun"} & set(arguments))

    def job(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except Exception as error:
            if sweep:
                raise
            # Raised through Hydra it would be announced by a line of Hydra's own.
            failures.append(error)

    # Hydra would print errors in its own way and exit; here they come to this function.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register()
    try:
        _refuse_lists(arguments)
        if prepare is not None:
            sys.argv = [sys.argv[0], *prepare(arguments)]
        hydra.main(version_base="1.3", config_path="pkg://gebm_lightning.conf", config_name=config_name)(job)()
        if failures:
            raise failures[0]
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sentence = expected_error(error)
        if sentence is None or "debug=true" in (a.lower() for a in arguments):
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(1)


GROUPS = "sampler|model|data|objective|features|particles"


def _refuse_lists(arguments: list[str]) -> None:
    if "-m" in arguments or "--multirun" in arguments:
        return
    for argument in arguments:
        if re.match(rf"^({GROUPS})=\[", argument):
            group = argument.split("=")[0]
            raise UserError(
                f"{argument}: one {group} at a time, a list would merge their configs; for a sweep take -m {group}=a,b"
            )
        if (
            re.match(r"^[\w./]+=[^'\"\[{]*,", argument)
            and OverridesParser.create().parse_override(argument).is_sweep_override()
        ):
            key = argument.split("=")[0]
            hint = "" if re.fullmatch(GROUPS, key) else f"; a list is written '{key}=[a,b]'"
            raise UserError(f"{argument}: several values make a sweep, which needs -m{hint}")


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def expected_error(error: BaseException) -> str | None:
    """The one sentence for an expected error; None for a defect of ours, whose traceback is wanted."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    for link in chain:
        if isinstance(link, UserError):
            return _one_line(link)
        if isinstance(link, UnicodeEncodeError) and link.reason == "surrogates not allowed":
            return "the name of a file or folder is not in UTF-8: rename it"
        if isinstance(link, OSError) and link.errno in NO_ROOM:
            return f"{link.strerror}: {link.filename or 'a file of the run'} cannot be written; what was whole before still is"
        if _lost_a_loader(link):
            # Which signal it was, the error may say that this one came from.
            told = " ".join(map(str, chain))
            reason = re.search(r"killed by signal: (\w+)", told) or re.search(r"exited unexpectedly()", told)
            # Of signals of LMDB's C code, or if torch missed which it was: it has no other way to say that a page leads nowhere.
            damage = " or over a damaged LMDB" if reason and reason[1] in ("", "Aborted", "Bus", "Segmentation") else ""
            return (
                f"a process that loads data ended ({reason[0] if reason else first_line(link)}), perhaps for want of memory{damage}: "
                "lower data.num_workers, and go on with resume=RUN if there was a checkpoint"
            )
        if type(link).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return (
                f"torch.compile cannot compile these networks here: {first_line(link)}; leave trainer.compile and "
                "sampler.compile at false"
            )
    if isinstance(error, InstantiationException):
        return _one_line(error)
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _one_line(error)
    if type(error).__name__ == "MisconfigurationException":
        return _one_line(error)
    if isinstance(error, ValueError) and "Config group override must be" in str(error):
        return "a group of configs, such as data or model, cannot be null: name one of them (--help lists the groups)"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    return None


def _lost_a_loader(error: BaseException) -> bool:
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    # A batch that was announced is fetched over a socket of the process that made it, which may be gone by then. What the
    # data itself raised comes by another way (`_process_data`).
    return isinstance(error, (ConnectionError, EOFError, FileNotFoundError)) and any(
        frame.name == "_try_get_data" for frame in traceback.extract_tb(error.__traceback__)
    )


def _one_line(error: BaseException) -> str:
    text = str(error).split("\nConfig search path")[0].split("\nfull_key:")[0]
    # What a loader's worker raised comes with the traceback of that process.
    text = text.rsplit("gebm_lightning.errors.UserError: ", 1)[-1]
    # What is printed ends in logs that others read: an address is shown without who asks and the password.
    return re.sub(r"(\w://)[^\s/@]+@", r"\1***@", " ".join(text.split()))


def pick_device(name: str) -> Any:
    """The torch device of `device=auto|cpu|cuda|cuda:1|…`.

    Raises:
        UserError: there is no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise UserError(f"device={name}: the device is one of auto, cpu, cuda, cuda:1 …, mps")
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name} cannot be used on this machine: {first_line(error)}") from error
    return device
