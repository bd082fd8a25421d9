"""One process for each device of this machine, from a composed config; and what becomes of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError

GRACE_SECONDS = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def launched() -> bool:
    """Whether this is one of several processes already: ours, torchrun's, or SLURM's."""
    if "RANK" in os.environ:
        return True
    if os.environ.get("SLURM_NTASKS", "1") == "1":
        # Lightning's import takes seconds, for which `--help` need not wait.
        return False
    from lightning_fabric.plugins.environments import SLURMEnvironment

    return bool(SLURMEnvironment.detect())


def process_rank() -> int:
    """This process's number among those of one run, before they have met."""
    if not launched():
        return 0
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def launch(work: Callable[..., Any], processes: int, *args: Any) -> Any:
    """`work(*args)` in new processes, one for each local rank; rank 0's result, which must be plain data.

    Signals to this process reach all of them. If one ends badly, the others are ended too; if a signal ended them before
    they could answer it, the result is `{"interrupted": its number}`.

    Raises:
        UserError: a user's mistake in `work`, or a process that was killed, with its rank.
        ProcessRaisedException: any other error in `work`, with its traceback.
    """
    import torch.multiprocessing as mp
    from torch.distributed import TCPStore

    # Held here, the port cannot be taken by another run between its choice and its use.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory(prefix="gebm-") as folder:
        context = mp.start_processes(
            _process, (work, args, processes, store.port, folder), processes, join=False, start_method="spawn"
        )

        received: list[int] = []

        def forward(number: int, frame: Any) -> None:
            received.append(number)
            for process in context.processes:
                if process.is_alive():
                    os.kill(process.pid, number)

        before = {number: signal.signal(number, forward) for number in SIGNALS}
        try:
            while not context.join(grace_period=GRACE_SECONDS):
                pass
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            result = Path(folder) / "0.result"
            if result.is_file() and json.loads(result.read_text()).get("interrupted"):
                # The first one left in good order; the others were in the middle of something with it.
                return json.loads(result.read_text())
            if received and isinstance(error, mp.ProcessExitedException) and not list(Path(folder).glob("*.error")):
                return {"interrupted": received[0]}
            raise _reason(context.processes, Path(folder)) or error from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for process in context.processes:
                if process.is_alive():
                    process.kill()
        return json.loads((Path(folder) / "0.result").read_text())


def _process(local_rank: int, work: Callable[..., Any], args: Any, processes: int, port: int, folder: str) -> None:
    # Its own session: Ctrl-C comes from the parent, once.
    os.setsid()
    os.environ |= {
        "RANK": str(local_rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "gebm",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    if local_rank != 0:
        sys.stdout = open(os.devnull, "w")
    from .command import expected_error

    try:
        result = work(*args)
    except Exception as error:
        sentence = expected_error(error)
        if sentence is not None:
            (Path(folder) / f"{local_rank}.error").write_text(sentence)
        raise
    if local_rank == 0:
        temporary = Path(folder) / "result.tmp"
        temporary.write_text(json.dumps(result))
        temporary.replace(Path(folder) / "0.result")


def _reason(processes: Any, folder: Path) -> UserError | None:
    told = sorted(folder.glob("*.error"), key=lambda path: path.stat().st_mtime_ns)
    if told:
        return UserError(told[0].read_text())
    # Those that this process ended come last: they are not the cause.
    killed = [
        (p.exitcode == -signal.SIGTERM, rank, p.exitcode) for rank, p in enumerate(processes) if (p.exitcode or 0) < 0
    ]
    if not killed:
        return None
    _, rank, code = min(killed)
    return UserError(
        f"the process of rank {rank} was ended by {signal.Signals(-code).name}, so all {len(processes)} were; the last "
        "checkpoint is whole: go on with resume=RUN"
    )
