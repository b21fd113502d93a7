import itertools

from pixel_spotter.errors import chain


def test_each_error_of_a_chain_comes_once() -> None:
    first, second, third = OSError("first"), RuntimeError("second"), ValueError("third")
    third.__cause__, second.__context__ = second, first
    assert [*chain(third)] == [third, second, first]
    first.__context__ = third
    assert [*itertools.islice(chain(third), 9)] == [third, second, first]
