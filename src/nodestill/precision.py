"""The two arithmetic precisions a computation may ask for."""

from enum import Enum


class Precision(Enum):
    """Arithmetic of convolutions and matrix products; weights and states are kept in float32 either way."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
