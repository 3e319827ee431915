"""The MRI operator: its adjoint, its convention, its gradient, and where it can run."""

from __future__ import annotations

import fastmri
import pytest
import torch
from monai.data import MetaTensor
from torch._subclasses.fake_tensor import FakeTensorMode

from monai_invertible.operators import FourierSampling

#       name: spatial sizes, coils (0: no sensitivities), complex images, Fourier dimensions
CASES = {
    "2d": ((8, 10), 0, 1, 2),
    "2d-odd": ((7, 9), 0, 1, 2),
    "2d-coils": ((6, 9), 3, 1, 2),
    "2d-multiplicity": ((6, 8), 0, 4, 2),
    "2d-coils-multiplicity": ((6, 8), 3, 2, 2),
    "3d-slices": ((4, 6, 5), 2, 1, 2),
    "3d-volume": ((4, 5, 6), 2, 1, 3),
    "1d": ((12,), 0, 1, 1),
}


def example(spatial, coils, images, dtype=torch.float64, batch=2):
    """image, k-space, mask (one per sample), sensitivities."""
    torch.manual_seed(0)
    image = torch.randn(batch, 2 * images, *spatial, dtype=dtype)
    kspace = torch.randn(batch, images * max(coils, 1), *spatial, 2, dtype=dtype)
    mask = (torch.rand(batch, *[1] * len(spatial), spatial[-1], 1) < 0.5).to(dtype)
    return image, kspace, mask, torch.randn(batch, coils, *spatial, 2, dtype=dtype) if coils else None


@pytest.mark.parametrize("name", CASES)
def test_adjoint(name):
    spatial, coils, images, fft_dims = CASES[name]
    x, y, mask, maps = example(spatial, coils, images)
    operator = FourierSampling(fft_dims)
    ax, ahy = operator(x, mask, maps), operator.adjoint(y, mask, maps)
    assert ax.shape == y.shape
    assert ahy.shape == x.shape
    torch.testing.assert_close((ax * y).sum(), (x * ahy).sum(), rtol=1e-12, atol=0)
    # the complex inner product agrees as well, not its real part only: multiply x by i
    ix = torch.stack([-x[:, 1::2], x[:, 0::2]], 2).flatten(1, 2)
    torch.testing.assert_close((operator(ix, mask, maps) * y).sum(), (ix * ahy).sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_data_gradient_is_the_gradient_of_the_data_term(name):
    spatial, coils, images, fft_dims = CASES[name]
    x, _, mask, maps = example(spatial, coils, images)
    operator = FourierSampling(fft_dims)
    data = operator(torch.randn_like(x), mask, maps)
    x.requires_grad_()
    (0.5 * (operator(x, mask, maps) - data).square().sum()).backward()
    gradient = operator.data_gradient(x, operator.adjoint(data, mask, maps), mask, maps)
    torch.testing.assert_close(gradient, x.grad)


@pytest.mark.parametrize("spatial", [(8, 10), (7, 9), (8, 9)])
def test_convention_is_that_of_fastmri(spatial):
    image, _, _, _ = example(spatial, 0, 1)
    everything = torch.ones(1, 1, 1, 1, 1)
    kspace = FourierSampling()(image, everything)
    torch.testing.assert_close(kspace[:, 0], fastmri.fft2c(image.movedim(1, -1)))
    torch.testing.assert_close(FourierSampling().adjoint(kspace, everything), image)  # orthonormal


def test_zero_frequency_is_in_the_middle():
    kspace = FourierSampling()(torch.ones(1, 2, 6, 7), torch.ones(1, 1, 1, 1, 1))
    expected = torch.zeros_like(kspace)
    expected[:, :, 3, 3] = 42**0.5
    torch.testing.assert_close(kspace, expected, atol=1e-5, rtol=0)


def test_coils_see_the_image_through_their_sensitivities():
    image, _, mask, maps = example((6, 8), 3, 1)
    kspace = FourierSampling()(image, mask, maps)
    coil = torch.view_as_complex(maps[:, 1].contiguous()) * torch.complex(image[:, 0], image[:, 1])
    torch.testing.assert_close(kspace[:, 1], fastmri.fft2c(torch.view_as_real(coil)) * mask[:, 0])


def test_every_sample_has_its_own_mask_and_every_image_is_measured_alike():
    image, _, mask, maps = example((6, 8), 3, 2)
    operator = FourierSampling()
    assert not mask[0].equal(mask[1])
    kspace = operator(image, mask, maps)
    for b in range(2):
        for m in range(2):
            alone = operator(image[b : b + 1, 2 * m : 2 * m + 2], mask[b : b + 1], maps[b : b + 1])
            torch.testing.assert_close(kspace[b : b + 1, 3 * m : 3 * m + 3], alone)
    zero_filled = torch.randn(2, 2, 6, 8, dtype=torch.float64)
    gradient = operator.data_gradient(image, zero_filled, mask, maps)
    torch.testing.assert_close(gradient[:, 2:], operator.data_gradient(image[:, 2:], zero_filled, mask, maps))


def test_slices_of_a_volume_do_not_mix():
    image, _, mask, _ = example((4, 6, 8), 0, 1)
    volume = FourierSampling(2)(image, mask)
    torch.testing.assert_close(volume[:, :, 1], FourierSampling(2)(image[:, :, 1], mask[:, :, 0]))


def test_derivatives_in_every_argument():
    image, kspace, mask, maps = example((3, 4), 2, 1, batch=1)
    arguments = (image.requires_grad_(), kspace.requires_grad_(), maps.requires_grad_())

    def gradient(image, kspace, maps):
        operator = FourierSampling()
        return operator.data_gradient(image, operator.adjoint(kspace, mask, maps), mask, maps)

    assert torch.autograd.gradcheck(gradient, arguments)


def test_half_precision_is_computed_in_float32():
    image, _, mask, maps = example((9, 10), 2, 1, dtype=torch.float32)
    zero_filled = torch.zeros_like(image)
    operator = FourierSampling()
    exact = operator.data_gradient(image, zero_filled, mask, maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(operator.data_gradient(image, zero_filled, mask, maps), exact)
    half = operator.data_gradient(image.half(), zero_filled.half(), mask, maps)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=5e-3, rtol=0)


def test_fake_and_meta_tensors():
    image, _, mask, maps = example((6, 8), 2, 1, dtype=torch.float32)
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(t) for t in (image, mask, maps)]
        assert FourierSampling().data_gradient(fakes[0], *fakes).shape == image.shape
    metas = [MetaTensor(t) for t in (image, mask, maps)]
    result = FourierSampling()(*metas)
    assert isinstance(result, MetaTensor)
    torch.testing.assert_close(result.as_tensor(), FourierSampling()(image, mask, maps))


class Gradient(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.operator = FourierSampling()

    def forward(self, image, mask, maps):
        return self.operator.data_gradient(image, torch.zeros_like(image), mask, maps)


def export_example():
    image, _, mask, maps = example((6, 9), 2, 1, dtype=torch.float32)
    image2, _, mask2, maps2 = example((11, 8), 2, 1, dtype=torch.float32, batch=3)
    any_size = torch.export.Dim.DYNAMIC
    shapes = (
        {0: any_size, 2: any_size, 3: any_size},
        {0: any_size, 3: any_size},
        {0: any_size, 2: any_size, 3: any_size},
    )
    return (image, mask, maps), (image2, mask2, maps2), shapes


def test_torch_export_with_any_size():
    small, other, shapes = export_example()
    exported = torch.export.export(Gradient(), small, dynamic_shapes=shapes).module()
    torch.testing.assert_close(exported(*other), Gradient()(*other))


# torch >= 2.9 deprecates TorchScript, which MONAI's bundles still export to; MONAI's shift asks a size for its truth
@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore::torch.jit.TracerWarning")
def test_torchscript_with_any_size():
    small, other, _ = export_example()
    traced = torch.jit.trace(Gradient(), small)
    torch.testing.assert_close(traced(*other), Gradient()(*other))
    scripted = torch.jit.script(FourierSampling())
    torch.testing.assert_close(scripted(*other), FourierSampling()(*other))


@pytest.mark.filterwarnings("ignore")  # PyTorch's exporter uses deprecated parts of PyTorch
def test_onnx_with_any_size():
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    small, other, shapes = export_example()
    program = torch.onnx.export(Gradient(), small, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    feed = {node.name: tensor.numpy() for node, tensor in zip(session.get_inputs(), other, strict=True)}
    (result,) = session.run(None, feed)
    torch.testing.assert_close(torch.from_numpy(result), Gradient()(*other), atol=1e-4, rtol=1e-4)


def test_errors():
    operator = FourierSampling()
    image, kspace, mask, maps = example((6, 8), 3, 1)
    with pytest.raises(ValueError, match="fft_dims must be 1, 2 or 3, got 4"):
        FourierSampling(4)
    with pytest.raises(ValueError, match="even number of channels .* got 1. Append"):
        operator(image[:, :1], mask)
    with pytest.raises(ValueError, match="mask must have the 5 dimensions .* Use mask.reshape"):
        operator(image, mask[:, 0], maps)
    with pytest.raises(ValueError, match="k-space has 3 channels but sensitivities have 2 coils"):
        operator.adjoint(kspace, mask, maps[:, :2])
