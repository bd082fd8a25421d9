"""`evaluate.py`: the run's own scores again, and others."""

import json

import numpy as np
import pytest

from gebm_lightning.cli import evaluate, train


def test_evaluating_again_gives_the_runs_own_scores(command, run):
    status, _, err = command(evaluate, f"ckpt={run}", "num_samples=64", "methods.sir.pool=128")
    assert status == 0, err
    again = json.loads((run / "evaluation.json").read_text())
    rows = json.loads((run / "summary.json").read_text())["rows"]
    assert [row["method"] for row in again["rows"]] == ["base", "run", "sir"]
    for a, b in zip(again["rows"], rows, strict=True):
        for split in ("train", "test"):
            assert a["scores"][split] == pytest.approx(b["scores"][split], rel=1e-5)
    status, _, _ = command(
        evaluate,
        f"ckpt={run}",
        "compare=[base,ula,kla]",
        "num_samples=64",
        "methods.ula.num_steps=1",
        "methods.kla.num_steps=1",
    )
    assert status == 0


def test_the_extractor_and_the_place_of_the_data_may_change(command, smoke, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8))
    data = ["data=npz", f"data.path={tmp_path / 'a.npz'}", "data.size=8", "data.channels=1", "features=identity"]
    status, out, err = command(train, *smoke, *data, "callbacks.evaluation=null")
    assert status == 0, err
    run = out.strip().splitlines()[-1]
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    small = [f"ckpt={run}", "compare=[base]", "num_samples=64", "out=e.json"]
    status, _, err = command(evaluate, *small)
    assert status == 1 and "a.npz" in err
    status, _, err = command(evaluate, *small, f"+data.path={tmp_path / 'b.npz'}", "features=digits")
    assert status == 0, err
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["protocol"]["extractor"] == "digits" and found["protocol"]["source"]["path"].endswith("b.npz")
    assert found["base_updates"] == 4 and found["checkpoint"].endswith("last.ckpt")
    for stray, words in (("+data.no=1", "data.no"), ("+nothing=1", "no such key")):
        status, _, err = command(evaluate, *small, stray)
        assert status == 1 and words in err and "Traceback" not in err, err
