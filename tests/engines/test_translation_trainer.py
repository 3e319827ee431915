"""The trainer's steps are those of a training loop written out, with activations kept or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import IterationEvents
from monai.networks.nets import PatchDiscriminator, UNet
from monai.utils.enums import AdversarialIterationEvents
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from monai_invertible.data import ImagePool
from monai_invertible.losses import PairedTranslationLoss, TranslationLoss, UnpairedTranslationLoss
from monai_invertible.networks import IndependentGenerators, SuperResolutionGenerators
from tests.engines.translation import discriminators, generators, gradients, images, state, trainer


def by_hand(paired: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """Gradients, new weights and the generators' loss after one step on the first batch: CycleGAN or pix2pix in plain
    PyTorch, with all activations kept."""
    pair, loss = generators("store"), PairedTranslationLoss() if paired else UnpairedTranslationLoss()
    judges = discriminators(loss)
    g_optimizer = torch.optim.Adam(pair.parameters(), 2e-4, (0.5, 0.999))
    d_optimizer = torch.optim.Adam(judges.parameters(), 2e-4, (0.5, 0.999))
    batch = next(iter(DataLoader(images(), batch_size=2)))
    x, y = batch["x"], batch["y"]

    def real(logits: Tensor) -> Tensor:
        return F.softplus(-logits).mean() if paired else ((logits - 1) ** 2).mean()

    def fake(logits: Tensor) -> Tensor:
        return F.softplus(logits).mean() if paired else (logits**2).mean()

    def d_x(image: Tensor) -> Tensor:
        return judges["x"](torch.cat([y, image], 1) if paired else image)[-1]

    def d_y(image: Tensor) -> Tensor:
        return judges["y"](torch.cat([x, image], 1) if paired else image)[-1]

    fake_y, fake_x = pair.translate(x), pair.translate_back(y)
    total = real(d_y(fake_y)) + real(d_x(fake_x))
    if paired:
        total = total + 100 * F.l1_loss(fake_y, y) + 100 * F.l1_loss(fake_x, x)
    else:
        there_and_back = F.l1_loss(pair.translate_back(fake_y), x) + F.l1_loss(pair.translate(fake_x), y)
        total = total + 10 * there_and_back
    total.backward()
    g_optimizer.step()
    d_optimizer.zero_grad()  # what the generators' loss left there
    fake_y, fake_x = fake_y.detach(), fake_x.detach()
    ((real(d_y(y)) + fake(d_y(fake_y)) + real(d_x(x)) + fake(d_x(fake_x))) / 2).backward()
    d_optimizer.step()
    networks = {"g": pair, "d": judges}
    grads = {f"{n}.{k}": p.grad for n, net in networks.items() for k, p in net.named_parameters() if p.grad is not None}
    return grads, {f"{n}.{k}": v for n, net in networks.items() for k, v in net.state_dict().items()}, total.item()


@pytest.mark.parametrize("backprop", ["invert", "store", "checkpoint"])
@pytest.mark.parametrize("paired", [False, True], ids=["unpaired", "paired"])
def test_one_step_is_that_of_a_loop_written_out(paired: bool, backprop: str) -> None:
    """In float64: loss, gradients of both generators and both discriminators, and the weights after the step."""
    loss = PairedTranslationLoss() if paired else UnpairedTranslationLoss()
    engine = trainer(loss, g_network=generators(backprop), epoch_length=1, decollate=False)
    engine.run()
    grads, weights, total = by_hand(paired)
    assert engine.state.output["loss"].item() == pytest.approx(total, rel=1e-10)
    got = gradients(engine)
    assert got.keys() == grads.keys()
    for name, expected in grads.items():
        scale = max(
            float(expected.abs().max()), 1e-9
        )  # convolutions before an instance norm have a bias without effect
        torch.testing.assert_close(got[name], expected, rtol=1e-7, atol=1e-8 * scale + 1e-14, msg=name)
    moved = {name: value for name, value in weights.items() if grads[name].abs().max() > 1e-9}
    torch.testing.assert_close({name: state(engine)[name] for name in moved}, moved, rtol=0, atol=1e-8)


@pytest.mark.parametrize("loss", [PairedTranslationLoss(), UnpairedTranslationLoss()], ids=["paired", "unpaired"])
def test_a_core_with_batch_norm_in_3d(loss: TranslationLoss) -> None:
    """It is run in both directions, in the cycles twice; running statistics and gradients are those of the stored."""
    data = [{name: torch.rand(2, 6, 6, 6, dtype=torch.float64) for name in "xy"} for _ in range(4)]
    runs = []
    for backprop in ("store", "invert"):
        torch.manual_seed(0)
        pair = SuperResolutionGenerators(3, 2, 2, channels=4, depth=2, backprop=backprop).double()
        for parameter in pair.parameters():
            nn.init.normal_(parameter, std=0.2)
        channels = 4 if isinstance(loss, PairedTranslationLoss) else 2
        judges = nn.ModuleDict({name: PatchDiscriminator(3, 2, channels, num_layers_d=1) for name in "xy"}).double()
        optimizers = {
            "g_optimizer": torch.optim.SGD(pair.parameters(), 0.01),
            "d_optimizer": torch.optim.SGD(judges.parameters(), 0.01),
        }
        engine = trainer(loss, g_network=pair, d_network=judges, data=DataLoader(data, batch_size=2), **optimizers)
        engine.run()
        runs.append({**state(engine), **{f"gradient of {name}": grad for name, grad in gradients(engine).items()}})
    assert sum(name.endswith("running_var") for name in runs[0]) > 4
    torch.testing.assert_close(runs[1], runs[0], rtol=1e-7, atol=1e-9)


def test_each_step_moves_its_own_networks_only() -> None:
    engine, seen = trainer(epoch_length=1), {}

    def look(name: str) -> None:
        seen[name] = state(engine)

    def no_gradient_for_the_discriminators() -> None:
        assert all(p.grad is None and not p.requires_grad for p in engine.d_network.parameters())

    engine.add_event_handler(Events.STARTED, lambda: look("start"))
    engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, no_gradient_for_the_discriminators)
    engine.add_event_handler(AdversarialIterationEvents.DISCRIMINATOR_LOSS_COMPLETED, lambda: look("between"))
    engine.run()
    start, between, end = seen["start"], seen["between"], state(engine)
    generators_of = [name for name in start if name.startswith("g.")]
    discriminators_of = [name for name in start if name.startswith("d.")]
    assert all(torch.equal(between[name], end[name]) for name in generators_of)
    assert all(torch.equal(start[name], between[name]) for name in discriminators_of)
    assert any(not torch.equal(start[name], end[name]) for name in generators_of)
    assert all(not torch.equal(between[name], end[name]) for name in discriminators_of if name.endswith("weight"))


def test_a_frozen_layer_of_a_discriminator_stays_frozen() -> None:
    loss = UnpairedTranslationLoss()
    judges = discriminators(loss)
    judges["x"].initial_conv.requires_grad_(False)
    engine = trainer(loss, d_network=judges)
    engine.run()
    assert [p.requires_grad for p in judges["x"].parameters()][:2] == [False, False]
    assert all(p.requires_grad for p in judges["y"].parameters())


def test_without_discriminators() -> None:
    engine = trainer(PairedTranslationLoss(), d_network=None, decollate=False)
    engine.run()
    assert "discriminator_loss" not in engine.state.output
    total = engine.state.output["l1_x_loss"] + engine.state.output["l1_y_loss"]
    torch.testing.assert_close(engine.state.output["loss"], total)


def test_two_runs_are_the_same() -> None:
    runs = []
    for _ in range(2):
        engine = trainer(max_epochs=2, batch_size=1, pool=ImagePool(2))
        torch.manual_seed(3)
        engine.run()
        runs.append(state(engine))
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_any_two_networks_can_be_the_generators() -> None:
    torch.manual_seed(0)
    options = {"channels": (4, 8), "strides": (2,), "num_res_units": 1}
    pair = IndependentGenerators(UNet(2, 2, 3, **options), UNet(2, 3, 2, **options)).double()
    engine = trainer(UnpairedTranslationLoss(), g_network=pair, batch_size=1)
    before = state(engine)
    engine.run()
    assert any(not torch.equal(value, before[name]) for name, value in state(engine).items())


@pytest.mark.parametrize("optim_set_to_none", [False, True])
def test_accumulated_steps_are_those_of_a_larger_batch(optim_set_to_none: bool) -> None:
    """Also of the discriminators; an epoch of three batches ends with a step on the last one alone."""
    whole = trainer(batch_size=4)
    whole.run()
    parts = trainer(batch_size=1, accumulation_steps=4, optim_set_to_none=optim_set_to_none)
    parts.run()
    grads = gradients(whole)
    for name, grad in gradients(parts).items():
        torch.testing.assert_close(grad, grads[name], rtol=1e-8, atol=1e-10, msg=name)
    steps = []
    engine = trainer(data=DataLoader(images(3), batch_size=1), max_epochs=2, accumulation_steps=2)
    for optimizer in (engine.g_optimizer, engine.d_optimizer):
        optimizer.register_step_post_hook(lambda *_: steps.append(engine.state.iteration))
    engine.run()
    assert steps == [2, 2, 3, 3, 5, 5, 6, 6]


def test_the_output_and_the_events() -> None:
    """Decollated by MONAI: a list of items, each with its images and the batch's losses, without graph."""
    engine, fired = trainer(epoch_length=1), []
    pictures = {"x", "y", "fake_x", "fake_y", "cycled_x", "cycled_y"}
    terms = {f"{kind}_{name}_loss" for kind in ("cycle", "adversarial") for name in "xy"}
    first = pictures | terms | {"loss"}
    whole = first | {"discriminator_x_loss", "discriminator_y_loss", "discriminator_loss"}
    expected = [
        (IterationEvents.FORWARD_COMPLETED, pictures),
        (IterationEvents.LOSS_COMPLETED, first),
        (IterationEvents.BACKWARD_COMPLETED, first),
        (AdversarialIterationEvents.DISCRIMINATOR_LOSS_COMPLETED, whole),
        (AdversarialIterationEvents.DISCRIMINATOR_BACKWARD_COMPLETED, whole),
        (AdversarialIterationEvents.DISCRIMINATOR_MODEL_COMPLETED, whole),
    ]
    for event, _ in expected:
        engine.add_event_handler(event, lambda engine, name: fired.append((name, set(engine.state.output))), event)
    engine.run()
    assert fired == expected
    items: Any = engine.state.output
    assert len(items) == 2 and all(set(item) == whole for item in items)
    assert items[0]["fake_y"].shape == (3, 16, 16) and not items[0]["fake_y"].requires_grad
    sums = {"loss": terms, "discriminator_loss": {"discriminator_x_loss", "discriminator_y_loss"}}
    for name, parts in sums.items():
        assert float(items[1][name]) == pytest.approx(sum(float(items[1][part]) for part in parts))


@pytest.mark.parametrize("loss", [PairedTranslationLoss(), UnpairedTranslationLoss()], ids=["paired", "unpaired"])
def test_mixed_precision_on_a_cpu(loss: TranslationLoss) -> None:
    """bfloat16 in the networks, float32 in the losses; close to float32 throughout."""
    data = [{name: image.float() for name, image in item.items()} for item in images()]
    outputs = []
    for amp in (False, True):
        engine = trainer(
            loss,
            g_network=generators().float(),
            d_network=discriminators(loss).float(),
            data=DataLoader(data, batch_size=2),
            amp=amp,
            decollate=False,
        )
        engine.run()
        outputs.append(engine.state.output)
    exact, mixed = outputs
    assert exact["fake_y"].dtype == torch.float32 and mixed["fake_y"].dtype == torch.bfloat16
    for name in ("loss", "discriminator_loss"):
        assert mixed[name].dtype == torch.float32
        assert mixed[name].item() == pytest.approx(exact[name].item(), rel=0.05)


def test_a_scaler_scales_both_steps_and_is_kept() -> None:
    """With the scaler of a CPU in place of CUDA's: the same weights, one update an iteration."""
    runs = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)):
        engine = trainer()
        engine.scaler = scaler
        engine.run()
        runs.append(state(engine))
    assert engine.scaler is scaler and scaler.get_scale() == 16
    torch.testing.assert_close(*runs, rtol=0, atol=1e-9)


def test_batch_keys_and_errors() -> None:
    with pytest.raises(ValueError, match="d_network needs d_optimizer, got None. Give both or neither"):
        trainer(d_optimizer=None)
    with pytest.raises(ValueError, match="d_optimizer needs d_network, got None"):
        trainer(d_network=None, d_optimizer=torch.optim.Adam([nn.Parameter(torch.zeros(1))]))
    with pytest.raises(ValueError, match="accumulation_steps must be positive, got 0. Use 1"):
        trainer(accumulation_steps=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch_lenght'"):
        trainer(epoch_lenght=1)
    with pytest.raises(ValueError, match=r"the batch must have \"y\", got \['label', 'x'\]. Set x_key and y_key"):
        trainer(data=DataLoader([{"x": torch.zeros(2, 16, 16), "label": 0}])).run()
    with pytest.raises(ValueError, match="the discriminators must be named x, y, got A, B. Give one of each name"):
        trainer(d_network=nn.ModuleDict({"A": nn.Conv2d(2, 1, 1), "B": nn.Conv2d(3, 1, 1)})).run()
