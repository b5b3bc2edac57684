"""Build a ViT-S from a weight file and print what memory that took; for test_weights_memory.

Counted is what the process holds of its own (RssAnon): pages of a mapped file can be dropped.
"""

import sys
import threading
import time
from pathlib import Path

import torch

from vit_backbone import create_backbone

STATUS = Path("/proc/self/status")


def held():
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def main(name, file):
    torch.set_num_threads(1)
    create_backbone("test_vit", pretrained=False)  # what is imported and kept once
    before, most, done = held(), [0], threading.Event()

    def watch():
        while not done.is_set():
            most[0] = max(most[0], held())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    backbone = create_backbone(name, None, file)[0]
    most[0] = max(most[0], held())
    done.set()
    watcher.join()
    own = sum(t.numel() * t.element_size() for t in backbone.state_dict().values())
    sys.stdout.write(f"{most[0] - before} {own}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
