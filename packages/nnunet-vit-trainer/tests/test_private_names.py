"""Every private name of nnU-Net and torch that is used: why, and whether it is still there.

Their next release may rename it without a word. What a mere `hasattr` or an override would then
leave out silently fails here.
"""

import ast
from multiprocessing.pool import Pool
from pathlib import Path

import pytest
from batchgenerators.dataloading import nondet_multi_threaded_augmenter as augmenter
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.evaluation import evaluate_predictions
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import _dynamo, distributed, nn

import nnunet_vit_trainer

PRIVATE = {
    "_best_ema": "nnU-Net's checkpoints hold it, and nothing else knows which epoch was the best",
    "_build_loss": "where nnU-Net weighs the outputs of deep supervision: the coarsest one by 0",
    "_set_batch_size_and_oversample": "gives a rank its share of the batch; nnU-Net's `initialize` "
    "does it, but only where it wraps the network for CUDA too",
    "_finish": "stops data workers, as nnU-Net itself does after the last epoch",
    "_start": "starts them; the thread that would print a dead one's traceback is theirs",
    "_processes": "the data workers themselves: nobody else tells which one was killed",
    "_pool": "a pool's processes; nnU-Net's validation asks them itself whether they are alive",
    "_BatchNorm": "what batch norms of all dimensions are; no public class is",
    "_dynamo": "holds torch.compile's wrapper, OptimizedModule",
    "_orig_mod": "the network in that wrapper: checkpoints must not name the wrapper",
    "_exit": "Python's own, documented: ends a worker at once, whatever its threads do",
}
UNDOCUMENTED = {
    "results_loop": (augmenter, "the thread of data workers, whose error would be printed"),
    "save_summary_json": (evaluate_predictions, "writes the summary, here to a temporary file"),
    "maybe_load_checkpoint": (run_training, "which file nnU-Net continues from, and its order"),
    "rendezvous": (distributed, "the store of torchrun's processes, before there is a group"),
}


def names_of_others():
    """List private names that sources use and do not define, or that are nnU-Net's trainer's."""
    used, own = set(), set()
    files = Path(nnunet_vit_trainer.__file__).parent.rglob("*.py")
    for node in (n for f in files for n in ast.walk(ast.parse(f.read_text(encoding="utf-8")))):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()):
                used.add(name)
            case ast.ImportFrom(module=module, names=aliases):
                used |= {*(module or "").split("."), *(alias.name for alias in aliases)}
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Attribute(attr=name) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
    for theirs in (nnUNetTrainer, NonDetMultiThreadedAugmenter, Pool):
        own -= {*dir(theirs), *theirs.__init__.__code__.co_names}
    return {n for n in used - own if n.startswith("_") and not n.startswith("__")}


def test_each_private_name_that_is_used_says_why():
    assert names_of_others() == PRIVATE.keys()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (nnUNetTrainer, "_build_loss"),
        (nnUNetTrainer, "_set_batch_size_and_oversample"),
        (NonDetMultiThreadedAugmenter, "_finish"),
        (NonDetMultiThreadedAugmenter, "_start"),
        (nn.modules.batchnorm, "_BatchNorm"),
        (_dynamo, "OptimizedModule"),
        *((owner, name) for name, (owner, _) in UNDOCUMENTED.items()),
    ],
)
def test_it_is_still_there(owner, name):
    assert hasattr(owner, name)


def test_nnunets_trainer_still_keeps_the_best_dice_under_that_name():
    assert "_best_ema" in nnUNetTrainer.__init__.__code__.co_names


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (NonDetMultiThreadedAugmenter, {"_processes", "_queue", "results_loop_queue"}),
        (Pool, {"_pool"}),
    ],
)
def test_their_constructors_still_make_these_attributes(owner, names):
    assert names <= {*owner.__init__.__code__.co_names}


def test_nnunets_trainer_still_has_what_the_validation_replaces():
    names = nnUNetTrainer.perform_actual_validation.__code__.co_names
    assert {"multiprocessing", "get_context", "Pool", "compute_metrics_on_folder"} <= {*names}


def test_nnunets_predictor_still_fills_a_queue_by_a_thread():
    names = nnUNetPredictor._internal_predict_sliding_window_return_logits.__wrapped__
    assert {"Queue", "Thread"} <= {*names.__code__.co_names}


def test_torchs_store_still_takes_a_socket_that_listens():
    assert "master_listen_fd" in distributed.TCPStore.__init__.__doc__
