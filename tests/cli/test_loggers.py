"""What each logger leaves behind."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gebm_lightning import UserError, compose
from gebm_lightning.callbacks import Monitor
from gebm_lightning.cli import train
from gebm_lightning.cli.environment import hide_environment, keys_from, keys_from_environment
from gebm_lightning.data.synthetic import write_tar
from gebm_lightning.lightning.loggers import RunCSVLogger
from gebm_lightning.panels import PANELS, PICTURES, TABLE

OFFLINE = ["logger=wandb", "logger.offline=true"]
BARE = ["callbacks.evaluation=null", "callbacks.sampling=null", "callbacks.calibration=null"]


def leveldb_log(content):
    """The records of a LevelDB log with wandb's 7-byte header: 32 KiB blocks of (crc, length, type, data) chunks.

    wandb's own reader is not in its Python package any more.
    """
    assert content[:4] == b":W&B"
    position, record = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def read_back(run):
    """Of each offline part of a run, oldest first: its run record, its config, its history and its artifacts."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # wandb.finish may return before its service has written the file; the end of a process waits for it
    for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb"), key=os.path.getmtime):
        begun, config, history, artifacts = None, {}, {}, []
        for data in leveldb_log(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                begun = record.run
            for item in [*record.run.config.update, *record.config.update]:
                config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            for item in record.history.item:
                history.setdefault(item.key or "/".join(item.nested_key), []).append(item.value_json)
            if record.HasField("artifact"):
                artifacts.append(record.artifact)
        yield path.parent, begun, config, history, artifacts


@pytest.fixture
def finishes(monkeypatch, tmp_path):
    """The exit codes that `wandb.finish` gets, of runs that are running then and not any more."""
    import wandb

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    codes, finish = [], wandb.finish

    def spy(exit_code=None, **kwargs):
        assert wandb.run is not None
        finish(exit_code=exit_code, **kwargs)
        codes.append(exit_code)

    monkeypatch.setattr(wandb, "finish", spy)
    yield codes
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb.run is None


def test_wandb_leaves_a_readable_offline_run(command, smoke, finishes, tmp_path):
    scores = ["callbacks.evaluation.every_n_base_updates=2", "callbacks.evaluation.num_samples_in_training=64"]
    tags = "logger.tags=[one,two]"
    status, out, err = command(train, *smoke, *OFFLINE, *scores, tags, "logger.artifacts=true", "name=toy")
    assert status == 0 and finishes == [0], err
    run = Path(out.strip().splitlines()[-1])
    ((folder, begun, config, history, artifacts),) = read_back(run)
    assert (begun.project, begun.run_group, begun.job_type, list(begun.tags)) == ("toy", "", "train", ["one", "two"])
    for panel in PANELS:
        assert any(re.fullmatch(panel.keys, key) for key in history), panel
    assert "final/test/relative_fid/equilibrium" in history
    assert history["trainer/global_step"][-1] == "4"
    for name in PICTURES:
        assert any(key.startswith(f"images/{name}") for key in history), name
    assert any(key.startswith(TABLE) for key in history)
    (path,) = folder.glob(f"files/media/table/{TABLE}_*.json")
    table = json.loads(path.read_text())
    lines = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    summary = json.loads((run / "summary.json").read_text())
    expected = {
        (row["method"], split): s["relative_fid"] for row in summary["rows"] for split, s in row["scores"].items()
    }
    assert {(line["samples"], line["against"]): line["relative_fid"] for line in lines} == expected
    protocol = summary["protocol"]
    for line in lines:
        assert line["extractor_weights_sha256"] == protocol["extractor_weights_sha256"] and line["generated"] == 64
        assert line["real"] == protocol["splits"][line["against"]]["num_real"]
    written = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    assert config["model"] == written["model"] and config["seed"] == 0
    (artifact,) = [artifact for artifact in artifacts if artifact.type == "model"]
    assert artifact.name == f"model-{begun.run_id}"
    assert [entry.path for entry in artifact.manifest.contents] == ["last.ckpt"]
    copies = [path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert (run / "checkpoints" / "last.ckpt").read_bytes() in copies


def kill(self, trainer, module):
    os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupted_run_goes_on_in_the_same_one_and_tells_no_secret(command, smoke, finishes, monkeypatch):
    monkeypatch.setenv("GEBM_SECRET", "hunter2")
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "on_base_update", kill)
        secret = "sweep_objective=${oc.env:GEBM_SECRET}"
        assert command(train, *smoke, *BARE, *OFFLINE, secret, "run_dir=r")[0] == 128 + signal.SIGTERM
    assert finishes == [1]
    status, _, err = command(train, "resume=r", "+logger.artifacts=true")
    assert status == 0 and finishes == [1, 0], err
    run = Path("r")
    first, second = read_back(run)
    assert first[1].run_id == second[1].run_id != "" and first[0] != second[0]
    assert not first[4] and [artifact.type for artifact in second[4]] == ["model"]
    assert "hunter2" in (run / "config.yaml").read_text()
    for _, _, config, _, _ in (first, second):
        assert "name" in config and "sweep_objective" not in config
    for path in run.glob("wandb/**/*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


def test_a_failed_run_is_finished_too(command, smoke, finishes, monkeypatch):
    def fail(self, trainer, module):
        raise RuntimeError("no")

    monkeypatch.setattr(Monitor, "on_base_update", fail)
    with pytest.raises(RuntimeError, match="no"):
        command(train, *smoke, *BARE, *OFFLINE)
    assert finishes == [1]


def test_the_jobs_of_a_sweep_are_a_group(command, smoke, finishes, tmp_path):
    status, _, err = command(train, "-m", *smoke, *BARE, *OFFLINE, "seed=0,1", "name=both")
    assert status == 0 and finishes == [0, 0], err
    jobs = [read_back(job) for job in (tmp_path / "sweeps" / "both").iterdir() if job.is_dir()]
    found = [(begun.run_group, begun.run_id) for job in jobs for _, begun, *_ in job]
    assert [group for group, _ in found] == ["both", "both"] and len({i for _, i in found}) == 2


@pytest.mark.parametrize("hide", ["null", "name", "[1]"])
def test_what_is_hidden_is_a_list_of_keys(hide):
    with pytest.raises(UserError, match="must be a list of the config's keys"):
        hide_environment(compose(["run_dir=x", "logger=wandb", f"logger.wandb.hide={hide}"]))


def test_keys_from_the_environment_are_found_wherever_they_hide(monkeypatch):
    monkeypatch.setenv("GEBM_SECRET", "7")
    cfg = OmegaConf.create(
        {
            "plain": 1,
            "direct": "x${oc.env:GEBM_SECRET}",
            "through": "${direct}",
            "group": {"deep": "${oc.decode:${oc.env:GEBM_SECRET}}", "other": "${plain}"},
            "copied": "${group}",
            "list": ["a", "${through}"],
            "default": "${oc.env:GEBM_NOT_SET,3}",
            "missing": "???",
        }
    )
    found = ["direct", "through", "group.deep", "copied.deep", "list", "default"]
    assert keys_from_environment(cfg) == found and cfg.direct == "x7"


def test_tensorboard_gets_curves_and_pictures(command, smoke):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    status, out, err = command(train, *smoke, "logger=tensorboard")
    assert status == 0, err
    events = reader.EventAccumulator(str(Path(out.strip().splitlines()[-1]) / "tensorboard"))
    events.Reload()
    assert "train/kale" in events.Tags()["scalars"] and "images/strip" in events.Tags()["images"]
    assert [e.step for e in events.Scalars("train/kale")] == [2, 4]


def test_what_follows_from_a_hidden_key_is_hidden_and_so_is_the_command_line(command, smoke, finishes, tmp_path):
    for name, first in (("train", 0), ("val", 40), ("test", 60)):
        write_tar(tmp_path / "hunter2" / f"{name}.tar", range(first, first + 20))
    data = ["data=webdataset", "data.path=hunter2", "data.size=8", "data.num_workers=0"]
    hide = "logger.wandb.hide=[data.path,data.pth]"
    status, _, err = command(train, *smoke, *BARE, *OFFLINE, *data, hide, "run_dir=r")
    assert status == 0 and "hide names data.pth, which the config has not" in err, err
    ((_, _, config, _, _),) = read_back(Path("r"))
    assert config["data"]["size"] == 8 and "path" not in config["data"] and "path" not in config["data"]["source"]
    files = [path for path in Path("r").glob("wandb/**/*") if path.is_file()]
    assert any(b"data.size=8" in path.read_bytes() for path in files)
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


def test_keys_that_follow_from_others():
    cfg = OmegaConf.create(
        {
            "root": "/a",
            "source": {"root": "${root}", "size": 3},
            "deeper": "${source.root}/x",
            "copied": "${source}",
            "list": ["${root}"],
            "other": "/a",
        }
    )
    assert keys_from(cfg, ["root"]) == ["root", "source.root", "deeper", "copied.root", "list"]
    assert keys_from(cfg, ["source"]) == ["source.root", "source.size", "deeper", "copied.root", "copied.size"]
    assert cfg.deeper == "/a/x"


def test_a_resumed_run_hides_what_it_hid(command, smoke, finishes, monkeypatch):
    monkeypatch.setenv("GEBM_SECRET", "hunter2")
    secret = "sweep_objective=${oc.env:GEBM_SECRET}"
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "on_base_update", kill)
        assert command(train, *smoke, *BARE, *OFFLINE, secret, "run_dir=r")[0] == 128 + signal.SIGTERM
    assert command(train, "resume=r", "+logger.wandb.hide=[seed]")[0] == 0
    *_, (_, _, config, _, _) = read_back(Path("r"))
    assert "name" in config and "seed" not in config and "sweep_objective" not in config


def test_a_row_that_a_killed_run_did_not_finish_is_no_hindrance(tmp_path):
    path = tmp_path / "metrics.csv"
    for torn in (b"", b"3", b",4", b"3,3", b"3\xff"):
        path.write_bytes(b"a,step\n1,1\n2,2\n5,9\n" + torn)
        logger = RunCSVLogger(str(tmp_path))
        logger.keep_until = 4
        assert logger.experiment is not None
        # At once, since this process may be killed as well.
        assert path.read_text().split() == ["a,step", "1,1", "2,2"]
    path.write_text("a,step\n1\n2,2\n")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged near line 2"):
        RunCSVLogger(str(tmp_path)).experiment  # noqa: B018
    assert path.read_text() == "a,step\n1\n2,2\n"
