"""What holds of the config files of every folder in bundles/: read, not run, so that no data are needed."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser
from monai.bundle.config_item import ComponentLocator
from monai.bundle.properties import InferProperties, TrainProperties
from torch import nn

import monai_invertible
from tests.bundles.helper import BUNDLES, config_files, config_names, read_config

FILES = [pytest.param(bundle, name, id=f"{bundle.name}-{name}") for bundle in BUNDLES for name in config_names(bundle)]
PARTS = [module for module in vars(monai_invertible).values() if inspect.ismodule(module)]
OURS = {name: getattr(part, name) for part in PARTS for name in part.__all__}
LOCATOR = ComponentLocator()
VERBS = {"imports", "initialize", "run", "finalize"}  # what MONAI's workflow looks for

every_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
every_file = pytest.mark.parametrize(("bundle", "name"), FILES)


def parts(value: Any) -> Iterator[Any]:
    """A config and everything in it."""
    yield value
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(entry)


def strings(config: Any) -> list[str]:
    return [part for part in parts(config) if isinstance(part, str)]


def components(config: Any) -> list[dict[str, Any]]:
    return [part for part in parts(config) if isinstance(part, dict) and "_target_" in part]


def located(target: str) -> Any:
    """What a "_target_" names."""
    module = LOCATOR.get_component_module_name(target) if "." not in target else target.rpartition(".")[0]
    assert isinstance(module, str), f"{target} is not the name of one component: {module}"
    return getattr(importlib.import_module(module), target.rpartition(".")[2])


def takes(target: str, argument: str) -> bool:
    parameters = inspect.signature(located(target)).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def entry(config: Any, key: str) -> Any:
    """The value of "a#b#0"; KeyError if there is none."""
    for part in key.split("#"):
        config = config[int(part)] if isinstance(config, list) else config[part]
    return config


def has(config: Any, key: str) -> bool:
    """Whether the key is an entry of the config, or an argument of a component there."""
    parent, _, last = key.rpartition("#")
    try:
        whole = entry(config, parent) if parent else config
        if isinstance(whole, dict) and "_target_" in whole and takes(whole["_target_"], last):
            return True
        entry(config, key)
    except (KeyError, IndexError, ValueError, TypeError):
        return False
    return True


def readme(bundle: Path) -> str:
    return (bundle / "docs" / "README.md").read_text(encoding="utf-8")


def test_bare_names() -> None:
    """Once the package is imported, as bundles do first, other people's configs may leave our paths out."""
    classes = [name for name, value in OURS.items() if inspect.isclass(value)]
    assert "InvertibleRIM" in classes
    for name in classes:
        assert isinstance(LOCATOR.get_component_module_name(name), str), name


@every_file
def test_targets(bundle: Path, name: str) -> None:
    """Each names one component, ours by its full path (a bare name needs an earlier import), and its arguments."""
    for component in components(read_config(bundle, name)):
        target = component["_target_"]
        assert target not in OURS, f"write the full path of {target}"
        unknown = [key for key in component if not key.startswith("_") and not takes(target, key)]
        assert not unknown, f"{target} has no argument {unknown}"


@every_file
def test_strings(bundle: Path, name: str) -> None:
    config = read_config(bundle, name)
    for value in strings(config):
        for match in re.finditer(r"(@?[\w#]*)#", value):  # MONAI replaces it by "::" wherever it stands
            assert match[0].startswith("@"), f"{value!r} has a # outside an id"
        assert not value.startswith("%"), f"{value!r} would be a macro"
        absolute = r"(?<!\+ )['\"]([/~]|\w:\\)" if value.startswith("$") else r"^([/~]|\w:\\)"
        assert not re.search(absolute, value), f"{value!r} is a path of one machine"
        assert "cuda:" not in value or "torch.cuda.is_available()" in value, f"{value!r} needs a GPU"


@every_file
def test_references(bundle: Path, name: str) -> None:
    """Every "@id" is there, once the file has overridden the training."""
    merged = {"train": ("train",), "inference": ("inference",)}.get(name, ("train", name))
    parser = ConfigParser()
    parser.read_config(config_files(bundle, *merged))
    for value in strings(parser.config):
        for reference in re.findall(r"@(\w+(?:#\w+)*)", value.replace("::", "#")):
            assert has(parser.config, reference), f"{value!r}: there is no {reference}"


@every_file
def test_keys(bundle: Path, name: str) -> None:
    """What an override file names is in another config file, an argument there, or is used or documented."""
    config = read_config(bundle, name)
    others = [read_config(bundle, other) for other in config_names(bundle) if other not in (name, "inference")]
    used = " ".join(value for file in (config, *others) for value in strings(file))
    for key in (key.removeprefix("+") for key in config if name not in ("train", "inference")):  # "+" appends
        known = key in VERBS or any(has(other, key) for other in others)
        known = known or re.search(rf"@{key}\b", used) or re.search(rf"--{key}\b", readme(bundle))
        assert known, f"nothing knows {key}"


@every_bundle
def test_what_monai_asks_for(bundle: Path) -> None:
    for properties, name in ((TrainProperties, "train"), (InferProperties, "inference")):
        config = read_config(bundle, name)
        for property in properties.values():
            key = property["id"].replace("::", "#")
            assert not property["required"] or has(config, key), f"{name}.json must have {key}"
        assert config["bundle_root"] == ".", "MONAI's convention"


@every_bundle
def test_a_training_can_be_interrupted(bundle: Path) -> None:
    """All that has a state is saved and loaded, and each epoch's random numbers come from the seed."""
    config = read_config(bundle, "train")
    saved = config["resumable"]
    assert {"network", "trainer", "scaler", "best"} <= saved.keys()
    for key, value in config.items():
        if isinstance(value, dict) and "_target_" in value and key not in ("checkpoint_saver", "checkpoint_loader"):
            kind = located(value["_target_"])
            stateful = hasattr(kind, "state_dict") and not issubclass(kind, nn.Module)  # the networks have other names
            assert not stateful or f"@{key}" in saved.values(), f"{key} has a state"
    if config["train"]["trainer"]["_target_"] == "SupervisedTrainer":  # its scaler is made when it runs
        assert saved["scaler"] == {"_target_": "monai_invertible.handlers.ScalerState", "trainer": "@train#trainer"}
    assert config["checkpoint_saver"]["save_dict"] == config["checkpoint_loader"]["load_dict"] == "@resumable"
    (seeds,) = (part for part in config["train"]["handlers"] if part["_target_"].endswith(".EpochSeedHandler"))
    assert seeds["seed"] == "@seed"


@every_bundle
def test_processes_but_the_first_show_and_write_nothing(bundle: Path) -> None:
    """They keep the handlers up to a number: those that all processes need."""
    config = read_config(bundle, "multi_gpu_train")
    expression = r"\$@train#handlers\[: (\d+) if dist.get_rank\(\) > 0 else None\]"
    number = re.fullmatch(expression, config["train#trainer#train_handlers"])
    assert number
    names = [part["_target_"].rpartition(".")[2] for part in read_config(bundle, "train")["train"]["handlers"]]
    kept = set(names[: int(number[1])])
    needed = {"EpochSeedHandler", "FiniteLossHandler", "ValidationHandler"}
    assert needed <= kept <= needed | {"LrScheduleHandler"}


@every_bundle
def test_readme_names_every_config_file(bundle: Path) -> None:
    text = readme(bundle)
    named = set(re.findall(r"\$CONFIGS/(\w+)\.json", text))
    assert named <= {*config_names(bundle), "metadata"}
    assert not [name for name in config_names(bundle) if f"`{name}.json`" not in text]


@every_bundle
def test_readme_gives_options_that_are_there(bundle: Path) -> None:
    """Those of ``run``, in commands and in the text."""
    configs = [read_config(bundle, name) for name in config_names(bundle)]
    text = readme(bundle)
    commands = [line for line in text.splitlines() if " -m monai.bundle run " in line]
    inline = re.findall(r"`(--[^`]+)`", text)
    options = re.findall(r" --([\w#]+)", " ".join(f" {line}" for line in (*commands, *inline)))
    assert commands and "config_file" in options
    for option in set(options) - {"config_file", "standalone", "nproc_per_node"}:
        assert any(has(config, option) for config in configs), f"no config file knows --{option}"


@every_bundle
def test_readme_makes_the_sample_data(bundle: Path, capsys: pytest.CaptureFixture) -> None:
    from monai_invertible.__main__ import main

    (arguments,) = set(
        re.findall(r"^python -m monai_invertible (sample-data \w+ sample_data.*)$", readme(bundle), re.M)
    )
    with pytest.raises(SystemExit) as end:
        main([*arguments.split(), "--help"])
    assert end.value.code == 0, capsys.readouterr().err
