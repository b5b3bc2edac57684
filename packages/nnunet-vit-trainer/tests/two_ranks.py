"""What the processes of test_distributed.py do.

Run by torchrun, each process takes training steps on its share of fixed batches and writes what
came of them; `train` does the same steps on the whole batches where there is no group. The first
functions are for `launch`, whose processes import this module by its name.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from functools import partial, wraps
from ipaddress import ip_address
from pathlib import Path

import torch
import torch.distributed as dist
from a_trainer import load

from nnunet_vit_trainer.config.schema import (
    DecoderConfig,
    ViTModelConfig,
    ViTnnUNetConfig,
    ViTTrainConfig,
)
from nnunet_vit_trainer.launch import ranks
from nnunet_vit_trainer.plans.derive import derive_plans
from nnunet_vit_trainer.training.ending.processes import EndsWithTrainer
from nnunet_vit_trainer.training.ending.stop import Stopped, asked_by, signals_wait
from nnunet_vit_trainer.training.group import largest_of_ranks
from vit_backbone import UserError

DATASET = "Dataset901_Fixed"
DATASET_JSON = {
    "channel_names": {"0": "grey"},
    "labels": {"background": 0, "one": 1, "two": 2},
    "file_ending": ".png",
    "numTraining": 1,
}
BATCH = 4
STEPS = 3
LABELS = {
    "plain": DATASET_JSON["labels"],
    "deep": DATASET_JSON["labels"],
    "ignore": {"background": 0, "one": 1, "ignore": 2},
    "regions": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
}
"""A kind of training -> its data set's labels; "deep" and "ignore" have deep supervision."""


def take_steps(folder, number, target):
    """Take steps until a rank is asked to end; after three, rank 1 sends it, or the launcher."""
    signals_wait()
    for step in range(1_000_000):
        if step == 3 and dist.get_rank() == 1:
            os.kill(os.getpid() if target == "rank" else os.getppid(), number)
        time.sleep(0.01)
        asked = largest_of_ranks(asked_by(), torch.device("cpu"))
        if asked:
            (Path(folder) / f"{dist.get_rank()}_in_step_{step}").touch()
            raise Stopped(asked, saved=True)


def lose_rank_1(folder):
    """Kill rank 1, which has a data worker, while rank 0 waits for it."""
    ranks._LAUNCHERS_TURN = 600  # the launcher speaks, on a machine that is busy too
    folder, rank = Path(folder), dist.get_rank()
    if Path("/proc/self/net/tcp").exists():
        (folder / f"listening_{rank}.json").write_text(json.dumps(listening()))
    dist.barrier()
    if rank == 1:
        (folder / "workers").mkdir()
        given = (EndsWithTrainer(), multiprocessing.Queue(1), folder / "workers")
        multiprocessing.Process(target=load, args=given, daemon=True).start()
        while not list((folder / "workers").iterdir()):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.ones(1))


def wait_for_ever(folder):
    """Say that this process is there, then wait: rank 0 in torch, where it hears no signal."""
    dist.barrier()
    Path(folder, str(os.getpid())).touch()
    if dist.get_rank() == 1:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(3600)
    dist.barrier()


def listening():
    """Return the addresses at which the group's store listens, and those of this process."""
    handles = [
        str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()
    ]
    of_store, own = [], []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state != "0A":
                continue
            address, port = local.split(":")
            words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
            address = str(ip_address(b"".join(words)))
            if int(port, 16) == int(os.environ["MASTER_PORT"]):
                of_store.append(address)
            if f"socket:[{inode}]" in handles:
                own.append(address)
    return of_store, own


def refuse():
    """Refuse in both ranks, after a word of each on stdout."""
    sys.stdout.write(f"rank {dist.get_rank()} speaks\n")
    dist.barrier()
    raise UserError(f"refused by rank {dist.get_rank()}")


def plans(head, deep_supervision, **decoder):
    """Derive plans whose network has no randomness in training."""
    settings = {
        "data_identifier": "data",
        "patch_size": [32, 32],
        "batch_size": BATCH,
        "batch_dice": True,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "spacing": [1.0, 1.0],
    }
    model = ViTModelConfig(
        model_path=head,
        backbone="test_vit",
        pretrained=False,
        input_norm={"mean": [0.1], "std": [0.9]},
        decoder=DecoderConfig(**decoder),
        tune="full",
    )
    dataset_plans = {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "configurations": {"2d": settings},
    }
    config = ViTnnUNetConfig(model=model, train=ViTTrainConfig(initial_lr=1e-3))
    backbone = {"asked": "test_vit", "name": "test_vit", "options": {}}
    return derive_plans(
        dataset_plans, "2d", "fixed", config, backbone, deep_supervision=deep_supervision
    )


def make_trainer(home, head, deep_supervision, labels=LABELS["plain"], **decoder):
    """Make one of our trainers on the CPU, initialized."""
    from nnunet_vit_trainer.training import trainer

    (home / "preprocessed" / DATASET / "data").mkdir(parents=True, exist_ok=True)
    (home / "preprocessed" / DATASET / "data" / "case.b2nd").touch()
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(home / name)
    name = "nnUNetTrainer_vit" if deep_supervision else "nnUNetTrainerNoDeepSupervision_vit"
    made = getattr(trainer, name)(
        plans(head, deep_supervision, **decoder) | {"continue_training": False},
        "2d",
        0,
        DATASET_JSON | {"labels": labels, "regions_class_order": [1, 2]},
        torch.device("cpu"),
    )
    build = made.build_network_architecture

    @wraps(build)  # nnU-Net looks at the signature
    def with_a_buffer(*arguments):
        """Some backbones have buffers (RoPE's), which DDP would broadcast."""
        network = build(*arguments)
        network.register_buffer("idle", torch.zeros(1), persistent=False)
        return network

    made.build_network_architecture = with_a_buffer
    torch.manual_seed(made.local_rank)  # rank 0's weights are to count
    made.initialize()
    return made


def batches(kind="plain"):
    """Return fixed global batches; of an ignore label the first rank's share has few others."""
    generator = torch.Generator().manual_seed(7)
    drawn = []
    for _ in range(STEPS):
        image = torch.randn(BATCH, 1, 32, 32, generator=generator)
        target = torch.randint(0, 3, (BATCH, 1, 32, 32), generator=generator)
        ignored = torch.zeros_like(target, dtype=torch.bool)
        ignored[: BATCH // 2] = torch.rand(target[: BATCH // 2].shape, generator=generator) > 0.03
        if kind == "ignore":
            target = torch.where(ignored, 2, target.clamp(max=1))
        if kind == "regions":  # as nnU-Net's loader gives them
            target = torch.cat([target > 0, target > 1, ignored], dim=1)
        drawn.append((image, target.float()))
    return drawn


def train(home, head, kind, **decoder):
    """Take the steps on this rank's share; return the losses, the weights and those before."""
    deep_supervision = kind in ("deep", "ignore")
    trainer = make_trainer(home, head, deep_supervision, LABELS[kind], **decoder)
    network = trainer.network
    before = {name.removeprefix("module."): w.clone() for name, w in network.state_dict().items()}
    trainer.on_train_epoch_start()
    for group in trainer.optimizer.param_groups:
        # Adam would blow up what rounding leaves of gradients that are 0: those of a bias before
        # a norm of its channel alone.
        group["eps"] = 1e-3
    share = slice(trainer.local_rank * trainer.batch_size, None)
    losses = []
    for image, target in batches(kind):
        image, target = (x[share][: trainer.batch_size] for x in (image, target))
        if deep_supervision:
            strides = [round(1 / scale[0]) for scale in trainer._get_deep_supervision_scales()]
            target = [target[..., ::s, ::s].contiguous() for s in strides]
        losses.append(float(trainer.train_step({"data": image, "target": target})["loss"]))
    after = {name.removeprefix("module."): w for name, w in network.state_dict().items()}
    return losses, after, before, trainer


def predict_in_rank_1(trainer):
    """Predict in rank 1 alone, as where the other has no case to validate, then meet again."""
    trainer.network.eval()
    if trainer.local_rank == 1:
        with torch.no_grad():
            trainer.network(batches()[0][0])
    total = torch.ones(1)
    dist.all_reduce(total)
    return total.item()


def rank_part(out, home):
    """Do this rank's part of everything that is compared, and write it to the folder."""
    home, out = Path(home), Path(out)
    found = {}
    for kind in LABELS:
        losses, after, _, trainer = train(home, "unetr", kind, **NARROW)
        found[kind] = {"losses": losses, "weights": after}
    found["met"] = predict_in_rank_1(trainer)
    found["device"] = str(trainer.device)
    try:
        make_trainer(home, "segformer", False, hidden_size=16, norm="batch")
    except UserError as error:
        found["batch norm"] = str(error)
    torch.save(found, out / f"rank_{dist.get_rank()}.pt")


NARROW = {"decoder_channels": [16, 16, 8, 8, 8]}


def prepare(home):
    """Count how often this is called."""
    with (Path(home) / "prepared").open("a") as file:
        file.write(json.dumps(os.environ["RANK"]))
    return [home]


if __name__ == "__main__":
    from nnunet_vit_trainer.launch.ranks import run_rank

    _, folder = sys.argv
    run_rank("cpu", partial(prepare, folder), partial(rank_part, folder))
