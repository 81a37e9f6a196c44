"""Names for the tensors that cross public borders.

Images are floats in [0, 1] wherever they appear; normalisation is the first layer of a model.
"""

from jaxtyping import Float, Int64
from torch import Tensor

Images = Float[Tensor, "batch 3 height width"]
Labels = Int64[Tensor, " batch"]
Logits = Float[Tensor, "batch classes"]
