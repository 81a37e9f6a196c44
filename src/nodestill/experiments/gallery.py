"""A few adversarial images as PNG in JSON, for people to look at."""

import base64
import io
from typing import Any

from torch import Tensor

from nodestill.attacks.sweep import Gallery


def gallery_rows(gallery: Gallery, eps_255: int) -> list[dict[str, Any]]:
    """Return one plain row per image: label, predictions before and after, and both images as base64 PNG."""
    columns = zip(
        gallery.images,
        gallery.adversarial,
        gallery.labels,
        gallery.clean_predictions,
        gallery.adversarial_predictions,
        strict=True,
    )
    return [
        {
            "eps_255": eps_255,
            "label": int(label),
            "predicted_clean": int(before),
            "predicted": int(after),
            "clean": _png(clean),
            "adversarial": _png(adversarial),
        }
        for clean, adversarial, label, before, after in columns
    ]


def _png(image: Tensor) -> str:
    """Return an image in [0, 1], rounded to 8 bits, as base64 PNG."""
    from PIL import Image

    pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
