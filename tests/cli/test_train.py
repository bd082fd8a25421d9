"""`train.py`: what a run leaves behind."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from gebm_lightning import load
from gebm_lightning.cli import evaluate, sample, train
from gebm_lightning.lightning.checkpoint import read_checkpoint
from gebm_lightning.noise import BlockNoise


def test_a_run_folder_is_complete(run, tmp_path):
    assert run.parent == tmp_path / "runs"
    assert {p.name for p in run.iterdir()} == {
        "config.yaml",
        "checkpoints",
        "images",
        "metrics.csv",
        "summary.json",
        "finished.json",
    }
    assert {p.name for p in (run / "images").iterdir()} == {"grid.png", "strip.png", "relative_fid.png"}
    config = OmegaConf.load(run / "config.yaml")
    assert config.trainer.max_base_updates == 4 and "${" not in (run / "config.yaml").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert [row["method"] for row in summary["rows"]] == ["base", "short run", "equilibrium"]
    for row in summary["rows"]:
        assert row["scores"].keys() == {"train", "test"}
        assert row["scores"]["test"].keys() == {
            "fid_digits",
            "kid",
            "kid_std",
            "precision",
            "recall",
            "density",
            "coverage",
            "relative_fid",
        }
    assert summary["protocol"]["extractor"] == "digits" and summary["protocol"]["base"] == "ema"
    assert (
        summary["protocol"]["splits"]["test"]["num_real"] == 400
        and summary["protocol"]["splits"]["test"]["num_generated"] == 64
    )
    assert summary["base_updates"] == 4 and summary["versions"]["torch"] == torch.__version__
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {
        "train/kale",
        "train/donsker_varadhan",
        "train/c",
        "train/c_hat",
        "val/eval_kale",
        "val/eval_log_z",
    } <= rows[0].keys()
    assert [row["step"] for row in rows if row["train/kale"]] == ["2", "4"]


def test_two_runs_have_two_folders(command, smoke, run, tmp_path):
    command(train, *smoke)
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_run_goes_where_it_is_told(command, smoke, tmp_path):
    status, out, err = command(train, *smoke, "run_dir=here/it is", "callbacks.evaluation=null")
    assert status == 0, err
    assert Path(out.strip().splitlines()[-1]) == tmp_path / "here" / "it is"
    assert (tmp_path / "here" / "it is" / "checkpoints" / "last.ckpt").is_file() and not (tmp_path / "runs").exists()


def test_the_same_seed_gives_the_same_run(command, smoke, run):
    _, out, _ = command(train, *smoke)
    a, b = (json.loads((Path(f) / "summary.json").read_text())["rows"] for f in (run, out.strip().splitlines()[-1]))
    assert [row["scores"] for row in a] == [row["scores"] for row in b]


def test_load_gives_the_trained_model(run):
    state = read_checkpoint(run)["state_dict"]
    averaged, raw = load(run), load(run, ema=False)
    assert not averaged.training
    for name, value in raw.base.state_dict().items():
        assert torch.equal(value, state[f"gebm.base.{name}"])
        assert torch.equal(averaged.base.state_dict()[name], state[f"ema.module.{name}"])
    assert raw.log_partition.item() == state["gebm.log_partition"].item()
    with torch.no_grad():
        energy = averaged.energy(averaged.sample_base(4096, BlockNoise(9)))
    assert averaged.log_partition.item() == pytest.approx(torch.logsumexp(-energy, 0).item() - np.log(4096), abs=0.02)


def test_toys_run_and_are_scored(command, smoke):
    for objective in ("kale", "donsker_varadhan"):
        status, out, err = command(
            train,
            *smoke,
            "data=gaussian_grid",
            f"objective={objective}",
            "energy_schedule=paper",
            "energy_schedule.many=3",
        )
        assert status == 0, err
        row = json.loads((Path(out.strip().splitlines()[-1]) / "summary.json").read_text())["rows"][0]
        assert "fid_identity" in row["scores"]["train"]
    assert command(sample, f"ckpt={out.strip().splitlines()[-1]}", "num_samples=5")[0] == 0


@pytest.mark.parametrize("choice", ["base", "sir", "ula", "kla"])
def test_any_sampler_can_accompany_training(command, smoke, choice):
    given = [s for s in smoke if not s.startswith("sampler.")]
    status, out, err = command(train, *given, f"sampler={choice}", *(["sampler.pool=100"] if choice == "sir" else []))
    assert status == 0, err
    images = {p.name for p in (Path(out.strip().splitlines()[-1]) / "images").iterdir()}
    assert ("strip.png" in images) == (choice in ("ula", "kla")) and "grid.png" in images


def test_an_energy_is_tuned_on_the_frozen_base_of_a_run(command, smoke, run):
    status, out, err = command(train, *smoke, f"init={run}", "train_mode=energy", "callbacks.ema=null", "seed=5")
    assert status == 0, err
    before, after = load(run), load(out.strip().splitlines()[-1])
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.base.state_dict().values(), after.base.state_dict().values(), strict=True)
    )
    assert not all(
        torch.equal(a, b) for a, b in zip(before.energy.parameters(), after.energy.parameters(), strict=True)
    )


def test_a_folder_holds_one_run(command, smoke, run):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    status, _, err = command(train, *smoke, f"hydra.run.dir={run}")
    assert status == 1 and "holds a run already" in err
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}


def test_a_conditional_run(command, smoke, tmp_path):
    status, out, err = command(
        train,
        *[s for s in smoke if not s.startswith("callbacks.evaluation.num")],
        "callbacks.evaluation.num_samples=128",
        "model.num_classes=10",
        "callbacks.evaluation.every_n_base_updates=2",
        "callbacks.evaluation.per_class=true",
    )
    assert status == 0, err
    run = Path(out.strip().splitlines()[-1])
    rows = json.loads((run / "summary.json").read_text())["rows"]
    assert all(0 <= row["class_accuracy"] <= 1 for row in rows)
    for row in rows:
        for scores in row["classes"].values():
            assert set(scores) == {str(k) for k in range(10)}
            assert sum(one["num_generated"] for one in scores.values()) == 128
    for choice in (["sampler=base"], ["sampler=ula"], ["sampler=sir", "sampler.pool=200"]):
        assert command(sample, f"ckpt={run}", "num_samples=70", "labels=[3,5]", "out=s.npz", *choice)[0] == 0
        arrays = np.load(tmp_path / "s.npz")
        assert arrays["y"][:4].tolist() == [3, 5, 3, 5] and arrays["x"].shape == (70, 8, 8, 1)
    assert command(evaluate, f"ckpt={run}", "num_samples=64", "methods.sir.pool=200")[0] == 0
    status, _, err = command(sample, f"ckpt={run}", "labels=[10]")
    assert status == 1 and "classes are 0 to 9" in err


def test_a_sweep_has_a_stable_folder_for_each_job(command, smoke, tmp_path):
    status, _, err = command(
        train, "-m", *smoke, "objective=kale,donsker_varadhan", "name=two", "callbacks.evaluation=null"
    )
    assert status == 0, err
    jobs = sorted((tmp_path / "sweeps" / "two").glob("*/config.yaml"))
    assert len(jobs) == 2
    assert all(not set("=, ") & set(job.parent.name) for job in jobs)
    assert {OmegaConf.load(job).objective._target_.rsplit(".")[-1] for job in jobs} == {"KALE", "DonskerVaradhan"}
