"""The U-Net baseline against fastMRI's own pipeline, at sizes fastMRI's U-Net does not take, and in a MONAI trainer."""

from __future__ import annotations

import fastmri
import pytest
import torch
from fastmri.data.transforms import normalize_instance
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from torch._subclasses.fake_tensor import FakeTensorMode

from monai_invertible.networks.nets import MagnitudeUNet
from monai_invertible.operators import FourierSampling


def measurement(size=(32, 48), batch=2):
    torch.manual_seed(0)
    mask = (torch.rand(batch, 1, 1, size[-1], 1) < 0.6).float()
    return torch.randn(batch, 1, *size, 2) * mask, mask


def small(**kwargs):
    torch.manual_seed(1)
    return MagnitudeUNet(4, **kwargs).eval()


def test_parameters_of_the_fastmri_baseline():
    assert sum(p.numel() for p in MagnitudeUNet(32).parameters()) == 7_756_097


def test_same_as_fastmri():
    kspace, _ = measurement()
    network = small()
    result = network(kspace)
    for b in range(2):
        image, mean, std = normalize_instance(fastmri.complex_abs(fastmri.ifft2c(kspace[b])), eps=1e-11)
        expected = network.unet(image.clamp(-6, 6).unsqueeze(0)) * std + mean
        torch.testing.assert_close(result[b : b + 1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (33, 40), (16, 50)])
def test_any_size(size):
    kspace, mask = measurement(size)
    network = small()
    result = network(kspace, mask)
    assert result.shape == (2, 1, *size)
    assert torch.isfinite(result).all()
    torch.testing.assert_close(network(kspace), result)


def test_outliers_are_clamped_and_the_unit_comes_back():
    kspace, mask = measurement()
    network = small()
    expected = network(kspace, mask)
    torch.testing.assert_close(network(1e-6 * kspace, mask) * 1e6, expected, rtol=1e-3, atol=1e-3)
    assert torch.isfinite(network(torch.zeros_like(kspace))).all()

    seen = []
    network.unet.down_sample_layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.zeros(1, 2, 32, 32)
    image[..., 16, 16] = 1
    network(FourierSampling()(image, torch.ones(1, 1, 1, 1, 1)))
    assert seen[0].max() == 6


def test_coils_are_combined():
    kspace, mask = measurement((32, 32))
    maps = torch.randn(2, 3, 32, 32, 2)
    maps = maps / maps.square().sum((1, -1), keepdim=True).sqrt()
    image = FourierSampling().adjoint(kspace, torch.ones_like(mask))
    full = torch.ones_like(mask)
    coils = FourierSampling()(image, full, maps)
    torch.testing.assert_close(small()(coils, full, maps), small()(kspace, full), rtol=1e-4, atol=1e-4)


def test_trains_with_a_monai_trainer():
    kspace, mask = measurement((16, 20), batch=4)
    data = [{"image": k, "label": torch.ones(1, 16, 20), "mask": m} for k, m in zip(kspace, mask, strict=True)]
    network = small()
    before = [p.clone() for p in network.parameters()]
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=network,
        optimizer=torch.optim.RMSprop(network.parameters(), 1e-3),
        loss_function=torch.nn.L1Loss(),
        prepare_batch=lambda batch, *_, **__: (batch["image"], batch["label"], (batch["mask"],), {}),
    ).run()
    assert not any(old.equal(new) for old, new in zip(before, network.parameters(), strict=True))


def test_fake_tensors_and_export_with_any_size():
    network = small()
    small_one, other = measurement((48, 64)), measurement((54, 70), batch=3)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # the parameters are real
        fakes = [mode.from_tensor(tensor) for tensor in other]
        assert network(*fakes).shape == (3, 1, 54, 70)
    any_size = torch.export.Dim.DYNAMIC
    shapes = ({0: any_size, 2: any_size, 3: any_size}, {0: any_size, 3: any_size})
    exported = torch.export.export(network, small_one, dynamic_shapes=shapes).module()
    torch.testing.assert_close(exported(*other), network(*other))


def test_errors():
    with pytest.raises(ValueError, match="at least 2.num_pool_layers = 16, got .15, 32.. Use fewer pool layers"):
        small()(torch.ones(1, 1, 15, 32, 2))
    with pytest.raises(ValueError, match="k-space must be 2D"):
        small()(torch.ones(1, 1, 4, 32, 32, 2))
