"""What a run that was asked to end says to its scheduler."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

from .launch import process_rank


def requeue(reason: int) -> None:
    """Have SLURM run this job again after SIGUSR1, SIGUSR2 or the time limit; outside of SLURM, nothing.

    Where another handler was installed before training, as submitit's is, it gets the signal instead: it knows how.
    """
    from ..callbacks.checkpoint import TIME_LIMIT

    if reason == signal.SIGTERM or process_rank() != 0:
        return
    number = signal.SIGUSR2 if reason == TIME_LIMIT else reason
    if callable(signal.getsignal(number)):
        signal.raise_signal(number)
    elif "SLURM_JOB_ID" in os.environ and shutil.which("scontrol"):
        job = os.environ["SLURM_JOB_ID"]
        result = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        told = "is requeued" if result.returncode == 0 else f"could not be requeued: {result.stderr.strip()}"
        print(f"SLURM job {job} {told}", file=sys.stderr)
