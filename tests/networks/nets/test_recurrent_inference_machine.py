"""The RIM: size, memory of its state, its two ways of storing, units, and a MONAI trainer."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer

from monai_invertible.losses import SubsampledNMSELoss
from monai_invertible.networks.nets import RecurrentInferenceMachine
from monai_invertible.operators import FourierSampling, kspace_scale


def measurement(spatial=(8, 10), coils=1, batch=2, dtype=torch.float64, seed=0):
    """k-space, mask, sensitivities, target."""
    torch.manual_seed(seed)
    target = torch.randn(batch, 2, *spatial, dtype=dtype)
    mask = (torch.rand(batch, *[1] * len(spatial), spatial[-1], 1) < 0.6).to(dtype)
    maps = torch.randn(batch, coils, *spatial, 2, dtype=dtype) if coils > 1 else None
    return FourierSampling()(target, mask, maps), mask, maps, target


def small(**kwargs):
    torch.manual_seed(1)
    return RecurrentInferenceMachine(steps=3, channels=6, **kwargs).double()


def test_parameters_of_the_paper():
    assert sum(p.numel() for p in RecurrentInferenceMachine().parameters()) == 94_464


@pytest.mark.parametrize(("spatial", "coils"), [((8, 10), 1), ((7, 9), 3), ((3, 8, 7), 1)])
def test_estimates(spatial, coils):
    kspace, mask, maps, target = measurement(spatial, coils)
    network = small(spatial_dims=len(spatial))
    estimates = network(kspace, mask, maps)
    assert isinstance(estimates, tuple)
    assert [e.shape for e in estimates] == [target.shape] * 3
    assert not estimates[0].equal(estimates[1])
    final = network.eval()(kspace, mask, maps)
    torch.testing.assert_close(final, estimates[-1])
    torch.testing.assert_close(network(kspace, None, maps), final)  # the mask is seen in the data
    for b in range(2):  # samples do not influence each other, each has its own mask
        alone = network(kspace[b : b + 1], mask[b : b + 1], None if maps is None else maps[b : b + 1])
        torch.testing.assert_close(alone[0], final[b])


def test_the_first_step_by_hand():
    kspace, mask, _, _ = measurement()
    network = small()
    zero_filled = FourierSampling().adjoint(kspace, mask)
    scale = kspace_scale(zero_filled)
    zero = torch.zeros_like(zero_filled)
    x = network.conv1(torch.cat([zero, -zero_filled / scale], 1)).relu()  # the gradient at 0 is -A^H d
    x = network.gru2(network.conv2(network.gru1(x)).relu())
    torch.testing.assert_close(network(kspace, mask)[0], network.conv3(x) * scale)


def test_the_state_is_carried_from_step_to_step():
    kspace, mask, _, _ = measurement()
    network = small()
    carried = network(kspace, mask)
    for name in ("gru1", "gru2"):
        forgetful = copy.deepcopy(network)
        gru = getattr(forgetful, name)
        plain_forward = gru.forward
        gru.forward = lambda x, h, plain_forward=plain_forward: plain_forward(x)
        lost = forgetful(kspace, mask)
        torch.testing.assert_close(lost[0], carried[0])
        assert (lost[1] - carried[1]).abs().max() > 1e-3


def test_unit_and_empty_measurement():
    kspace, mask, _, _ = measurement(dtype=torch.float32)
    network = small().float().eval()
    scaled = network(kspace * torch.tensor([1e-6, 1e4]).reshape(2, 1, 1, 1, 1), mask)
    torch.testing.assert_close(scaled[0] * 1e6, network(kspace, mask)[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scaled[1] / 1e4, network(kspace, mask)[1], atol=1e-4, rtol=1e-4)
    empty = network(torch.zeros_like(kspace))
    assert torch.isfinite(empty).all()
    assert empty.abs().max() < 1e-30


@pytest.mark.parametrize("coils", [1, 2])
def test_checkpoint_is_the_same_as_store(coils):
    kspace, mask, maps, target = measurement(coils=coils)
    store, again = small(), small(backprop="checkpoint")
    assert list(store.state_dict()) == list(again.state_dict())
    gradients, saved = [], []
    for network in (store, again):
        data = kspace.clone().requires_grad_()
        stored = {}

        def pack(tensor, stored=stored):
            stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = sum((estimate - target).square().mean() for estimate in network(data, mask, maps))
        loss.backward()
        gradients.append([loss, data.grad, *(p.grad for p in network.parameters())])
        saved.append(sum(stored.values()))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)
    assert saved[1] < 0.5 * saved[0]


def test_trains_with_a_monai_trainer():
    kspace, mask, _, target = measurement(dtype=torch.float32, batch=4)
    data = [{"image": k, "label": t, "mask": m} for k, t, m in zip(kspace, target, mask, strict=True)]
    network = small().float()
    before = copy.deepcopy(network.state_dict())
    losses = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-3),
        loss_function=SubsampledNMSELoss(0.5),
        prepare_batch=lambda batch, *_, **__: (batch["image"], batch["label"], (batch["mask"],), {}),
    )
    trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: losses.append(engine.state.output))
    trainer.run()
    assert len(losses) == 4
    assert not any(before[name].equal(value) for name, value in network.state_dict().items())


def test_export_with_any_size():
    network = small().eval()
    kspace, mask, _, _ = measurement((8, 10))
    other, other_mask, _, _ = measurement((11, 9), batch=3)
    any_size = torch.export.Dim.DYNAMIC
    shapes = ({0: any_size, 2: any_size, 3: any_size}, {0: any_size, 3: any_size})
    exported = torch.export.export(network, (kspace, mask), dynamic_shapes=shapes).module()
    torch.testing.assert_close(exported(other, other_mask), network(other, other_mask))


def test_errors():
    network = small()
    for mode in ("invert", "none"):
        with pytest.raises(ValueError, match=rf"one of \('store', 'checkpoint'\), got '{mode}'"):
            RecurrentInferenceMachine(backprop=mode)
        with pytest.raises(ValueError, match="one of"):
            network.backprop = mode
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        RecurrentInferenceMachine(steps=0)
    with pytest.raises(ValueError, match="3 coils need sensitivities"):
        network(torch.zeros(1, 3, 8, 8, 2, dtype=torch.float64))
