from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pixel_spotter.arguments import check_arguments


def made(
    one: float, several: float | Sequence[float] = 1, free: Any = None, yes: bool = True
) -> None:
    """Take arguments of some types."""


@pytest.mark.parametrize(
    "values",
    [
        {"one": 3}, {"one": 3.5, "yes": False}, {"several": [1, 2.5]}, {"free": True},
        {"not_there": "x"},
    ],
)  # fmt: skip
def test_values_that_fit(values: dict) -> None:
    check_arguments(made, values, "group")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"one": "abc"}, r"group\.one must be float, got 'abc'"),
        ({"one": True}, r"group\.one must be float, got True"),
        ({"one": None}, r"group\.one must be float"),
        ({"several": [1, "x"]}, r"group\.several must be float \| Sequence\[float\]"),
        ({"yes": 3}, r"group\.yes must be bool"),
        ({"one": np.zeros((40, 40))}, r"^group\.one must be float, got array.{1,200}$"),
    ],
)
def test_values_that_do_not(values: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_arguments(made, values, "group")
