"""The invertible diffusion U-Net: time and conditions, exact inverse, flat memory, MONAI's inferers and schedulers."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import DiffusionPrepareBatch
from monai.inferers import DiffusionInferer
from monai.networks import convert_to_torchscript
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, RFlowScheduler
from torch import Tensor, nn

from monai_invertible import set_backprop
from monai_invertible.memory import LiveBytes, estimate_training_step
from monai_invertible.networks import CheckpointedDiffusionUNet, InvertibleDiffusionUNet

PAPER = (1, 1, 128, 128, 128)
TIME = torch.tensor([500])


def small(dims: int = 3, **options: Any) -> InvertibleDiffusionUNet:
    """With branches and a last end that are no longer zero."""
    torch.manual_seed(0)
    network = InvertibleDiffusionUNet(dims, 1, 1, (8, 16), (2,), **options)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.1 * torch.randn_like(p)
    return network


@pytest.mark.parametrize("size", [(7, 9, 10), (8, 8, 8), (1, 5, 3)])
def test_sizes(size: tuple[int, ...]) -> None:
    assert small()(torch.randn(2, 1, *size), TIME).shape == (2, 1, *size)


@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2, 4)])
def test_strides_of_the_ends(stride: Any) -> None:
    assert small(bookend_stride=stride)(torch.randn(1, 1, 6, 12, 8), TIME).shape == (1, 1, 6, 12, 8)


def test_the_network_starts_at_zero_and_knows_the_time() -> None:
    x = torch.randn(1, 1, 8, 8, 8)
    assert not InvertibleDiffusionUNet(3, 1, 1, (8, 16), (2,))(x, TIME).any()
    network = small().eval()
    assert (network(x, torch.tensor([3])) - network(x, torch.tensor([700]))).abs().max() > 1e-3


def test_each_image_of_a_batch_has_its_own_time() -> None:
    network, x, times = small().double(), torch.randn(3, 1, 8, 8, 8).double(), torch.tensor([0, 400, 999])
    together = network(x, times)
    assert torch.allclose(together, torch.cat([network(x[i : i + 1], times[i : i + 1]) for i in range(3)]))
    assert torch.allclose(network(x, TIME), network(x, TIME.expand(3)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-5)])
@pytest.mark.parametrize("attention", ["channel", "token", None])
def test_inverse_of_the_core(attention: str | None, dtype: torch.dtype, tolerance: float) -> None:
    network, x = small(attention=attention).to(dtype), torch.randn(2, 1, 8, 8, 8).to(dtype)
    with torch.no_grad():
        embedding = network.embed(x, TIME)
        state = network.ends.lift(x)
        output = network.core(*state, embedding=embedding)
        back = network.core.inverse(*output, embedding=embedding)
    assert not torch.allclose(output[0], state[0], atol=0.1)
    assert max((a - b).abs().max() for a, b in zip(back, state, strict=True)) < tolerance


def test_without_bookends_the_noisy_image_comes_back_from_the_output_of_the_core() -> None:
    network, x = small(bookends=False).double(), torch.randn(1, 1, 8, 8, 8).double()
    embedding = network.embed(x, TIME)
    output = network.core(*network.ends.lift(x), embedding=embedding)
    assert torch.allclose(network.ends.project(network.core.inverse(*output, embedding=embedding)), x)  # type: ignore


@pytest.mark.parametrize("options", [{}, {"bookends": False}, {"attention": None}, {"downsample": "squeeze"}])
def test_gradients_equal_stored_ones(options: dict[str, Any]) -> None:
    network, x = small(**options).double(), torch.randn(2, 1, 8, 8, 8).double()

    def gradients(net: nn.Module) -> list[Tensor]:
        return list(torch.autograd.grad(net(x, torch.tensor([1, 900])).square().mean(), list(net.parameters())))

    expected = gradients(set_backprop(copy.deepcopy(network), "store"))
    scale = max(g.abs().max() for g in expected)
    for mode in ("invert", "checkpoint"):
        found = gradients(set_backprop(network, mode))
        assert max((a - b).abs().max() for a, b in zip(found, expected, strict=True)) / scale < 1e-9


def test_memory_is_flat_in_the_couplings_of_a_level() -> None:
    def kept(units: int, backprop: str) -> int:
        network, x = small(num_res_units=units, backprop=backprop), torch.randn(1, 1, 16, 16, 16)
        with LiveBytes() as live:
            output = network(x, TIME)
            assert output.requires_grad
            return live.current

    small_tensors = 200 * 1024  # shifts of the embedding
    assert kept(6, "invert") - kept(1, "invert") < small_tensors < kept(6, "store") - kept(1, "store")


@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=str)
def test_simulated_peak_at_the_papers_size(autocast: torch.dtype | None) -> None:
    """The paper has 0.85 of the stored version of itself."""

    def peak(backprop: str) -> int:
        build = partial(InvertibleDiffusionUNet, 3, 1, 1, backprop=backprop)
        return estimate_training_step(build, [PAPER, TIME], autocast=autocast).peak

    inverted, stored = peak("invert"), peak("store")
    assert inverted < 0.45 * stored
    assert inverted < 6 * 2**30


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler, RFlowScheduler])
def test_inferer_and_schedulers_of_monai(kind: Any) -> None:
    scheduler = kind(num_train_timesteps=1000)
    scheduler.set_timesteps(4)
    sample = DiffusionInferer(scheduler).sample(torch.randn(2, 1, 6, 8, 8), small().eval(), verbose=False)
    assert isinstance(sample, Tensor) and sample.shape == (2, 1, 6, 8, 8) and sample.isfinite().all()


def test_condition_by_concatenation() -> None:
    network = InvertibleDiffusionUNet(2, 2, 1, (8, 16), (2,))
    inferer = DiffusionInferer(DDPMScheduler(num_train_timesteps=10))
    image = torch.randn(2, 1, 8, 8)
    noise = inferer(image, network, torch.randn_like(image), torch.tensor([1, 9]), condition=image, mode="concat")  # type: ignore[arg-type]
    assert noise.shape == image.shape


def test_a_thousand_steps_stay_finite() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    network = InvertibleDiffusionUNet(2, 1, 1, (8, 16), (2,)).eval()
    sample = DiffusionInferer(scheduler).sample(torch.randn(1, 1, 4, 4), network, verbose=False)  # type: ignore[arg-type]
    assert isinstance(sample, Tensor) and sample.isfinite().all()


def test_monai_trains_it() -> None:
    torch.manual_seed(0)
    network = InvertibleDiffusionUNet(2, 1, 1, (16, 32), (2,))
    losses: list[float] = []
    images = [{"image": torch.ones(4, 1, 8, 8), "label": torch.ones(4, 1, 8, 8)}] * 50
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        1,
        images,
        network,
        torch.optim.Adam(network.parameters(), 1e-2),
        lambda *pair: nn.functional.mse_loss(*pair),
        prepare_batch=DiffusionPrepareBatch(100),
        inferer=DiffusionInferer(DDPMScheduler(num_train_timesteps=100)),
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output[0]["loss"]))
    trainer.run()
    assert sum(losses[-15:]) < 0.85 * sum(losses[:15])


def test_classes_and_context() -> None:
    network = small(2, num_class_embeds=3, cross_attention_dim=5)
    with torch.no_grad():
        network.context_embed.weight.mul_(10)  # type: ignore[union-attr]
    x, context, labels = torch.randn(2, 1, 8, 8), torch.randn(2, 4, 5), torch.tensor([0, 2])
    y = network(x, TIME, context=context, class_labels=labels)
    assert not torch.allclose(y, network(x, TIME, context=context, class_labels=labels.flip(0)))
    assert not torch.allclose(y, network(x, TIME, context=context + 1, class_labels=labels))
    y.sum().backward()
    assert network.context_embed.weight.grad.any() and network.class_embedding.weight.grad.any()  # type: ignore


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {}, "timesteps are needed in training"),
        ({}, {"timesteps": torch.tensor([1, 2, 3])}, r"one number for each of the 2 images.* got shape \(3,\)"),
        ({}, {"timesteps": torch.tensor(3)}, r"got shape \(\)"),
        ({}, {"timesteps": TIME, "context": torch.randn(2, 1, 5)}, "built without cross_attention_dim, but context is"),
        ({"num_class_embeds": 3}, {"timesteps": TIME}, "built with num_class_embeds, but class_labels is missing"),
    ],
)
def test_wrong_conditions(options: dict[str, Any], arguments: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(2, **options)(torch.randn(2, 1, 8, 8), **arguments)


def test_wrong_images_and_arguments() -> None:
    with pytest.raises(ValueError, match=r"an image must have shape \(B, 1, H, W\)"):
        small(2)(torch.randn(2, 3, 8, 8), TIME)
    with pytest.raises(ValueError, match="num_res_units must be at least 1"):
        small(2, num_res_units=0)
    with pytest.raises(ValueError, match=r"channels\[0\] must hold the 8 voxels of a block, got 4"):
        InvertibleDiffusionUNet(3, 1, 1, (4, 8), (2,), bookends=False)
    with pytest.raises(ValueError, match="backprop must be one of"):
        small(2, backprop="forget")


# torch.jit is deprecated, but python -m monai.bundle ckpt_export still uses it.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore::torch.jit.TracerWarning")
def test_torchscript_and_export() -> None:
    network, x = small(2).eval(), torch.randn(2, 1, 8, 8)
    expected = network(x, torch.tensor([3.0, 7.0]))
    script = convert_to_torchscript(network)
    assert torch.allclose(script(x, torch.tensor([3.0, 7.0])), expected, atol=1e-5)
    program = torch.export.export(network, (x, torch.tensor([3.0, 7.0])))
    assert torch.allclose(program.module()(x, torch.tensor([3.0, 7.0])), expected, atol=1e-5)


# ---------------------------------------------------------------------------------------- MONAI's network, checkpointed

MONAI: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "channels": (4, 8),
    "attention_levels": (False, True),
    "num_res_blocks": 2,
    "norm_num_groups": 2,
}


def test_checkpointed_network_is_monais_with_less_memory() -> None:
    torch.manual_seed(0)
    stored = DiffusionModelUNet(**MONAI).double()
    with torch.no_grad():
        for p in stored.parameters():
            p += 0.1 * torch.randn_like(p)
    network = CheckpointedDiffusionUNet(**MONAI).double()
    network.load_state_dict(stored.state_dict())
    x = torch.randn(2, 1, 16, 16).double()
    results, kept = [], []
    for net in (stored, network):
        with LiveBytes() as live:
            loss = net(x, torch.tensor([2, 30])).square().mean()
            kept.append(live.current)
        results.append(torch.autograd.grad(loss, list(net.parameters())))
    assert all(torch.allclose(a, b) for a, b in zip(*results, strict=True))
    assert kept[1] < 0.5 * kept[0]


def test_checkpointed_network_can_be_copied_and_pickled() -> None:
    network = CheckpointedDiffusionUNet(**MONAI)
    x = torch.randn(1, 1, 16, 16)
    expected = network(x, TIME)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x, TIME), expected)
    with pytest.raises(RuntimeError):
        network(torch.randn(1, 2, 16, 16), TIME)
    assert not any("forward" in vars(module) for module in network.modules())
