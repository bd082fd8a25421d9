"""An LMDB with overwritten pages, flipped bits or an end that is missing, each read in a process of its own."""

import faulthandler
import os
import random
import re
import signal
import struct
import sys
from types import SimpleNamespace

import pytest
import torch

from gebm_lightning import UserError
from gebm_lightning.cli.command import expected_error
from gebm_lightning.data import LSUN, ImageDataModule
from gebm_lightning.data.lmdb import LMDBImages
from gebm_lightning.data.synthetic import numbers, write_lmdb

# Images on pages of their own, as LSUN's, and several leaves below the root.
COUNT, SIZE, PAGE = 150, 36, 4096
META, TREE = range(2), (1, 2)
FINE, SENTENCE, WRONG, TRACEBACK = range(10, 14)
TOLD = {FINE: "fine", SENTENCE: "a sentence", WRONG: "another image", TRACEBACK: "a traceback"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of an LMDB and of its key list."""
    pytest.importorskip("lmdb")
    path = write_lmdb(tmp_path_factory.mktemp("whole") / "lmdb", COUNT, SIZE)
    LMDBImages(path, SIZE)
    return (path / "data.mdb").read_bytes(), (path / "keys.npy").read_bytes()


def tree_pages(content):
    """The branch and leaf pages: what lies between is images."""
    kinds = {page: struct.unpack_from("<QHH", content, page * PAGE) for page in range(2, len(content) // PAGE)}
    return [page for page, (number, _, kind) in kinds.items() if number == page and kind in TREE]


def put(path, content, keys):
    path.mkdir(exist_ok=True)
    (path / "data.mdb").write_bytes(content)
    if keys is None:
        (path / "keys.npy").unlink(missing_ok=True)
    else:
        (path / "keys.npy").write_bytes(keys)


def read_all(path):
    try:
        data = LMDBImages(path, SIZE)
    except UserError as error:
        return WRONG if "\n" in str(error) else SENTENCE
    told = FINE
    for i in range(len(data)):
        try:
            if numbers(data.__getitems__([i]).x).tolist() != [i]:
                return WRONG
        except UserError:
            told = SENTENCE
    return told if len(data) == COUNT else WRONG


def outcome(path):
    """What reading every image in a forked process ends in."""
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = TRACEBACK
        try:
            faulthandler.disable()  # its dump would go past the capture
            signal.alarm(60)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            code = read_all(path)
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return TOLD.get(status) or (signal.Signals(-status).name if status < 0 else str(status))


def overwritten(content, rng, count):
    for page in rng.sample(tree_pages(content), len(tree_pages(content))) * (count // len(tree_pages(content)) + 1):
        other = rng.randrange(len(content) // PAGE) * PAGE
        for new in (bytes(PAGE), b"\xff" * PAGE, rng.randbytes(PAGE), content[other : other + PAGE]):
            yield content[: page * PAGE] + new + content[(page + 1) * PAGE :]


def flipped(content, rng, pages, width, count):
    for _ in range(count):
        damaged = bytearray(content)
        damaged[rng.choice(pages) * PAGE + rng.randrange(width)] ^= 1 << rng.randrange(8)
        yield bytes(damaged)


def cut(content, rng, count):
    for i in range(count):
        yield content[: len(content) * i // count]


def test_it_is_fine_as_it_is(whole, tmp_path):
    put(tmp_path / "lmdb", *whole)
    assert outcome(tmp_path / "lmdb") == "fine" and len(tree_pages(whole[0])) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("listed", [True, False], ids=["with its key list", "without"])
@pytest.mark.parametrize("damage", ["overwritten", "cut", "meta"])
def test_damage_is_told_or_does_no_harm(whole, tmp_path, damage, listed):
    content, keys = whole
    rng = random.Random(0)
    damaged = {
        "overwritten": lambda: overwritten(content, rng, 8 if listed else 4),
        "cut": lambda: cut(content, rng, 20),
        # The heads of both meta pages, where the places of the trees are.
        "meta": lambda: flipped(content, rng, META, 152, 30 if listed else 10),
    }
    found = []
    for new in damaged[damage]():
        put(tmp_path / "lmdb", new, keys if listed else None)
        found.append(outcome(tmp_path / "lmdb"))
    assert set(found) <= {"fine", "a sentence"}, found
    # The meta page of the older transaction, and half of every page's bits, are not looked at.
    assert found.count("a sentence") >= len(found) * {"overwritten": 0.9, "cut": 1, "meta": 0.1}[damage], found


@pytest.mark.slow
@pytest.mark.parametrize("listed", [True, False], ids=["with its key list", "without"])
def test_flipped_bits_in_the_tree_give_no_traceback(whole, tmp_path, listed):
    content, keys = whole
    found = []
    for new in flipped(content, random.Random(1), tree_pages(content), PAGE, 80 if listed else 25):
        put(tmp_path / "lmdb", new, keys if listed else None)
        found.append(outcome(tmp_path / "lmdb"))
    # A place that leads to another image is not seen, and a length near the file's end leads beyond it, as is documented.
    assert set(found) <= {"fine", "a sentence", "another image", "SIGBUS"}, found
    assert found.count("another image") + found.count("SIGBUS") <= len(found) / 20, found


def test_zeros_where_keys_should_be_are_told(whole, tmp_path):
    content, _ = whole
    page = tree_pages(content)[1] * PAGE
    put(tmp_path / "lmdb", content[:page] + bytes(PAGE) + content[page + PAGE :], None)
    with pytest.raises(UserError, match=r"is damaged: .*; copy or unpack it again$"):
        LMDBImages(tmp_path / "lmdb", SIZE)


def test_a_loader_that_reads_beyond_the_file_is_one_sentence(whole, tmp_path):
    """The last image's length is a sixth of the file: not beyond its size, but beyond its end."""
    content, keys = bytearray(whole[0]), whole[1]
    node = content.rindex(f"{COUNT - 1:040x}".encode()) - 8
    struct.pack_into("<HH", content, node, *reversed(divmod(len(content) // 6, 1 << 16)))
    put(tmp_path / "bedroom_train_lmdb", bytes(content), keys)
    data = ImageDataModule(LSUN(str(tmp_path), size=SIZE), [3, SIZE, SIZE], batch_size=COUNT, num_workers=1)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(steps=0), global_rank=0, world_size=1)
    data.dataset("train").index = torch.tensor([COUNT - 1])
    with pytest.raises(RuntimeError) as caught:
        next(iter(data.train_dataloader()))
    sentence = expected_error(caught.value)
    # torch does not always learn by which signal.
    assert re.match(r"a process that loads data ended \((killed by signal: Bus|exited unexpectedly)\)", sentence)
    assert "a damaged LMDB" in sentence
    assert "a damaged LMDB" in expected_error(RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly"))
