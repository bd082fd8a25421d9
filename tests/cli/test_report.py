"""`gebm-report`: one file that needs nothing else, whatever texts are in the run, and one sentence for what is damaged."""

import base64
import functools
import io
import json
import os
import re
import shutil
import struct
import zlib
from html.parser import HTMLParser

import pytest
from omegaconf import OmegaConf
from PIL import Image

from gebm_lightning import compose
from gebm_lightning.cli import dashboard, report
from gebm_lightning.cli.record import read_run

HOSTILE = "</pre><script>alert('1')</script><img src=x onerror=\"alert(2)\">$\\frac$&"


class Reader(HTMLParser):
    """Tags with their attributes, texts, and the tables' cells; tags must be closed in their order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.cells = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th", "a"):
            self.cells.append(data)


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


@functools.cache
def config(*overrides):
    return OmegaConf.to_yaml(compose(["run_dir=x", "model.width=4", *overrides]), resolve=True)


def scored(method, value):
    scores = {"test": {"fid_digits": 2 * value, "relative_fid": value, "kid": 0.001}}
    return {"method": method, "scores": scores, "seconds": 1.0}


@pytest.fixture
def folder(tmp_path):
    """A finished run's folder, without the training."""

    def make(name, *overrides, value=0.5):
        run = tmp_path / name
        (run / "images").mkdir(parents=True)
        (run / "config.yaml").write_text(config(*overrides))
        lines = ["step,loss/base,grad_norm/base,train/eval_kale"]
        lines += [f"{step},{1 / step},{'' if step == 2 else step},{'nan' if step == 3 else 1}" for step in (1, 2, 3)]
        (run / "metrics.csv").write_text("\n".join(lines) + "\n")
        summary = {
            "rows": [scored("base", 1.0), scored("equilibrium", value)],
            "protocol": {"extractor": "digits", "seed": 0, "splits": {"test": {"num_generated": 64, "num_real": 400}}},
            "bounds": {"val": {"kale": 0.1, "donsker_varadhan": 0.2}},
        }
        (run / "summary.json").write_text(json.dumps(summary))
        (run / "finished.json").write_text("{}")
        for n, colour in (("grid-0000500", "red"), ("grid-0001000", "green"), ("strip-0000500", "blue")):
            (run / "images" / f"{n}.png").write_bytes(png(colour))
        return run

    return make


def read(path):
    text = path.read_text(encoding="utf-8")
    reader = Reader(text)
    assert {tag for tag, _ in reader.tags} <= set(
        "html head meta title style body h1 h2 h3 h4 p table tr th td a img details summary pre section".split()
    )
    for tag, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")
        if tag == "a":
            assert attributes["href"].startswith("#")
    return reader


def test_a_trained_run(command, run):
    status, out, err = command(report, str(run))
    assert (status, err) == (0, "") and out.splitlines() == [str(run / "report.html")]
    page = read(run / "report.html")
    summary = json.loads((run / "summary.json").read_text())
    for row in summary["rows"]:
        for scores in row["scores"].values():
            assert format(scores["relative_fid"], ".4g") in page.cells
    assert summary["protocol"]["extractor_weights_sha256"] in page.cells
    assert [t for t, _ in page.tags].count("img") == 4 and (run / "config.yaml").read_text() in page.texts
    assert not list(run.glob("*.tmp"))


def test_a_run_in_one_file_that_may_be_written_again(command, folder, tmp_path):
    run = folder("run")
    for _ in range(2):
        status, out, err = command(report, f"run={run}", "out=a/page.html")
        assert (status, err) == (0, "") and out.splitlines() == ["a/page.html"]
    page = read(tmp_path / "a" / "page.html")
    # Curves, and the newest picture of each name.
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [attributes["alt"] for attributes in images] == ["curves", "grid", "strip"]
    assert base64.b64decode(images[1]["src"].split(",")[1]) == png("green")
    assert "equilibrium" in page.cells and "0.5" in page.cells and "protocol.splits.test.num_real" in page.cells
    assert not (run / "report.html").exists()


def test_a_run_that_has_only_begun(command, folder):
    run = folder("run")
    for name in ("metrics.csv", "summary.json", "finished.json"):
        (run / name).unlink()
    shutil.rmtree(run / "images")
    assert command(report, str(run))[0] == 0
    page = read(run / "report.html")
    told = " ".join(page.texts)
    assert "unfinished" in told and "Not scored" in told and "None were logged" in told
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_hostile_texts_are_texts(command, folder):
    run = folder("r <b>'&")
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.name = HOSTILE
    OmegaConf.save(cfg, run / "config.yaml")
    summary = json.loads((run / "summary.json").read_text())
    summary["rows"][0]["method"] = summary["protocol"][HOSTILE] = HOSTILE
    summary["rows"][1]["scores"] = {HOSTILE: summary["rows"][1]["scores"]["test"] | {HOSTILE: 1.0}}
    (run / "summary.json").write_text(json.dumps(summary))
    header = f'"spectral_norm/{HOSTILE.replace(chr(34), chr(34) * 2)}","penalty/$\\frac$"'
    (run / "metrics.csv").write_text(f"step,{header}\n1,2,3\n2,3,4\n")
    (run / "images" / 'a<b>".png').write_bytes(png("red"))
    status, _, err = command(report, str(run))
    assert status == 0, err
    page = read(run / "report.html")
    assert page.cells.count(HOSTILE) == 4 and f"protocol.{HOSTILE}" in page.cells
    assert 'a<b>"' in page.texts and "Run r <b>'&" in page.texts


def test_a_sweep_has_a_line_and_a_section_for_each_job(command, folder, tmp_path):
    sweep = tmp_path / "sweep"
    for seed, name in enumerate(("aaa", "bbb", "ccc.broken-1")):
        folder(f"sweep/{name}", f"seed={seed}", value=0.5 + seed / 10)
    (sweep / "bbb" / "finished.json").unlink()
    status, out, err = command(report, str(sweep))
    assert (status, err) == (0, "") and out.splitlines() == [str(sweep / "report.html")]
    page = read(sweep / "report.html")
    targets = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a"]
    assert targets == [attributes["id"] for tag, attributes in page.tags if tag == "section"] and len(targets) == 2
    assert {"aaa", "bbb", "unfinished", "0.500", "0.600", "0.550 ± 0.071"} <= set(page.cells)
    assert not any("broken" in text for text in page.texts)
    # The figure over jobs, and curves, grid and strip of each.
    assert [tag for tag, _ in page.tags].count("img") == 1 + 2 * 3
    assert not (sweep / "sweep.csv").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", b'{"rows": [', "summary.json is damaged"),
        ("summary.json", b"[1]", "summary.json is damaged"),
        ("summary.json", b'{"rows": [{"method": "base"}]}', "summary.json is damaged"),
        ("summary.json", b'{"rows": [{"method": "base", "scores": {"test": {}}}]}', "summary.json is damaged"),
        ("summary.json", b"\xff\xfe", "summary.json is damaged"),
        ("summary.json", b"[" * 100_000, "summary.json is damaged"),
        ("metrics.csv", b"", "metrics.csv is damaged.*no column step"),
        ("metrics.csv", b"step,a\n1,2\n2,x\n", "metrics.csv is damaged near line 3"),
        ("metrics.csv", b"step,a\n1\n", "metrics.csv is damaged near line 2"),
        ("metrics.csv", b"step,a\n1,2,3\n", "metrics.csv is damaged near line 2"),
        ("metrics.csv", b"step,a\n\xff,2\n", "metrics.csv is damaged"),
        ("images/grid.png", b"\x89PNG\r\n\x1a\nno", "grid.png is damaged"),
        ("images/grid.png", b"GIF89a", "grid.png is damaged"),
        ("config.yaml", b"a: [", "cannot be read as YAML"),
        ("config.yaml", b"a: 1", "not the config of a training run"),
    ],
)
def test_damaged_files_are_one_sentence_and_nothing_is_written(command, folder, tmp_path, name, content, message):
    # A run's, and one of a sweep's job.
    place = "sweep/job" if content == b"[1]" else "run"
    run = folder(place)
    (run / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    status, out, err = command(report, place.split("/")[0])
    assert status == 1 and out == "" and len(err.splitlines()) == 1, err
    assert re.search(message, err), err
    assert sorted(tmp_path.rglob("*")) == before


def test_mistakes_are_one_sentence(command, folder, tmp_path):
    run = folder("run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.html").write_text("mine")
    for arguments, message in [
        ([], "a folder is missing"),
        (["nowhere"], "there is no folder nowhere"),
        (["empty"], "no config.yaml"),
        (["run", "empty"], "one run at a time"),
        (["run", "out=empty"], "is a folder"),
        (["run", "out=mine.html"], "no report of this program"),
        (["run", f"out={run}/config.yaml"], "no report of this program"),
    ]:
        status, out, err = command(report, *arguments)
        assert status == 1 and out == "" and message in err and len(err.splitlines()) == 1, err
    assert (tmp_path / "mine.html").read_text() == "mine" and not list(run.glob("report*"))
    status, _, err = command(dashboard)
    assert status == 1 and err.startswith("error: entity= is missing") and len(err.splitlines()) == 1


def test_a_run_that_is_still_going_may_be_in_the_middle_of_a_row(command, folder, tmp_path):
    run = folder("run")
    for torn in ("4,0.2", "4,0.2,1,0.3"):
        whole = (run / "metrics.csv").read_text()
        (run / "metrics.csv").write_text(whole + torn)
        (run / "finished.json").unlink(missing_ok=True)
        assert command(report, "run")[0] == 0
        assert read_run(run).curves["loss/base"][0] == [1, 2, 3]
        (run / "metrics.csv").write_text(whole)
    (run / "metrics.csv").write_text("")
    assert command(report, "run")[0] == 0 and read_run(run).curves == {}


def test_texts_under_hidden_keys_are_not_told(command, folder, tmp_path):
    run = folder(
        "run", "logger.csv.hide=[data.root,seed]", "data=folder", "data.root=hunter2", "model=dcgan", "data.size=8"
    )
    assert "hunter2" in (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("- seed", "- data.source.root\n    - seed")
    )
    assert command(report, "run")[0] == 0
    page = (run / "report.html").read_text()
    assert "hunter2" not in page and "root: hidden" in page and "seed: 0" in page


def test_a_picture_that_is_too_large_to_be_one(command, folder):
    run = folder("run")
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"0")),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    (run / "images" / "grid.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    status, _, err = command(report, "run")
    assert status == 1 and "grid.png is damaged or no picture" in err and len(err.splitlines()) == 1


def test_a_folder_whose_name_is_no_text(command, folder, tmp_path):
    folder("run").rename(tmp_path / os.fsdecode(b"r\xff"))
    status, out, err = command(report, os.fsdecode(b"r\xff"))
    assert (status, out, err) == (1, "", "error: the name of a file or folder is not in UTF-8: rename it\n")
