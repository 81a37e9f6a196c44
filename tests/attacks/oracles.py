"""Plain, slow, obviously correct references: one image at a time, float64, no sharing, integers of Python."""

import torch
from torch import nn


def gradient(model, image, label):
    """Gradient of the cross-entropy of one image."""
    image = image.clone().requires_grad_(True)
    loss = -torch.log_softmax(model(image[None]), dim=1)[0, label]
    return torch.autograd.grad(loss, image)[0]


def clip(x, image, eps):
    x = torch.maximum(torch.minimum(x, image + eps), image - eps)
    return x.clamp(0, 1)


def pgd(model, images, labels, eps_255, step_255, steps, starts):
    result = []
    for image, label, x in zip(images, labels, starts):
        for _ in range(steps):
            x = clip(x + step_255 / 255 * torch.sign(gradient(model, x, label)), image, eps_255 / 255)
        result.append(x)
    return torch.stack(result)


def mi_fgsm(model, images, labels, eps_255, step_255, steps, momentum):
    result = []
    for image, label in zip(images, labels):
        x, g = image, torch.zeros_like(image)
        for _ in range(steps):
            slope = gradient(model, x, label)
            norm = slope.abs().sum()
            g = momentum * g + (slope / norm if norm > 0 else 0 * slope)
            x = clip(x + step_255 / 255 * torch.sign(g), image, eps_255 / 255)
        result.append(x)
    return torch.stack(result)


def _mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def splitmix64(state, count):
    """The published generator, as unsigned integers of Python."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        numbers.append(_mix(state))
    return numbers


def uniform(key, seed, eps_255, stream, count):
    """Numbers in (-1, 1) from the upper 24 bits of splitmix64, started from a chain over the keys."""
    state = 0
    for part in (seed, stream, key, eps_255):
        state = splitmix64(state ^ (part % 2**64), 1)[0]
    return [((number >> 40) + 0.5) / 2**23 - 1 for number in splitmix64(state, count)]


class Affine(nn.Module):
    """Two classes, logits affine in the pixels, weights bounded away from zero: the best perturbation is known."""

    def __init__(self, pixels, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        magnitude = 0.1 + torch.rand(pixels, generator=generator, dtype=dtype)
        self.direction = magnitude * (2 * torch.randint(0, 2, (pixels,), generator=generator) - 1) / pixels

    def forward(self, images):
        margin = (images - 0.5).flatten(1) @ self.direction.to(images)
        return torch.stack([-margin, margin], 1)

    def best(self, images, labels, eps_255):
        """The closed-form optimum: every pixel goes the whole way against its own class."""
        sign = torch.where(labels == 1, -1, 1)[:, None] * torch.sign(self.direction)
        return images + eps_255 / 255 * sign.view(images.shape).to(images)


def small_net(dtype=torch.float32):
    """A convolutional classifier of three classes with batch statistics to tamper with, in evaluation mode."""
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 4, 3, stride=2), nn.Tanh(),
        nn.Flatten(), nn.Linear(4 * 3 * 3, 3),
    )  # fmt: skip
    return net.to(dtype).eval()


def bytes_images(count, size=8, dtype=torch.float32):
    """Random images made of bytes, faces of the range included."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator).to(dtype) / 255
