"""Sweeps: what is done is not done again, what is broken is, every launcher gives the same, and the results are right."""

import csv
import json
import math
import shutil
import signal
from statistics import fmean, stdev

import pytest
import yaml
from omegaconf import OmegaConf

from gebm_lightning.callbacks.checkpoint import TIME_LIMIT
from gebm_lightning.cli import train
from gebm_lightning.cli.requeue import requeue
from gebm_lightning.cli.sweep_report import over_seeds

SMALL = ["callbacks.evaluation.splits=[test]", "callbacks.evaluation.curve_steps=[]", "callbacks.sampling=null"]


def read(folder):
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def times(folder):
    return {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("*/finished.json") if "broken" not in str(p)}


def test_a_sweep_is_done_once_and_what_is_broken_again(command, smoke, tmp_path):
    arguments = ["-m", *smoke, *SMALL, "objective=kale,donsker_varadhan", "seed=0,1", "name=four"]
    assert command(train, *arguments)[0] == 0
    folder = tmp_path / "sweeps" / "four"
    rows, before = read(folder), times(folder)
    assert len(rows) == len(before) == 4 and {row["state"] for row in rows} == {"finished"}
    assert {(row["objective._target_"].rsplit(".", 1)[1], row["seed"]) for row in rows} == {
        (o, s) for o in ("KALE", "DonskerVaradhan") for s in "01"
    }
    for row in rows:
        summary = json.loads((folder / row["job"] / "summary.json").read_text())
        assert float(row["test/relative_fid/equilibrium"]) == summary["rows"][2]["scores"]["test"]["relative_fid"]
        assert float(row["val/kale"]) == summary["bounds"]["val"]["kale"]
    table = (folder / "sweep.md").read_text()
    jobs, seeds = (part.strip().splitlines() for part in table.split("Mean ± standard deviation over seeds:"))
    assert len(jobs) == 6 and "test/relative_fid/short_run" in jobs[0] and (folder / "sweep.png").is_file()
    values = [float(r["test/fid/base"]) for r in rows if r["objective._target_"].endswith(".KALE")]
    (line,) = [line for line in seeds if "| KALE | 2 |" in line]
    assert len(seeds) == 4 and f"| {fmean(values):.3f} ± {stdev(values):.3f} |" in line
    assert command(train, *arguments, "debug=true")[0] == 0 and times(folder) == before
    # One was never finished, one lost its checkpoint, one its config.
    unfinished, damaged, bare = sorted(before)[:3]
    (folder / unfinished / "finished.json").unlink()
    (folder / damaged / "checkpoints" / "last.ckpt").write_bytes(b"")
    shutil.rmtree(folder / damaged / "checkpoints")
    (folder / bare / "config.yaml").unlink()
    steps = (folder / unfinished / "checkpoints" / "last.ckpt").stat().st_size
    status, out, err = command(train, *arguments)
    assert status == 0 and err.count("is broken") == 2, err
    after = times(folder)
    assert {job for job in after if after[job] != before[job]} == {unfinished, damaged, bare} and steps
    assert {p.name for p in folder.glob("*.broken-*")} == {f"{damaged}.broken-1", f"{bare}.broken-1"}
    assert read(folder) == rows and str(folder) in out


def test_means_over_seeds():
    values = [(1, 2.0), (1, 4.0), (2, math.inf), (2, 1.0)]
    rows = [{"job": str(i), "lr": lr, "seed": i, "test/nll": nll} for i, (lr, nll) in enumerate(values)]
    first, second = over_seeds([*rows, {"job": "unscored", "lr": 1, "seed": 9}], ["job", "lr", "seed", "test/nll"])
    assert first == {"lr": 1, "seeds": 2, "test/nll": "3.000 ± 1.414"}
    assert second == {"lr": 2, "seeds": 2, "test/nll": "inf"}
    assert over_seeds(rows, ["job", "lr", "test/nll"]) == []


def test_a_changed_config_is_not_taken_for_the_old_one(command, smoke, tmp_path):
    arguments = ["-m", *smoke, *SMALL, "seed=0", "name=one"]
    assert command(train, *arguments)[0] == 0
    (config,) = (tmp_path / "sweeps" / "one").glob("*/config.yaml")
    cfg = OmegaConf.load(config)
    cfg.model.base.width = 8
    OmegaConf.save(cfg, config)
    status, _, err = command(train, *arguments)
    assert status == 1 and "another config" in err, err


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_give_what_serial_gives(command, smoke, tmp_path, launcher):
    arguments = ["-m", *smoke, *SMALL, "objective=kale,donsker_varadhan"]
    assert command(train, *arguments, "name=serial")[0] == 0
    status, _, err = command(train, *arguments, "name=other", f"launcher={launcher}")
    assert status == 0, err
    assert read(tmp_path / "sweeps" / "serial") == read(tmp_path / "sweeps" / "other")


def test_optuna_searches_for_the_lowest_objective(command, smoke, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ["sweeper=optuna", "hydra.sweeper.n_trials=3", "sampler.kernel.step_size=interval(1e-3,1e-1)"]
    status, _, err = command(
        train, "-m", *smoke, *SMALL, *search, "name=search", "sweep_objective=short_run/test/relative_fid"
    )
    assert status == 0, err
    folder = tmp_path / "sweeps" / "search"
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    rows = read(folder)
    values = {float(row["sampler.kernel.step_size"]): float(row["test/relative_fid/short_run"]) for row in rows}
    assert found["best_value"] == min(values.values()) and len(rows) == 3
    assert found["best_params"]["sampler.kernel.step_size"] == min(values, key=values.get)


def test_an_objective_that_was_not_scored(command, smoke):
    arguments = ["-m", *smoke, *SMALL, "seed=0", "name=no", "sweep_objective=equilibrium/train/relative_fid"]
    status, _, err = command(train, *arguments)
    assert status == 1 and "sweep_objective" in err, err


@pytest.mark.parametrize(("launcher", "tasks", "nodes"), [("slurm", 1, 1), ("slurm_nodes", 8, 2)])
def test_the_script_that_slurm_gets(tmp_path, monkeypatch, launcher, tasks, nodes):
    submitit = pytest.importorskip("submitit")
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_module("gebm_lightning.conf", version_base="1.3"):
        cfg = hydra.compose(
            "train",
            [f"launcher={launcher}", "trainer.devices=8", f"trainer.num_nodes={nodes}"],
            return_hydra_config=True,
        )
        node = cfg.hydra.launcher
        wanted = ("nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "timeout_min", "signal_delay_s")
        settings = {key: node[key] for key in wanted}
        assert node._target_.endswith("SlurmLauncher") and node.max_num_timeout == 20
    settings["slurm_signal_delay_s"] = settings.pop("signal_delay_s")
    executor = submitit.AutoExecutor(tmp_path, cluster="slurm")
    executor.update_parameters(**settings)
    script = executor._executor._make_submission_file_text("command", "1")
    for line in (
        f"--nodes={nodes}",
        f"--ntasks-per-node={tasks}",
        "--gpus-per-node=8",
        "--cpus-per-task=8",
        "--time=1440",
        "--signal=USR2@300",
    ):
        assert f"#SBATCH {line}\n" in script, script


def test_requeueing(tmp_path, monkeypatch, capsys):
    calls = tmp_path / "calls"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    requeue(signal.SIGUSR1)
    assert not calls.exists(), "there is no SLURM here"
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    requeue(signal.SIGTERM)
    assert not calls.exists(), "a cancelled job stays cancelled"
    for reason in (signal.SIGUSR1, signal.SIGUSR2, TIME_LIMIT):
        requeue(reason)
    assert calls.read_text().split("\n") == ["requeue 17"] * 3 + [""] and "is requeued" in capsys.readouterr().err
    seen = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
    try:
        requeue(signal.SIGUSR2)
        requeue(TIME_LIMIT)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [signal.SIGUSR2] * 2 and calls.read_text().count("17") == 3
