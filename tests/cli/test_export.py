"""`export.py`: a folder all at once or not at all, and a hub only where one is asked for."""

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gebm_lightning import load
from gebm_lightning.cli import evaluate, export, sample
from gebm_lightning.cli.export import name_run

ROOT = Path(__file__).parents[2]
FILES = ["README.md", "base.pt2", "config.yaml", "model.safetensors"]


class Hub(types.ModuleType):
    """What of huggingface_hub is used; it keeps what it was asked."""

    def __init__(self, failure=None):
        super().__init__("huggingface_hub")
        self.calls, self.failure, self.HfApi = [], failure, lambda: self

    def create_repo(self, **asked):
        self.calls.append(asked)
        if self.failure is not None:
            raise self.failure

    def upload_folder(self, **asked):
        self.calls.append(asked | {"files": sorted(p.name for p in Path(asked["folder_path"]).iterdir())})
        return f"https://hub/{asked['repo_id']}"


def test_a_trained_run_is_exported_and_pushed(command, run, tmp_path, monkeypatch):
    hub = Hub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    status, out, err = command(export, str(run))
    assert (status, err) == (0, "") and out.splitlines() == [str(run / "export")]
    assert sorted(p.name for p in (run / "export").iterdir()) == FILES and not hub.calls
    assert (run / "export" / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    card = (run / "export" / "README.md").read_text()
    assert "| equilibrium | test |" in card and "64 against 400 of test" in card and "base=ema" in card
    expected, found = load(run).state_dict(), load(run / "export").state_dict()
    assert all(torch.equal(expected[k], found[k]) for k in expected)

    stripped = tmp_path / "stripped"
    shutil.copytree(run / "export", stripped)
    tensors = load_file(stripped / "model.safetensors")
    save_file(tensors, stripped / "model.safetensors", {"gebm_lightning": "0.1.0", "format_version": "1"})
    status, _, err = command(sample, f"ckpt={stripped}", "num_samples=5")
    assert status == 1 and len(err.splitlines()) == 1 and "its metadata do not say" in err

    # What is exported is sampled and scored as the run is.
    for ckpt in (run, run / "export"):
        status, out, err = command(sample, f"ckpt={ckpt}", "num_samples=5", f"out={ckpt.name}.npz")
        assert status == 0, err
        status, out, err = command(
            evaluate, f"ckpt={ckpt}", "compare=[base]", "num_samples=64", f"out={ckpt.name}.json"
        )
        assert status == 0, err
    one, two = (np.load(f"{ckpt.name}.npz") for ckpt in (run, run / "export"))
    assert (one["x"] == two["x"]).all()
    one, two = (json.loads(Path(f"{ckpt.name}.json").read_text()) for ckpt in (run, run / "export"))
    assert one["rows"][0]["scores"] == two["rows"][0]["scores"] and two["base_updates"] == one["base_updates"]

    status, out, err = command(export, f"ckpt={run}", "out=a/b", "ema=false", "program=false", "hub=some-one/my.model")
    assert status == 0 and out.splitlines() == ["https://hub/some-one/my.model", "a/b"] and err == ""
    assert hub.calls[0]["repo_id"] == "some-one/my.model" and hub.calls[1]["files"] == [
        f for f in FILES if f[-1] != "2"
    ]
    expected, found = load(run, ema=False).state_dict(), load(tmp_path / "a/b").state_dict()
    assert all(torch.equal(expected[k], found[k]) for k in expected)

    hub.failure = RuntimeError("401: who are you?\nand more")
    status, _, err = command(export, f"ckpt={run}", "out=c", "program=false", "hub=some-one/model")
    assert (
        status == 1 and len(err.splitlines()) == 1 and "c is written, but could not be pushed: 401: who are you?" in err
    )
    assert (tmp_path / "c" / "model.safetensors").is_file()


def test_mistakes_leave_nothing(command, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    (tmp_path / "damaged" / "checkpoints").mkdir(parents=True)
    (tmp_path / "damaged" / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    content = (run / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "damaged" / "checkpoints" / "last.ckpt").write_bytes(content[: len(content) // 2])
    before = sorted(tmp_path.rglob("*"))
    for arguments, words in [
        ([], "a run's folder is missing"),
        (["nowhere"], "there is no run folder nowhere"),
        ([str(tmp_path)], "no config.yaml"),
        (["half"], "has no checkpoint"),
        (["damaged"], "is damaged or no checkpoint"),
        ([str(run), "out=full"], "out=full is a folder that is not empty"),
        ([str(run), "out=full/mine"], "is no folder"),
        ([str(run), "out=full/mine/inner"], "cannot be written"),
        ([str(run), f"ckpt={run}"], "one run at a time"),
        ([str(run), "hub=model"], "user/name"),
        ([str(run), "hub=some-one/model"], "huggingface_hub: pip install -e '.[hub]'"),
        ([str(run), "program=perhaps"], "program"),
        ([str(run), "sampler=ula"], "sampler"),
    ]:
        status, _, err = command(export, *arguments)
        assert status == 1 and words in err and len(err.strip().splitlines()) == 1 and err.startswith("error: "), err
        assert sorted(tmp_path.rglob("*")) == before, arguments


def test_what_fails_on_the_way_leaves_nothing(command, run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gebm_lightning.model_card.write_card", full)
    before = sorted(tmp_path.rglob("*"))
    status, _, err = command(export, str(run), "out=new/folder", "program=false")
    assert status == 1 and "out=" in err and "No space left on device" in err and len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_base_that_cannot_be_traced_is_said_in_one_sentence(command, run, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no tracing today\nfor many reasons")

    monkeypatch.setattr("torch.export.export", refuse)
    (tmp_path / "new").mkdir()
    status, out, err = command(export, str(run), "out=new")
    sentence = "base.pt2 is left out: torch.export cannot take this base, DCGANBase (no tracing today)"
    assert status == 0 and out == "new\n" and err == f"note: {sentence}\n"
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [f for f in FILES if f != "base.pt2"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["runs/a"], ["ckpt='runs/a'"]),
        (["out=x", "a, (b)"], ["out=x", "ckpt='a, (b)'"]),
        (["it's"], ["ckpt='it\\'s'"]),
        (["--config-dir", "d", "runs/a"], ["--config-dir", "d", "ckpt='runs/a'"]),
        (["ckpt=a", "--help"], ["ckpt=a", "--help"]),
    ],
)
def test_a_run_may_be_named_without_its_key(given, expected):
    assert name_run(given) == expected


def test_the_root_script_is_five_lines(tmp_path):
    assert len((ROOT / "export.py").read_text().splitlines()) <= 5
    shown = subprocess.run([sys.executable, ROOT / "export.py", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0 and "override" in shown.stdout.lower() and not list(tmp_path.iterdir())
