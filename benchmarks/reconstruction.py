"""i-RIM, RIM and U-Net on the sample set, trained on the same crops, everything through ``python -m monai.bundle run``.

``python benchmarks/reconstruction.py --quick --output demo`` is what ``make demo`` runs: some minutes on two cores.
Without ``--quick`` the same networks train much longer, under an hour. Both write sample data if there are none, train,
evaluate on unseen subjects, reconstruct the test set, and leave a table and a picture. Sample data show that it works;
they are not fastMRI, and no score here compares with a published one.
"""

from __future__ import annotations

import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from common import machine, mean_scores, results, run_bundle, sample_data, table, training_options

bundle = partial(run_bundle, "fastmri_irim_reconstruction")
# Name: model file, overrides of its network, epochs (quick, long). One epoch is 64 crops of the training slices.
NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "i-RIM": ("small", {}, (8, 40)),
    "RIM": ("rim", {"steps": 6, "channels": 16}, (8, 40)),
    "U-Net": ("unet", {"channels": 16}, (8, 40)),
}


def picture(path: Path, folders: dict[str, Path]) -> None:
    """The middle slice of the first volume: each reconstruction over its error."""
    import h5py
    import numpy as np

    name = sorted(folders["i-RIM"].glob("*.h5"))[0].name
    data = next(Path(folders["data"]).rglob(name))
    with h5py.File(data) as file:
        reference = file["reconstruction_esc"][:]
    middle = len(reference) // 2
    images = {"reference": reference[middle]}
    for key in ("zero-filled", *NETWORKS):
        with h5py.File(folders[key] / name) as file:
            images[key] = file["reconstruction"][middle]
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    peak = float(images["reference"].max())
    fig, axes = plt.subplots(2, len(images), figsize=(2.4 * len(images), 5), layout="constrained", dpi=150)
    for (key, image), (top, bottom) in zip(images.items(), axes.T, strict=True):
        top.imshow(image, cmap="gray", vmin=0, vmax=peak)
        error = np.abs(image - images["reference"])
        mse = float((error**2).mean())
        top.set_title(key if mse == 0 else f"{key}  {10 * np.log10(peak**2 / mse):.1f} dB", fontsize=10)
        bottom.imshow(error, cmap="magma", vmin=0, vmax=peak / 5)
        for axis in (top, bottom):
            axis.set_axis_off()
    axes[1, 0].text(5, 15, "error x 5", color="white", fontsize=9)
    fig.savefig(path)
    plt.close(fig)


def main() -> None:
    options = training_options(__doc__, "some minutes instead of most of an hour")
    output = (options.output or results(options.quick) / "reconstruction").resolve()
    output.mkdir(parents=True, exist_ok=True)
    data = output / "sample_data"
    sample_data("fastmri", data)

    rows, folders = [], {"data": data}
    for name, (model, network, epochs) in NETWORKS.items():
        folder = output / model
        folder.mkdir(exist_ok=True)
        count = options.epochs or epochs[0 if options.quick else 1]
        common = {
            "dataset_dir": data,
            "ckpt_dir": folder / "models",
            "output_dir": folder / "eval",
            **{f"network_def#{key}": value for key, value in network.items()},
        }
        start = time.perf_counter()
        log = bundle(
            ["train", model, "quick"], folder / "train.log", epochs=count, val_interval=count // 4 or 1, **common
        )
        seconds = time.perf_counter() - start
        bundle(["train", model, "quick", "evaluate"], folder / "evaluate.log", overwrite=True, **common)
        folders[name] = folder / "eval"
        live = re.findall(r"live_peak ([0-9.]+) MiB", log)
        score = mean_scores(folder / "eval")
        rows.append(
            [name, score["psnr"], score["ssim"], score["nmse"], f"{seconds / 60:.1f}", live[-1] if live else "-"]
        )
    folders["zero-filled"] = output / "zero_filled"
    bundle(
        ["train", "quick", "evaluate", "zero_filled"],
        output / "zero_filled.log",
        dataset_dir=data,
        output_dir=folders["zero-filled"],
        overwrite=True,
    )
    floor = mean_scores(folders["zero-filled"])
    rows.insert(0, ["zero-filled", floor["psnr"], floor["ssim"], floor["nmse"], "-", "-"])
    bundle(
        ["inference", "small"],
        output / "inference.log",
        dataset_dir=data / "singlecoil_test",
        ckpt_dir=output / "small" / "models",
        output_dir=output / "reconstructions",
        overwrite=True,
    )
    picture(output / "comparison.png", folders)
    head = ["", "PSNR (dB)", "SSIM", "NMSE", "training (minutes)", "activations of a step (MiB)"]
    cells = [[n, f"{p:.2f}", f"{s:.3f}", f"{e:.4f}", t, m] for n, p, s, e, t, m in rows]
    text = "\n\n".join(
        [
            "# Reconstruction of 4x accelerated MRI, sample data",
            table(head, cells),
            f"`python benchmarks/reconstruction.py {' '.join(sys.argv[1:])}`  \n{machine()}",
        ]
    )
    (output / "table.md").write_text(text + "\n")
    print(f"\n{text}\n\nPictures: {output / 'comparison.png'} and {output / 'reconstructions'}")


if __name__ == "__main__":
    main()
