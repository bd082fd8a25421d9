"""Tables: splits that do not share rows, statistics of the train part alone, dequantisation, the original files, and bad ones."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from gebm_lightning import UserError, compose
from gebm_lightning.cli.schema import TABLE_COLUMNS
from gebm_lightning.config import instantiate
from gebm_lightning.data import Table
from gebm_lightning.data.tables import INSTALLED, split_rows, steps, whiten
from gebm_lightning.data.uci import READERS

PARTS = ("train", "val", "test")


def write_wine(root, colour="red", rows=400):
    generator = np.random.default_rng(0)
    values = np.round(np.exp(generator.normal(size=(rows, 11))), 1)
    values[rows // 2 :] = values[: rows - rows // 2]  # each row twice
    lines = [";".join(f'"c{i}"' for i in range(12))]
    lines += [";".join(map(str, row)) + ";5" for row in values]
    (root / f"winequality-{colour}.csv").write_text("\n".join(lines) + "\n")
    return values


def write_others(root):
    generator = np.random.default_rng(1)
    (root / "parkinsons_updrs.data").write_text(
        "\n".join([",".join("x" * 22)] + [",".join(map(str, row)) for row in generator.normal(size=(120, 22))])
    )
    for name in ("1000_train.csv", "1000_test.csv"):
        values = generator.normal(size=(300, 28))
        values[:, 0] = generator.integers(0, 2, 300)
        values[:, [3, 5, 7, 9, 11, 13]] = 1.0  # repeated too often
        (root / name).write_text("\n".join([",".join("x" * 28)] + [",".join(map(str, row)) for row in values]))
    values = generator.uniform(0, 1, size=(400, 43))
    values[3] = -999.0
    lines = [" 300 100"] + ["  ".join(f"{v:.6e}" for v in row) for row in values]
    (root / "MiniBooNE_PID.txt").write_text("\n".join(lines))
    head = "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;Sub_metering_1;Sub_metering_2;Sub_metering_3"
    lines = [head] + [
        f"16/12/2006;{i // 60:02d}:{i % 60:02d}:00;{1 + i / 7:.3f};0.1;{230 + i % 13}.5;4.6;{i % 3};{i % 5};{i % 7}"
        for i in range(600)
    ]
    lines[5] = "16/12/2006;00:04:00;?;?;?;?;?;?;"
    (root / "household_power_consumption.txt").write_text("\n".join(lines))
    sensors = generator.normal(size=(300, 8)).repeat(2, axis=1) + 0.01 * generator.normal(size=(300, 16))
    values = np.concatenate([generator.uniform(size=(300, 3)), sensors], axis=1)
    lines = ["Time (seconds), CO conc (ppm), Ethylene conc (ppm), sensor readings (16 channels)"]
    (root / "ethylene_CO.txt").write_text("\n".join(lines + [" ".join(f"{v:.4f}" for v in row) for row in values]))
    with h5py.File(root / "BSDS300.hdf5", "w") as file:
        for part, n in (("train", 300), ("validation", 1200), ("test", 150)):
            file[part] = generator.normal(size=(n, 63))


@pytest.mark.parametrize("table", INSTALLED)
@pytest.mark.parametrize("whitening", ["standard", "pca"])
def test_installed_tables(table, whitening):
    source = Table(table, whitening=whitening)
    parts = {part: source.split(part).x.double().numpy() for part in PARTS}
    n = len(source.rows())
    assert sum(len(x) for x in parts.values()) == n and parts["train"].shape[1] == TABLE_COLUMNS[table]
    assert abs(len(parts["test"]) - n / 10) < 5 and abs(len(parts["val"]) - 0.09 * n) < 5
    np.testing.assert_allclose(parts["train"].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(parts["train"].std(0), 1, atol=1e-4)
    if whitening == "pca":
        np.testing.assert_allclose(np.cov(parts["train"].T, bias=True), np.eye(parts["train"].shape[1]), atol=1e-3)
    again = Table(table, whitening=whitening)
    assert all((again.split(part).x.double().numpy() == parts[part]).all() for part in PARTS)


def test_equal_rows_stay_together(tmp_path):
    values = write_wine(tmp_path)
    parts = split_rows(values, 3)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(values)))
    seen = {name: {tuple(row) for row in values[index]} for name, index in parts.items()}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["val"] and not seen["val"] & seen["test"]
    # The rule is not idle: a cut of single rows would part some.
    order = np.random.default_rng(3).permutation(len(values))
    assert {tuple(r) for r in values[order[:40]]} & {tuple(r) for r in values[order[40:]]}


def test_dequantisation_adds_less_than_a_step(tmp_path):
    values = write_wine(tmp_path)
    np.testing.assert_allclose(steps(values), 0.1)
    assert (steps(np.random.default_rng(0).normal(size=(500, 2))) == 0).all()
    rows = [
        Table("redwine", str(tmp_path), whitening="none", dequantise=d).split("train").x.numpy() for d in (True, False)
    ]
    off = rows[0] - rows[1]
    assert np.abs(off).max() <= 0.05 + 1e-5 and off.std() == pytest.approx(0.1 / 12**0.5, rel=0.05)


def test_statistics_are_of_the_train_part(tmp_path):
    values = write_wine(tmp_path)
    source = Table("redwine", str(tmp_path), dequantise=False)
    index = split_rows(values, 0)  # any other split would do
    assert abs(source.split("test").x.mean(0)).max() > 1e-3
    affine = whiten(values[index["train"]], "standard")
    assert affine.log_det == pytest.approx(-np.log(values[index["train"]].std(0)).sum())


def test_original_files(tmp_path):
    write_wine(tmp_path), write_wine(tmp_path, "white"), write_others(tmp_path)
    for table in (*READERS, "bsds300"):
        source = Table(table, str(tmp_path))
        assert source.split("train").shape == (TABLE_COLUMNS[table],), table
    assert len(Table("miniboone", str(tmp_path)).rows()) == 299 and len(Table("power", str(tmp_path)).rows()) == 599
    assert len(Table("power", str(tmp_path), max_rows=100).rows()) == 100
    source = Table("bsds300", str(tmp_path))
    assert [len(source.split(part)) for part in PARTS] == [300, 1000, 150]
    fewer = Table("bsds300", str(tmp_path), max_rows=120)
    assert [len(fewer.split(part)) for part in PARTS] == [120, 120, 120]
    # Rows from all of the file, not its first ones: neighbours are patches of one image.
    assert not np.isin(fewer.rows()[:120], source.rows()[:120]).all()
    with h5py.File(tmp_path / "BSDS300.hdf5") as file:
        wanted, train = file["test"][:], file["train"][:]
    np.testing.assert_allclose(source.split("test").x.numpy(), (wanted - train.mean(0)) / train.std(0), atol=1e-5)


def test_power_whose_missing_rows_were_filled(tmp_path):
    """Minutes copied from the day before are left out; the rest is what the original file gives."""
    generator = np.random.default_rng(0)
    head = "Global_active_power,Global_reactive_power,Voltage,Global_intensity,Sub_metering_1,Sub_metering_2,Sub_metering_3"
    values = generator.normal(size=(3000, 7)).round(3)
    times = [(1 + i // 1440, i // 60 % 24, i % 60) for i in range(3000)]
    missing = range(1500, 1600)
    original = [f"Date;Time;{head.replace(',', ';')}"]
    filled = [f"date_time,{head}"]
    for i, (day, hour, minute) in enumerate(times):
        row = values[i - 1440 if i in missing else i]
        filled.append(f"2006-12-{day:02d} {hour:02d}:{minute:02d}:00," + ",".join(map(str, row)))
        cells = ["?"] * 7 if i in missing else [str(v) for v in row]
        original.append(f"{day}/12/2006;{hour:02d}:{minute:02d}:00;" + ";".join(cells))
    for name, lines in (("household_power_consumption.txt", original), ("power.csv", filled)):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("\n".join(lines))
    a, b = (Table("power", str(tmp_path / name)).rows() for name in ("household_power_consumption.txt", "power.csv"))
    assert len(a) == 2900
    np.testing.assert_array_equal(a, b)


def test_gas_keeps_the_last_of_columns_that_go_together(tmp_path):
    write_others(tmp_path)
    values = np.loadtxt(tmp_path / "ethylene_CO.txt", skiprows=1)[:, 3:]
    np.testing.assert_array_equal(Table("gas", str(tmp_path)).rows(), values[:, 1::2])


@pytest.mark.skipif("GEBM_REAL_DATA" not in os.environ, reason="GEBM_REAL_DATA names no folder of real data")
@pytest.mark.parametrize(("table", "rows"), [("redwine", 1599), ("whitewine", 4898)])
def test_the_real_wines(table, rows):
    root = os.environ["GEBM_REAL_DATA"]
    if not list(Path(root).glob("winequality-*.csv")):
        pytest.skip("GEBM_REAL_DATA has no wines")
    source = Table(table, root)
    assert source.rows().shape == (rows, 11) and sum(len(source.split(part)) for part in PARTS) == rows


def test_bad_tables(tmp_path):
    with pytest.raises(UserError, match=r"set data\.root to their folder"):
        Table("redwine").split("train")
    with pytest.raises(UserError, match=r"there is none of winequality-red\.csv in"):
        Table("redwine", str(tmp_path)).split("train")
    with pytest.raises(UserError, match="is one of wine"):
        Table("mtcars")
    write_wine(tmp_path)
    path = tmp_path / "winequality-red.csv"
    good = path.read_text().splitlines()
    path.write_text("\n".join([*good[:7], good[7].replace(good[7].split(";")[2], "", 1), *good[8:]]))
    with pytest.raises(UserError, match=r"1 values that are missing or infinite, the first in row 7, column \d"):
        Table("redwine", str(tmp_path)).split("train")
    path.write_text("\n".join([good[0]] + [";".join(["3.0", *line.split(";")[1:]]) for line in good[1:]]))
    with pytest.raises(UserError, match="column 1 of the table redwine is constant"):
        Table("redwine", str(tmp_path)).split("train")
    path.write_text("\n".join(line.rsplit(";", 1)[0] for line in good))
    with pytest.raises(UserError, match="has 11 columns"):
        Table("redwine", str(tmp_path)).split("train")
    (tmp_path / "BSDS300.hdf5").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"BSDS300\.hdf5 is no HDF5 file"):
        Table("bsds300", str(tmp_path)).split("train")
    path.write_bytes(b"\xff\xfe\x00;")
    with pytest.raises(UserError, match="cannot be read as text"):
        Table("redwine", str(tmp_path)).split("train")


def test_the_config_serves_a_table():
    data = instantiate(compose(["data=uci"]).data)
    assert data.shape == (13,) and next(iter(data.batches("test"))).x.shape[1] == 13
    assert compose(["data=uci", "data.table=power"]).data.shape == [6]
