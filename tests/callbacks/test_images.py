"""Pictures carry the labels of conditional samples."""

import torch

from gebm_lightning.callbacks.images import side_by_side, strip


def test_each_image_of_a_grid_has_its_label_in_its_corner():
    x, y = torch.zeros(10, 1, 4, 6), torch.arange(10) % 3
    (axis,) = side_by_side({"samples": x}, y).axes
    assert [text.get_text() for text in axis.texts] == [str(k) for k in y.tolist()]
    # Image 9 is the second of the second row of 8; cells are 7 wide and 5 high.
    assert axis.texts[9].get_position() == (1 + 7, 1 + 5)
    assert not side_by_side({"samples": x}).axes[0].texts


def test_each_row_of_a_strip_has_its_label():
    states = [torch.zeros(5, 1, 4, 4) for _ in range(3)]
    (axis,) = strip(states, [0, 1, 2], rows=4, labels=torch.tensor([3, 1, 4, 1, 5])).axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["3", "1", "4", "1"]
    assert not strip(states, [0, 1, 2], rows=4).axes[0].get_yticklabels()


def test_points_are_coloured_by_label():
    (axis,) = side_by_side({"samples": torch.rand(6, 2)}, torch.arange(6)).axes
    assert axis.collections[0].get_array().tolist() == [0, 1, 2, 3, 4, 5]
