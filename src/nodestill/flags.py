"""A yes or no for each image, short enough for a row: four images to a hexadecimal digit."""

from collections.abc import Sequence

from nodestill.errors import DataError


def to_hex(flags: Sequence[bool]) -> str:
    """Return flags as hexadecimal digits, the first image first; the last digit is filled up with zeros."""
    padded = [*flags, *[False] * (-len(flags) % 4)]
    return "".join(f"{int(''.join('01'[flag] for flag in padded[at : at + 4]), 2):x}" for at in range(0, len(padded), 4))


def from_hex(digits: str, count: int) -> list[bool]:
    """Return the first flags of those that `to_hex` wrote.

    Args:
        digits: What `to_hex` returned.
        count: How many flags, at most as many as were written.

    Raises:
        DataError: If the digits are not hexadecimal, or too few.
    """
    try:
        bits = "".join(f"{int(digit, 16):04b}" for digit in digits)
    except ValueError:
        raise DataError(
            f"Which images are right should be hexadecimal digits, got {digits[:20]!r}. Make the row again."
        ) from None
    if len(bits) < count:
        raise DataError(
            f"{len(digits)} digits say which of {len(bits)} images are right, {count} were expected. Make the row again."
        )
    return [bit == "1" for bit in bits[:count]]
