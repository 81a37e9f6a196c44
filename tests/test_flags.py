"""Flags and hexadecimal digits are each other's inverse; what nobody can have written is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodestill.errors import DataError
from nodestill.flags import from_hex, to_hex


@given(st.lists(st.booleans(), max_size=70), st.data())
def test_the_first_flags_come_back(flags, data):
    count = data.draw(st.integers(0, len(flags)))
    assert from_hex(to_hex(flags), count) == flags[:count]


def test_the_digits_are_those_of_the_images_in_order():
    assert to_hex([True, False, False, False, False, True]) == "84"


@pytest.mark.parametrize(
    ("digits", "count", "said"), [("8g", 5, "hexadecimal digits, got '8g'"), ("8", 5, "1 digits say which of 4")]
)
def test_what_was_not_written_so_is_refused(digits, count, said):
    with pytest.raises(DataError, match=said):
        from_hex(digits, count)
