"""Two gloo ranks take two steps of full tuning; each writes the weights that came of them.

A program of its own that forks before any gradient was computed: torch is imported once for both.
"""

import multiprocessing
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from vit_backbone import ViTSegmentationModel, create_backbone
from vit_backbone.heads.linear_head import LinearHead


def train(rank, folder):
    """Tune all of each model on this rank's images."""
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    store = dist.FileStore(str(folder / "store"), 2)
    patience = timedelta(minutes=5)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=patience)
    weights = {}
    for name in ("test_vit3", "test_vit4"):
        torch.manual_seed(0)
        backbone = create_backbone(name, pretrained=False)[0]
        model = ViTSegmentationModel(backbone, LinearHead(backbone.num_features, 2)).train()
        parallel = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(rank)
        for _ in range(2):
            optimizer.zero_grad()
            parallel(torch.randn(1, 3, 32, 32)).square().mean().backward()
            optimizer.step()
        weights[name] = [p.detach() for p in model.parameters()]
    torch.save(weights, folder / f"rank_{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=train, args=(rank, Path(sys.argv[1]))) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    sys.exit(any(process.exitcode for process in ranks))
