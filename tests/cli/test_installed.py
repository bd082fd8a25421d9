"""The built wheel, used from another folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a process that sees the package from a wheel only, and an empty folder to work in."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, ROOT], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}, folder


def call(installed, name, *arguments):
    environment, folder = installed
    work = folder / "work"
    work.mkdir(exist_ok=True)
    code = f"import gebm_lightning.cli.{name} as m; assert m.__file__.startswith({str(folder)!r}), m.__file__; m.main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=work, env=environment, capture_output=True, text=True
    )


def test_all_commands_from_a_wheel(installed, smoke):
    trained = call(installed, "train", *smoke)
    assert trained.returncode == 0, trained.stderr
    run = trained.stdout.strip().splitlines()[-1]
    sampled = call(installed, "sample", f"ckpt={run}", "num_samples=3")
    assert sampled.returncode == 0, sampled.stderr
    scored = call(installed, "evaluate", f"ckpt={run}", "compare=[base]", "num_samples=64")
    assert scored.returncode == 0, scored.stderr
    exported = call(installed, "export", run)
    assert exported.returncode == 0, exported.stderr
    reported = call(installed, "report", run)
    assert reported.returncode == 0, reported.stderr
    refused = call(installed, "train", "model=unknown")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr and refused.stderr.startswith("error: ")


SCRIPTS = ["train.py", "sample.py", "evaluate.py", "particles.py", "export.py", "report.py", "dashboard.py"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_waits_for_no_heavy_library(script, tmp_path):
    code = (
        "import runpy, sys\ntry:\n    runpy.run_path(sys.argv.pop(1), run_name='__main__')\nfinally:\n"
        "    print([m for m in ('torch', 'lightning_fabric', 'matplotlib', 'wandb', 'scipy') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, ROOT / script, "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "override" in shown.stdout.lower() and shown.stdout.splitlines()[-1] == "[]", shown.stdout + shown.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_root_scripts_are_five_lines(script, tmp_path):
    assert len((ROOT / script).read_text().splitlines()) <= 5
    shown = subprocess.run([sys.executable, ROOT / script, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0 and "override" in shown.stdout.lower()
    assert not list(tmp_path.iterdir())
