"""What holds of every folder in bundles/: its files, its metadata, and MONAI's verbs on its networks, without training.

The networks are verified as inference builds them, with each override file that replaces or changes the network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle import load as load_bundle
from monai.bundle.scripts import ckpt_export, onnx_export, verify_metadata, verify_net_in_out
from torch import Tensor, nn

import monai_invertible
from tests.bundles.helper import (
    BUNDLES,
    ROOT,
    config_files,
    config_names,
    foreign_directory,
    model_names,
    read_config,
    workflow,
)

MODELS = [
    pytest.param(bundle, model, id=f"{bundle.name}-{model or 'default'}")
    for bundle in BUNDLES
    for model in (None, *model_names(bundle))
]
DIMENSIONS = "_meta_#network_data_format#{}#spatial_shape"
# What differs from the metadata, which describe the default network.
VARIANTS: dict[tuple[str, str | None], dict[str, Any]] = {
    ("fastmri_irim_reconstruction", "unet"): {"n": 4, "_meta_#network_data_format#outputs#pred#num_channels": 1},
    ("fastmri_irim_reconstruction", "volume"): {
        DIMENSIONS.format("inputs#image"): ["4*n", "8*n", "8*n", 2],
        DIMENSIONS.format("outputs#pred"): ["4*n", "8*n", "8*n"],
    },
    # MONAI's network has to be told the time.
    ("brats_idm_generation", "baseline"): {"extra_forward_args": {"timesteps": torch.tensor([1])}},
    ("brats_idm_generation", "checkpointed"): {"extra_forward_args": {"timesteps": torch.tensor([1])}},
}
# Exporters unroll; one step takes seconds. ONNX has no solver, which the Cayley transform needs.
FEWER_STEPS: dict[str, dict[str, Any]] = {
    "fastmri_irim_reconstruction": {"network_def#steps": 1},
    "brats_idm_generation": {"network_def#downsample": "householder"},
}

# What a network takes besides its image; MONAI's verbs leave it out, and an exported diffusion model is no use without.
MORE_INPUTS: dict[str, tuple[Tensor, ...]] = {"brats_idm_generation": (torch.tensor([500.0]),)}

every_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
every_model = pytest.mark.parametrize(("bundle", "model"), MODELS)


def metadata(bundle: Path) -> dict[str, Any]:
    return read_config(bundle, "metadata")


def network_def(bundle: Path, *names: str | None, override: dict[str, Any] | None = None) -> nn.Module:
    parser = ConfigParser()
    parser.read_config(config_files(bundle, *(name for name in names if name)))
    parser.update(override or {})
    return parser.get_parsed_content("network_def").eval()


def small_name(bundle: Path) -> str:
    """The override file that makes the network small."""
    return next(name for name in ("small", "quick") if name in config_names(bundle))


@pytest.fixture
def here(tmp_path: Path) -> Any:
    with foreign_directory(tmp_path):
        yield tmp_path


# ----------------------------------------------------------------------------------------------------- files, metadata


@every_bundle
def test_files(bundle: Path) -> None:
    configs = ("train", "quick", "evaluate", "inference", "multi_gpu_train", "metadata")
    for name in ("docs/README.md", "docs/data_license.txt", "configs/logging.conf"):
        assert (bundle / name).is_file(), name
    for name in configs:
        assert (bundle / "configs" / f"{name}.json").is_file(), name
    assert (bundle / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert not list(bundle.rglob("*.py")), "the code is in the package"
    assert max(file.stat().st_size for file in bundle.rglob("*") if file.is_file()) < 100_000, "no weights, no data"


def schema() -> Path:
    place = Path(os.environ.get("MONAI_BUNDLE_SCHEMA", "none"))
    if not place.is_file():
        pytest.skip("no metadata schema here, and no download in tests: set MONAI_BUNDLE_SCHEMA to its file")
    return place


@every_bundle
def test_verify_metadata(bundle: Path, tmp_path: Path) -> None:
    place = shutil.copy(schema(), tmp_path / "schema.json")  # MONAI takes a file that is there instead of its URL
    hash_val = hashlib.sha256(place.read_bytes()).hexdigest()
    meta_file = str(bundle / "configs/metadata.json")
    verify_metadata(meta_file=meta_file, filepath=place, hash_val=hash_val, hash_type="sha256")


@every_bundle
def test_metadata_agree_with_the_package(bundle: Path) -> None:
    """Its version has its line in the changelog; every package named is one that the project asks for and pins."""
    data = metadata(bundle)
    assert data["version"] == monai_invertible.__version__ and data["version"] in data["changelog"]
    pinned: dict[str, set[str]] = {"monai-invertible": {monai_invertible.__version__}}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([\w.-]+)==([\w.]+)", line):
            pinned.setdefault(match[1], set()).add(match[2])
    asked = set(re.findall(r'"([\w-]+)[\w.<>=\[\],]*"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    named = {"monai": data["monai_version"], "torch": data["pytorch_version"], "numpy": data["numpy_version"]}
    for name, version in (named | data["required_packages_version"]).items():
        assert version in pinned.get(name, ()), f"metadata.json: {name} {version}, constraints.txt: {pinned.get(name)}"
        assert name in asked, f"metadata.json: {name}, which pyproject.toml does not name"


# ------------------------------------------------------------------------------------------------------------ networks


@every_model
def test_training_and_inference_have_the_same_network(bundle: Path, model: str | None) -> None:
    with torch.device("meta"):
        one, other = (network_def(bundle, name, model).state_dict() for name in ("train", "inference"))
    assert {key: value.shape for key, value in one.items()} == {key: value.shape for key, value in other.items()}
    assert one or model


@every_model
def test_verify_net_in_out(bundle: Path, model: str | None) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs/metadata.json"),
        config_file=config_files(bundle, *(name for name in ("inference", model) if name)),
        device="cpu",
        **VARIANTS.get((bundle.name, model), {}),
    )


def example(bundle: Path, n: int) -> Tensor:
    """An input of a size that the metadata allow, with gaps (fastMRI's mask is what is not zero)."""
    image = metadata(bundle)["network_data_format"]["inputs"]["image"]
    shape = [size if isinstance(size, int) else int(size.removesuffix("*n")) * n for size in image["spatial_shape"]]
    x = torch.randn(1, image["num_channels"], *shape, generator=torch.Generator().manual_seed(0))
    x[:, :, :, ::3] = 0
    return x


@pytest.fixture
def trained(bundle: Path, here: Path) -> nn.Module:
    """A small network, whose weights are in models/model.pt."""
    torch.manual_seed(0)
    network = network_def(bundle, "inference", small_name(bundle), override=FEWER_STEPS.get(bundle.name))
    Path("models").mkdir()
    torch.save(network.state_dict(), "models/model.pt")
    return network


def export(bundle: Path) -> dict[str, Any]:
    return {
        "net_id": "network_def",
        "ckpt_file": "models/model.pt",
        "config_file": config_files(bundle, "inference", small_name(bundle)),
        "meta_file": str(bundle / "configs/metadata.json"),
        **FEWER_STEPS.get(bundle.name, {}),
    }


def assert_close(found: Tensor, network: nn.Module, *inputs: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(found, network(*inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # MONAI 1.6 exports by TorchScript
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # names every check of a shape
@every_bundle
def test_ckpt_export(bundle: Path, trained: nn.Module) -> None:
    """For other sizes, too."""
    ckpt_export(filepath="model.ts", **export(bundle))
    script = torch.jit.load("model.ts")
    for n in (1, 2):
        inputs = example(bundle, n), *MORE_INPUTS.get(bundle.name, ())
        with torch.no_grad():
            assert_close(script(*inputs), trained, *inputs)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")  # torch.onnx about torch itself
@every_bundle
def test_onnx_export(bundle: Path, trained: nn.Module) -> None:
    pytest.importorskip("onnxscript", reason="pip install monai-invertible[export]")
    runtime = pytest.importorskip("onnxruntime", reason="pip install monai-invertible[export]")
    x = example(bundle, 2)
    onnx_export(filepath="model.onnx", input_shape=list(x.shape), **export(bundle))
    session = runtime.InferenceSession("model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert_close(torch.from_numpy(found), trained, x)


@every_bundle
def test_torch_export(bundle: Path, trained: nn.Module) -> None:
    inputs = example(bundle, 2), *MORE_INPUTS.get(bundle.name, ())
    with torch.no_grad():
        assert_close(torch.export.export(trained, inputs).module()(*inputs), trained, *inputs)


@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI: trust it, it runs code
@pytest.mark.parametrize("kind", ["train", "inference"])
@every_bundle
def test_load_from_python(bundle: Path, kind: str, trained: nn.Module) -> None:
    """``monai.bundle.load`` of a bundle on disk that holds a checkpoint; no network access."""
    shutil.copytree(bundle, bundle.name)
    shutil.copytree("models", f"{bundle.name}/models")
    small = read_config(bundle, small_name(bundle))
    small |= FEWER_STEPS.get(bundle.name, {})
    override = {key.partition("#")[2]: value for key, value in small.items() if key.startswith("network_def#")}
    parser = ConfigParser()
    parser.read_config(config_files(bundle, "inference", small_name(bundle)))
    for key, value in parser["network_def"].items():
        if isinstance(value, str) and value.startswith("@"):
            override[key] = parser.get_parsed_content(f"network_def#{key}")
    network = load_bundle(
        bundle.name, bundle_dir=".", workflow_type=kind, source="github", device="cpu", net_override=override
    )
    assert type(network) is type(trained)
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in network.state_dict().items())


@every_bundle
def test_check_properties(bundle: Path, here: Path, request: pytest.FixtureRequest) -> None:
    """With the sample data in the place where the README's commands have them."""
    (here / "sample_data").symlink_to(request.getfixturevalue(f"{bundle.name.partition('_')[0]}_folder"))
    for name, *others in (("train",), ("train", "evaluate"), ("inference",)):
        flow = workflow(bundle, name, small_name(bundle), *others, cache_rate=0.0, folds=4)
        assert flow.check_properties() == [], name
