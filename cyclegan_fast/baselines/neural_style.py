"""Transfers style (Gatys, Ecker & Bethge 2016, "Image style transfer using convolutional neural networks").

F_l, P_l and S_l are activations [1, N_l, H_l, W_l] of layer l for the picture that is made, the content image and a
style image, and M_l = H_l W_l. Losses are summed over the picture, as the equations have them.

The paper's network has its weights scaled so that every filter's mean activation over ImageNet is one (section 2),
which brings layers and filters to one scale. A ReLU and a pooling commute with such scales, so that here activations
are divided instead: by their root mean square over the style images and the content image, half and half, which are all
the images that there are. Means were tried first: of so few images some filters see next to nothing, their Gram
matrices are large then, and the picture gets spots of noise. For the same reason no filter is divided by less than a
tenth of what is usual in its layer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cyclegan_fast.methods.feature_loss.vgg import Vgg
from cyclegan_fast.system.errors import UserError

CONTENT_LAYER = "relu4_2"
SMALLEST_SCALE = 0.1  # of its layer's root mean square: a filter is divided by no less
HISTORY = 20  # pairs of steps and changes of the gradient that L-BFGS keeps


def style_layers(network: Vgg) -> list[str]:
    """Return the first activation of each stage, relu1_1 to relu5_1 in VGG-19 (Gatys et al. 2016, figure 1)."""
    return [name for name in network.activations if name.endswith("_1")]


def gram_matrix(features: Tensor) -> Tensor:
    """Compute G_ij = sum_k F_ik F_jk (Gatys et al. 2016, eq. 3): [N, C, H, W] -> [N, C, C]."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2)


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Compute 1/2 sum (F - P)^2 (Gatys et al. 2016, eq. 1), a scalar; both are [1, C, H, W]."""
    return 0.5 * (features - target).square().sum()


def style_layer_loss(features: Tensor, target: Tensor) -> Tensor:
    """Compute E_l = sum (G - A)^2 / (4 N^2 M^2) (Gatys et al. 2016, eq. 4), a scalar.

    Args:
        features: [1, C, H, W].
        target: A / M, [1, C, C]: each style image's Gram matrix divided by its own number of positions, so that the
            image may be of another size than the picture.
    """
    channels, positions = features.size(1), features.size(2) * features.size(3)
    return (gram_matrix(features) / positions - target).square().sum() / (4 * channels**2)


def style_loss(features: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Compute sum w_l E_l with equal weights w_l (Gatys et al. 2016, eq. 5), over the layers of `targets`."""
    losses = [style_layer_loss(features[layer], target) for layer, target in targets.items()]
    return torch.stack(losses).sum() / len(losses)


@dataclass(frozen=True)
class Style:
    """Holds averages over one or more style images: of Gram matrices by positions [1, C, C], and of squares [C]."""

    grams: dict[str, Tensor]
    squares: dict[str, Tensor]


@torch.no_grad()
def average_style(network: Vgg, images: Iterable[Tensor]) -> Style:
    """Average the style of images [1, 3, H, W] of any sizes: their mean Gram matrices (Zhu et al. 2017, section 5.2).

    Raises ValueError where there are none.
    """
    layers = style_layers(network)
    grams: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    count = 0
    for count, image in enumerate(images, 1):  # noqa: B007  # counted
        for layer, features in network(image, [*layers, CONTENT_LAYER]).items():
            square = mean_square(features)
            squares[layer] = squares.get(layer, torch.zeros_like(square)) + square
            if layer in layers:
                gram = gram_matrix(features) / (features.size(2) * features.size(3))
                grams[layer] = grams.get(layer, torch.zeros_like(gram)) + gram
    if not count:
        raise ValueError("a style needs one image at least")
    return Style(
        {layer: gram / count for layer, gram in grams.items()},
        {layer: square / count for layer, square in squares.items()},
    )


def mean_square(features: Tensor) -> Tensor:
    """Return the mean square of each channel: [1, C, H, W] -> [C]."""
    return features.square().mean(dim=(0, 2, 3))


def scale(squares: Tensor) -> Tensor:
    """Return the factors [C] of a layer's activations, given the mean squares of its channels [C]."""
    smallest = SMALLEST_SCALE * squares.mean().sqrt()
    return 1 / torch.maximum(squares.sqrt(), smallest.clamp_min(1e-12))


@dataclass(frozen=True)
class StyleTransferLosses:
    """Holds L_content and L_style of eq. 7 before they are weighed."""

    content: float
    style: float


@dataclass(frozen=True)
class Styled:
    """Holds a picture [1, 3, H, W] in [-1, 1], and its losses before the first step and after the last."""

    picture: Tensor
    first: StyleTransferLosses
    last: StyleTransferLosses


class Objective:
    """Computes the total loss of one content image and one style (Gatys et al. 2016, eq. 7).

    Args:
        content: [1, 3, H, W] in [-1, 1].
        content_weight, style_weight: alpha, times the number of activations that eq. 1 sums over, and beta. Without
            that number the balance would change with the size of the picture, as eq. 4 has a mean over it.
    """

    def __init__(self, network: Vgg, content: Tensor, style: Style, content_weight: float, style_weight: float) -> None:
        self.network = network
        self.layers = [*style.grams, *({CONTENT_LAYER} - style.grams.keys())]
        with torch.no_grad():
            found = network(content, self.layers)
            self.scales = {layer: scale((mean_square(found[layer]) + style.squares[layer]) / 2) for layer in found}
            self.content = found[CONTENT_LAYER] * self.scales[CONTENT_LAYER][:, None, None]
            self.alpha, self.beta = content_weight / self.content.numel(), style_weight
            self.grams = {
                layer: gram * self.scales[layer] * self.scales[layer][:, None] for layer, gram in style.grams.items()
            }

    def terms(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Compute L_content and L_style of a picture [1, 3, H, W], both differentiable."""
        found = self.network(picture, self.layers)
        features = {layer: found[layer] * self.scales[layer][:, None, None] for layer in found}
        return content_loss(features[CONTENT_LAYER], self.content), style_loss(features, self.grams)

    def total(self, picture: Tensor) -> Tensor:
        """Compute the weighed sum of both losses of a picture [1, 3, H, W], differentiable."""
        content, style = self.terms(picture)
        total: Tensor = self.alpha * content + self.beta * style
        return total

    @torch.no_grad()
    def losses(self, picture: Tensor) -> StyleTransferLosses:
        """Return both losses of a picture [1, 3, H, W] as numbers."""
        content, style = self.terms(picture)
        return StyleTransferLosses(float(content), float(style))


def minimise(objective: Objective, start: Tensor, steps: int, tell: Callable[[int], None] = lambda _: None) -> Styled:
    """Minimise by `steps` iterations of L-BFGS over the pixels, each with a line search, from `start` [1, 3, H, W].

    Args:
        tell: called with the number of iterations that are done, once for every gradient.

    Raises UserError where the loss is not finite.
    """
    picture = start.detach().clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [picture],
        max_iter=steps,
        max_eval=25 * steps,
        tolerance_grad=0,
        tolerance_change=0,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def gradient() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        total = objective.total(picture)
        total.backward()  # type: ignore[no-untyped-call]  # torch's own
        tell(int(optimizer.state[picture].get("n_iter", 0)))
        return total

    first = objective.losses(picture)
    optimizer.step(gradient)  # type: ignore[no-untyped-call]  # torch's own
    last = objective.losses(picture)
    if not (picture.isfinite().all() and torch.tensor([last.content, last.style]).isfinite().all()):
        raise UserError("the picture is not finite: lower --style-weight or --content-weight, or take fewer --steps")
    return Styled(picture.detach(), first, last)


def noise_like(content: Tensor, seed: int) -> Tensor:
    """Draw white noise to begin with, of the content's shape and device; the global generator is not touched."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(content.shape, generator=generator).mul(0.5).to(content)


def smallest_side(network: Vgg) -> int:
    """Return the smallest side of images that leave a pixel in the last stage."""
    side: int = 2 ** (len(style_layers(network)) - 1)
    return side
