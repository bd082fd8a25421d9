"""Runs that are killed, asked to end, or lose a process: nothing is lost, nobody is left behind."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gebm_lightning.lightning.checkpoint import read_checkpoint

SETTINGS = [
    "trainer.accelerator=cpu",
    "model.width=4",
    "callbacks.evaluation=null",
    "callbacks.sampling=null",
    "callbacks.monitor.bounds_every=10",
    "callbacks.ema.decay=0.9",
]

ENDLESS = [
    "trainer.devices=2",
    "callbacks.checkpoint.every_n_base_updates=3",
    "trainer.max_base_updates=100000",
    "run_dir=run",
]
TORCHRUN = "-m torch.distributed.run --nproc-per-node=2 --rdzv-backend=c10d --rdzv-endpoint=localhost:0 --rdzv-id=seven"


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "gebm_lightning.cli.train", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(pid):
    """All processes below one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            child = int(stat.parent.name)
            found += [child, *children(child)]
    return found


def alive(pids):
    return [p for p in pids if Path(f"/proc/{p}").exists() and " Z " not in Path(f"/proc/{p}/stat").read_text()]


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def gone(pids, seconds=20):
    """Those who lost their parent end after the update they are at."""
    deadline = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pids), "processes were left behind"


def saved(run):
    path = run / "checkpoints" / "last.ckpt"
    return path.stat().st_mtime_ns if path.is_file() else 0


def same(a, b):
    a, b = read_checkpoint(a), read_checkpoint(b)
    assert a["state_dict"].keys() == b["state_dict"].keys()
    different = [k for k, v in a["state_dict"].items() if not torch.equal(v, b["state_dict"][k])]
    optimisers = [
        torch.equal(x, y)
        for o, p in zip(a["optimizer_states"], b["optimizer_states"], strict=True)
        for s, t in zip(o["state"].values(), p["state"].values(), strict=True)
        for x, y in zip(s.values(), t.values(), strict=True)
    ]
    return not different and all(optimisers) and a["gebm_lightning"]["steps"] == b["gebm_lightning"]["steps"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "workers", "kind", "times"),
    [
        (1, 4, signal.SIGKILL, 3),
        (1, 0, signal.SIGKILL, 9),
        (2, 0, signal.SIGKILL, 8),
        (1, 0, signal.SIGTERM, 7),
        (2, 1, signal.SIGTERM, 3),
    ],
)
def test_a_run_broken_again_and_again_is_the_unbroken_one(tmp_path, devices, workers, kind, times):
    """Killed at random moments, the writing of checkpoints included (one every third update), and resumed each time."""
    settings = [
        *SETTINGS,
        f"trainer.devices={devices}",
        f"data.batch_size={16 // devices}",
        f"data.num_workers={workers}",
        "trainer.max_base_updates=300",
        "callbacks.checkpoint.every_n_base_updates=3",
    ]
    whole = start(tmp_path, *settings, "run_dir=whole")
    assert whole.wait(timeout=300) == 0, whole.communicate()[1]
    rng, run, statuses, done = random.Random(devices), tmp_path / "cut", [], [0]
    for attempt in range(times + 1):
        process = start(tmp_path, *([*settings, "run_dir=cut"] if attempt == 0 else ["resume=cut"]))
        before = saved(run)
        if attempt < times:
            wait_for(lambda before=before: saved(run) != before, process)
            time.sleep(0.3 * rng.random())
            below = children(process.pid)
            process.send_signal(kind)
        _, err = process.communicate(timeout=300)
        if attempt < times:
            gone(below)
        statuses.append(process.returncode)
        done.append(read_checkpoint(run)["gebm_lightning"]["base_updates"])
        if process.returncode == 0:
            break
        assert process.returncode == (-9 if kind == signal.SIGKILL else 128 + kind), err
    assert statuses[-1] == 0 and len(statuses) > 2 and done == sorted(done)
    assert same(tmp_path / "whole", run)
    assert (run / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


def test_one_process_is_killed(tmp_path):
    process = start(tmp_path, *SETTINGS, *ENDLESS)
    wait_for(lambda: saved(tmp_path / "run") > 0, process)
    below = children(process.pid)
    ranks = {}
    for pid in below:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"spawn_main" in command and environment:
            ranks[pid] = command
    victim = sorted(ranks)[-1]
    os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "of rank 1 was ended by SIGKILL" in err and "Traceback" not in err, err
    gone(below)
    assert read_checkpoint(tmp_path / "run")["gebm_lightning"]["base_updates"] > 0


@pytest.mark.slow
def test_ctrl_c_reaches_every_process_once(tmp_path):
    process = start(tmp_path, *SETTINGS, *ENDLESS)
    wait_for(lambda: saved(tmp_path / "run") > 0, process)
    below = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and err.endswith("run\n") and err.count("\n") == 1, err
    gone(below)
    assert not (tmp_path / "run" / "finished.json").exists()


@pytest.mark.slow
def test_torchrun_starts_one_run(tmp_path):
    arguments = [*SETTINGS, "trainer.devices=2", "trainer.max_base_updates=4", "data.batch_size=8"]
    result = subprocess.run(
        [sys.executable, *TORCHRUN.split(), "-m", "gebm_lightning.cli.train", *arguments],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["seven"] and result.stdout.count("runs/seven") == 1
    one = start(tmp_path, *SETTINGS, "trainer.max_base_updates=4", "data.batch_size=16", "run_dir=one")
    assert one.wait(timeout=120) == 0
    a, b = (read_checkpoint(tmp_path / p)["state_dict"] for p in ("one", "runs/seven"))
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4)


def test_a_mistake_in_many_processes_is_told_once(tmp_path):
    process = start(tmp_path, *SETTINGS, "trainer.devices=2", "callbacks.ema.decay=2", "run_dir=run")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and err.count("error:") == 1 and "decay" in err and "Traceback" not in err, err
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())
