"""`evaluate.py`: the run's own scores again, and others."""

import json

import pytest

from gebm_lightning.cli import evaluate


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
