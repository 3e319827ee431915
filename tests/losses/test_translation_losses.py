"""The losses of image translation are the sums of their papers' formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import MultiScalePatchDiscriminator, PatchDiscriminator
from torch import Tensor, nn
from torch.nn import functional as F

from monai_invertible.losses import PairedTranslationLoss, PatchLogitsLoss, TranslationLoss, UnpairedTranslationLoss

X, Y = 2, 3  # channels


class Pair(nn.Module):
    """Two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Conv2d(X, Y, 1)
        self.g = nn.Conv2d(Y, X, 1)

    def forward(self, x: Tensor, direction: str = "forward") -> Tensor:
        return self.f(x) if direction == "forward" else self.g(x)


def discriminators(**channels: int) -> nn.ModuleDict:
    torch.manual_seed(1)
    return nn.ModuleDict(
        {name: PatchDiscriminator(2, channels=4, in_channels=size, num_layers_d=1) for name, size in channels.items()}
    )


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, X, 16, 16), torch.randn(2, Y, 16, 16)


def test_paired(images: tuple[Tensor, Tensor]) -> None:
    """Vanilla GAN on the pair, lambda = 100 on both directions."""
    x, y = images
    pair, judges, loss = Pair(), discriminators(x=X + Y, y=X + Y), PairedTranslationLoss()
    made = loss.translate(pair, x, y)
    generators, critics = loss.generator_terms(made, judges), loss.discriminator_terms(made, judges)

    def p(name: str, image: Tensor) -> Tensor:
        return judges[name](image)[-1].sigmoid()

    on_y, on_x = torch.cat([x, pair.f(x)], 1), torch.cat([y, pair.g(y)], 1)
    expected = {
        "l1_x_loss": 100 * F.l1_loss(pair.g(y), x),
        "l1_y_loss": 100 * F.l1_loss(pair.f(x), y),
        "adversarial_x_loss": -p("x", on_x).log().mean(),
        "adversarial_y_loss": -p("y", on_y).log().mean(),
    }
    torch.testing.assert_close(generators, expected)
    real_y, real_x = p("y", torch.cat([x, y], 1)), p("x", torch.cat([y, x], 1))
    expected = {
        "discriminator_x_loss": -(real_x.log().mean() + (1 - p("x", on_x)).log().mean()) / 2,
        "discriminator_y_loss": -(real_y.log().mean() + (1 - p("y", on_y)).log().mean()) / 2,
    }
    torch.testing.assert_close(critics, expected)


def test_unpaired(images: tuple[Tensor, Tensor]) -> None:
    """Least squares, and lambda = 10 on both cycles."""
    x, y = images
    pair, judges, loss = Pair(), discriminators(x=X, y=Y), UnpairedTranslationLoss()
    made = loss.translate(pair, x, y)
    expected = {
        "cycle_x_loss": 10 * F.l1_loss(pair.g(pair.f(x)), x),
        "cycle_y_loss": 10 * F.l1_loss(pair.f(pair.g(y)), y),
        "adversarial_x_loss": (judges["x"](pair.g(y))[-1] - 1).square().mean(),
        "adversarial_y_loss": (judges["y"](pair.f(x))[-1] - 1).square().mean(),
    }
    torch.testing.assert_close(loss.generator_terms(made, judges), expected)
    fake_x, fake_y = judges["x"](pair.g(y))[-1], judges["y"](pair.f(x))[-1]
    expected = {
        "discriminator_x_loss": ((judges["x"](x)[-1] - 1).square().mean() + fake_x.square().mean()) / 2,
        "discriminator_y_loss": ((judges["y"](y)[-1] - 1).square().mean() + fake_y.square().mean()) / 2,
    }
    torch.testing.assert_close(loss.discriminator_terms(made, judges), expected)


def test_identity() -> None:
    """A share of the cycle's weight; F and G on images that are in their target domain already."""
    torch.manual_seed(0)
    x, y, f, g = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def terms_of(loss: TranslationLoss) -> dict[str, Tensor]:
        return loss.generator_terms(loss.translate(lambda image, direction="": (g if direction else f)(image), x, y))

    terms = terms_of(UnpairedTranslationLoss(cycle_weight=4.0, identity_weight=0.5))
    torch.testing.assert_close(terms["identity_y_loss"], 2 * F.l1_loss(f(y), y))
    torch.testing.assert_close(terms["identity_x_loss"], 2 * F.l1_loss(g(x), x))
    assert terms.keys() - terms_of(UnpairedTranslationLoss()).keys() == {"identity_x_loss", "identity_y_loss"}


@pytest.mark.parametrize("none", [None, {}, nn.ModuleDict()])
def test_without_discriminators_the_paired_loss_is_supervised(none: Any, images: tuple[Tensor, Tensor]) -> None:
    loss = PairedTranslationLoss(l1_weight=2.0)
    made = loss.translate(Pair(), *images)
    assert list(loss.generator_terms(made, none)) == ["l1_x_loss", "l1_y_loss"]
    assert loss.discriminator_terms(made, none) == {}


def test_logits_loss_is_that_of_monai_where_the_sigmoid_is_accurate() -> None:
    logits = torch.linspace(-30, 30, 61, dtype=torch.float64).view(1, 1, -1)
    for real, for_discriminator in ((True, True), (False, True), (True, False)):
        expected = PatchAdversarialLoss(criterion="bce")(logits, real, for_discriminator)
        torch.testing.assert_close(PatchLogitsLoss()(logits, real, for_discriminator), expected, rtol=1e-4, atol=0)


def test_a_discriminator_that_is_very_wrong_learns() -> None:
    """At a logit of 18 for a generated image, where the gradient of MONAI's loss is 0 and its value 100."""
    gradients = {}
    for loss in (PatchLogitsLoss(), PatchAdversarialLoss(criterion="bce")):
        logits = torch.full((1, 1, 4), 18.0, requires_grad=True)
        value = loss(logits, False, True)
        value.backward()
        gradients[type(loss)] = (value.item(), logits.grad.sum().item())
    assert gradients[PatchLogitsLoss] == pytest.approx((18.0, 1.0))
    assert gradients[PatchAdversarialLoss] == pytest.approx((100.0, 0.0))


def test_least_squares_has_no_activation() -> None:
    """A logit of -1 is 2 away from real, not 1.05."""
    assert UnpairedTranslationLoss().adversarial(torch.full((1, 1, 2, 2), -1.0), True, False) == 4.0


def test_discriminators_of_several_scales(images: tuple[Tensor, Tensor]) -> None:
    """The mean over the scales, of the logits alone."""
    x, y = images
    options = {"num_layers_d": 1, "spatial_dims": 2, "channels": 4, "minimum_size_im": 16}
    judges = nn.ModuleDict(
        {name: MultiScalePatchDiscriminator(2, in_channels=size, **options) for name, size in {"x": X, "y": Y}.items()}
    )
    loss, pair = UnpairedTranslationLoss(), Pair()
    term = loss.generator_terms(loss.translate(pair, x, y), judges)["adversarial_y_loss"]
    scales = judges["y"](pair.f(x))[0]
    torch.testing.assert_close(term, sum((scale - 1).square().mean() for scale in scales) / 2)


def test_the_pool_stands_between_generators_and_discriminators(images: tuple[Tensor, Tensor]) -> None:
    """It is given what each discriminator is to judge, detached, and its answer is judged."""
    loss, judges, asked = PairedTranslationLoss(), discriminators(x=X + Y, y=X + Y), {}

    def pool(image: Tensor, name: str) -> Tensor:
        asked[name] = image
        return torch.zeros_like(image)

    made = loss.translate(Pair(), *images)
    terms = loss.discriminator_terms(made, judges, pool)
    assert torch.equal(asked["y"], torch.cat([images[0], made["fake_y"]], 1)) and not asked["y"].requires_grad
    assert asked["x"].shape[1] == X + Y
    real, fake = judges["y"](torch.cat(images, 1))[-1], judges["y"](torch.zeros(2, X + Y, 16, 16))[-1]
    expected = (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
    torch.testing.assert_close(terms["discriminator_y_loss"], expected)


def test_half_precision_and_meta_tensors(images: tuple[Tensor, Tensor]) -> None:
    x, y = (MetaTensor(image) for image in images)
    pair, judges = Pair(), discriminators(x=X + Y, y=X + Y)
    loss = PairedTranslationLoss()
    expected = loss.generator_terms(loss.translate(pair, *images), judges)
    with torch.autocast("cpu"):
        terms = loss.generator_terms(loss.translate(pair, x, y), judges)
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(expected[name].item(), rel=0.05)


class Supervised(TranslationLoss):
    """A loss of one's own: squared errors, and a discriminator of Y alone."""

    def reconstruction(self, images: Any) -> dict[str, Tensor]:
        return {"mse_loss": F.mse_loss(images["fake_y"], images["y"])}

    def judged(self, images: Any) -> dict[str, tuple[Tensor, Tensor]]:
        return {"y": (images["y"], images["fake_y"])}


def test_a_loss_of_ones_own(images: tuple[Tensor, Tensor]) -> None:
    loss = Supervised(PatchAdversarialLoss(criterion="hinge"))
    made = loss.translate(Pair(), *images)
    assert list(loss.generator_terms(made, discriminators(y=Y))) == ["mse_loss", "adversarial_y_loss"]
    assert list(loss.discriminator_terms(made, discriminators(y=Y))) == ["discriminator_y_loss"]
    with pytest.raises(NotImplementedError, match="TranslationLoss: define reconstruction"):
        TranslationLoss(nn.Identity()).generator_terms(made)
    with pytest.raises(NotImplementedError, match="TranslationLoss: define judged"):
        TranslationLoss(nn.Identity()).discriminator_terms(made, discriminators(y=Y))


def test_errors(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    loss = PairedTranslationLoss()
    made = loss.translate(Pair(), x, y)
    with pytest.raises(
        ValueError, match="PairedTranslationLoss: the discriminators must be named x, y, got a, y. Give"
    ):
        loss.generator_terms(made, discriminators(a=X, y=Y))
    with pytest.raises(ValueError, match=r"fake_x and x must have one shape, got \(2, 2, 8, 8\) and \(2, 2, 16, 16\)"):
        loss.generator_terms(loss.translate(Pair(), x, y[..., :8, :8]))
    with pytest.raises(
        ValueError, match=r"x and y must be of one size for a discriminator, got \(16, 16\) and \(8, 8\)"
    ):
        loss.discriminator_terms(loss.translate(Pair(), x, y[..., :8, :8]), discriminators(x=X + Y, y=X + Y))
