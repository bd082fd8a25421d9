"""The keys of an LMDB on standard output: run as a process of its own, since over a damaged page LMDB's C code may abort."""

from __future__ import annotations

import sys
from itertools import islice, pairwise

import numpy as np


def read_keys(path: str) -> np.ndarray:
    """(n, length) uint8, all keys in their order.

    Raises:
        ValueError: the pages contradict each other, or the keys are none of LSUN's.
        lmdb.Error: a page is damaged.
    """
    import lmdb

    with (
        lmdb.open(path, readonly=True, lock=False, readahead=False, meminit=False) as environment,
        environment.begin() as transaction,
    ):
        entries = environment.stat()["entries"]
        # One more than there should be, for damaged pages may lead round in a circle.
        keys = list(islice(transaction.cursor().iternext(keys=True, values=False), entries + 1))
    if len(keys) != entries:
        raise ValueError(f"its head counts {entries} keys, its pages {'more' if len(keys) > entries else len(keys)}")
    if any(a >= b for a, b in pairwise(keys)):
        raise ValueError("its keys are out of order")
    if len({len(key) for key in keys}) != 1:
        raise ValueError("its keys have several lengths, and those of LSUN's have one")
    return np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)


if __name__ == "__main__":
    try:
        found = read_keys(sys.argv[1])
    except Exception as error:
        # To the process that started this one, which makes a sentence of it.
        sys.exit(str(error) or type(error).__name__)
    np.save(sys.stdout.buffer, found, allow_pickle=False)
