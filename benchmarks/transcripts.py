"""What each command prints on a terminal of 80 columns, run and put into docs/transcripts.md.

    python benchmarks/transcripts.py WORK_FOLDER [COMMAND ...]

Without names all are run, in their order; what they leave in the folder is there for the next
call. Images are the demo's, the training is of 20 steps on a CPU: the figures mean nothing.
"""

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from document import put
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from PIL import Image

from nnunet_vit_trainer.demo.data import make_image

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT.parent / "shared/weights/vit_small_patch14_dinov2_layout.fp16.safetensors"
COLUMNS, LINES = 80, 40
RESULTS = "results/Dataset900_Textures/nnUNetTrainerNoDeepSupervision_vit__nnUNetPlans_my__2d"
COMMANDS = {
    "demo": "nnUNetv2_demo_vit",
    "import_images": "nnUNetv2_import_images_vit photos -d 900 -n Textures "
    "--labels stripes=80 spots=160 blotches=240",
    "neighbours": "nnUNetv2_neighbours_vit 910 -d 911",
    "configs": "nnUNetv2_configs_vit --list",
    "probe": "nnUNetv2_probe_vit 900 --backbones vit_small_patch14.safetensors --random "
    "--tiles 20 -device cpu",
    "plan": "nnUNetv2_plan_vit 900 --config my.yaml",
    "doctor": "nnUNetv2_doctor_vit 900 2d --config my.yaml -device cpu",
    "train": "nnUNetv2_train_vit 900 2d 0 --config my.yaml -device cpu",
    "predict": "nnUNetv2_predict_vit -i raw/Dataset900_Textures/imagesTs -o masks -d 900 "
    "-p nnUNetPlans_my -device cpu",
    "report": f"nnUNetv2_report_vit {RESULTS}",
    "features": "nnUNetv2_features_vit raw/Dataset900_Textures/imagesTs/test_0_0000.png "
    f"--results {RESULTS}",
    "compare": "nnUNetv2_compare_vit 900",
    "info": f"nnUNetv2_info_vit {RESULTS}",
    "export": f"nnUNetv2_export_vit {RESULTS} model.zip",
    "import": "nnUNetv2_import_vit model.zip",
}
# Not shown: what stands between two of them.
AFTER = {
    "import_images": "nnUNetv2_plan_and_preprocess -d 900 -c 2d -npfp 1 -np 1 && "
    "nnUNetv2_plan_and_preprocess -d 910 -npfp 1 --no_pp",
    "configs": "nnUNetv2_configs_vit --write recommended_tiny my.yaml && sed -i "
    "'s/num_epochs: .*/num_epochs: 2/; s/num_iterations_per_epoch: .*/num_iterations_per_epoch: "
    "10/; s/num_val_iterations_per_epoch: .*/num_val_iterations_per_epoch: 2/' my.yaml",
}
_CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(.)", re.S)


def write_photos(folder: Path) -> None:
    """Write ten images with masks, and two without."""
    rng = np.random.default_rng(0)
    for name, count in (("texture", 10), ("test", 2)):
        for number in range(count):
            image, labels = make_image(rng, size=128)
            kinds = {"images": image, "masks": labels * np.uint8(80)}
            for kind, values in kinds.items() if name == "texture" else [("test", image)]:
                file = folder / kind / f"{name}_{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(file)


def write_volumes(folder: Path) -> None:
    """Write a raw data set of two volumes."""
    rng = np.random.default_rng(0)
    for number in range(2):
        slices = [make_image(rng, size=64) for _ in range(6)]
        for kind, mark, of in (("imagesTr", "_0000", 0), ("labelsTr", "", 1)):
            volume = sitk.GetImageFromArray(np.stack([pair[of] for pair in slices]))
            volume.SetSpacing((1.0, 1.0, 3.0))
            (folder / kind).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(volume, str(folder / kind / f"volume_{number}{mark}.nii.gz"))
    labels = {"background": 0, "stripes": 1, "spots": 2, "blotches": 3}
    generate_dataset_json(str(folder), {0: "grey"}, labels, 2, ".nii.gz")


def on_terminal(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a command in a pseudo-terminal and return the bytes that it wrote there, as text."""
    reader, terminal = pty.openpty()
    run = f"stty cols {COLUMNS} rows {LINES} -onlcr; exec {command}"
    process = subprocess.Popen(
        ["bash", "-c", run],
        cwd=folder,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    parts = []
    while True:
        try:
            part = os.read(reader, 65536)
        except OSError:  # Linux says so that the other end is closed
            break
        if not part:
            break
        parts.append(part)
    if process.wait():
        sys.exit(f"{command} ended with {process.returncode}: {b''.join(parts).decode()[-2000:]}")
    return b"".join(parts).decode(errors="replace")


def screen(written: str) -> list[str]:
    """Return the lines that stand on a terminal in the end, the long ones wrapped."""
    rows, row, column = [""], 0, 0
    for match in _CONTROL.finditer(written):
        number, action, letter = match.groups()
        if action == "A":
            row = max(0, row - int(number or 1))
        elif action == "K":
            rows[row] = "" if number == "2" else rows[row][:column]
        elif letter == "\r":
            column = 0
        elif letter == "\n" or (letter and column == COLUMNS):
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        if letter and letter not in "\r\n":
            rows[row] = f"{rows[row]:<{column}}"[:column] + letter + rows[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in rows]


def main() -> None:
    """Run what was asked for, and put it into the document."""
    folder, chosen = Path(sys.argv[1]).resolve(), sys.argv[2:] or [*COMMANDS]
    if not (folder / "photos").is_dir():
        write_photos(folder / "photos")
        write_volumes(folder / "raw" / "Dataset910_Volumes")
        shutil.copyfile(WEIGHTS, folder / "vit_small_patch14.safetensors")
    paths = {f"nnUNet_{kind}": str(folder / kind) for kind in ("raw", "preprocessed", "results")}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    small = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
    environment = os.environ | paths | small | {"PATH": programs, "TERM": "xterm"}
    for name in chosen:
        if name == "import":
            environment["nnUNet_results"] = str(folder / "receiver")
            (folder / "receiver").mkdir(exist_ok=True)
        # The terminal wraps what it is given, and paths are shorter in a user's folder.
        written = on_terminal(COMMANDS[name], folder, environment).replace(f"{folder}/", "")
        shown = [f"$ {COMMANDS[name]}", *screen(written.replace("\n", "\r\n"))]
        while not shown[-1]:
            shown.pop()
        lines = ["```text", *shown, "```"]
        put(ROOT / "docs" / "transcripts.md", name, "benchmarks/transcripts.py", lines)
        if name in AFTER:
            subprocess.run(
                ["bash", "-c", AFTER[name]],
                cwd=folder,
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
            )


if __name__ == "__main__":
    main()
