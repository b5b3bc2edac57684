"""Every private name of nnU-Net and torch that is used: why, and whether it is still there.

Their next release may rename it without a word. What a mere `hasattr`, an override or a set
attribute would then leave out silently fails here, and says which name it was. The private names
of timm are those of vit-backbone, which has a test of its own.
"""

import ast
import inspect
import sys
from multiprocessing.pool import Pool
from pathlib import Path

import pytest
from batchgenerators.dataloading import nondet_multi_threaded_augmenter as augmenter
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.evaluation import evaluate_predictions
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading import data_loader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import _dynamo, _subclasses, distributed, nn
from torch.distributed._tools import mem_tracker

import nnunet_vit_trainer
from nnunet_vit_trainer.planning import nnunet
from nnunet_vit_trainer.training.from_plans import ATTRIBUTES, BuiltFromPlans
from nnunet_vit_trainer.training.trainer import nnUNetTrainer_vit

NNUNET = sys.modules[nnUNetTrainer.__module__]
PRIVATE = {
    "_best_ema": "nnU-Net's checkpoints hold it, and nothing else knows which epoch was the best",
    "_do_i_compile": "where nnU-Net decides whether to compile; it asks at several places",
    "_build_loss": "where nnU-Net weighs the outputs of deep supervision: the coarsest one by 0",
    "_set_batch_size_and_oversample": "gives a rank its share of the batch; nnU-Net's `initialize` "
    "does it, but only where it wraps the network for CUDA too",
    "_finish": "stops data workers, as nnU-Net itself does after the last epoch",
    "_start": "starts them; the thread that would print a dead one's traceback is theirs",
    "_processes": "the data workers themselves: nobody else tells which one was killed",
    "_pool": "a pool's processes; nnU-Net's validation asks them itself whether they are alive",
    "_BatchNorm": "what batch norms of all dimensions are; no public class is",
    "_dynamo": "holds torch.compile's wrapper, OptimizedModule, and the base of its errors",
    "_orig_mod": "the network in that wrapper: checkpoints must not name the wrapper",
    "_tools": "holds torch's MemTracker, which counts a step's memory; no public module does",
    "_subclasses": "holds FakeTensorMode, in which that step takes none",
    "_exit": "Python's own, documented: ends a worker at once, whatever its threads do",
}
UNDOCUMENTED = {
    "save_json": (NNUNET, "how nnU-Net's trainer writes plans.json in place; ours writes it whole"),
    "NonDetMultiThreadedAugmenter": (NNUNET, "its data workers, which get seeds by this name"),
    "results_loop": (augmenter, "the thread of data workers, whose error would be printed"),
    "save_summary_json": (evaluate_predictions, "writes the summary, here to a temporary file"),
    "threadpool_limits": (data_loader, "limits threads for each batch; ours knows the libraries"),
    "Pool": (nnunet.LISTS_FILES, "how nnU-Net lists files: by forks, which may wait for ever"),
    "rendezvous": (distributed, "the store of torchrun's processes, before there is a group"),
}
OWN_METHODS = {"begin", "_end_if_asked", "_figures"}
"""Of the trainer; each other one overrides nnU-Net's, which must call it."""

SET_ATTRIBUTES = {
    "device": "nnU-Net would take the global rank for the number of the device",
    "is_ddp": "nnU-Net's `initialize` wraps the network for CUDA alone",
    "initial_lr": "the recipe's",
    "weight_decay": "the recipe's",
    "num_epochs": "the recipe's; nnU-Net would train 1000",
    "num_iterations_per_epoch": "the recipe's",
    "num_val_iterations_per_epoch": "the recipe's",
    "save_every": "the recipe's",
    "network": "wrapped for the group on any device",
    "loss": "made anew for the group",
    "grad_scaler": "only float16 needs one",
    "enable_deep_supervision": "decided by the class",
    "disable_checkpointing": "--disable_checkpointing",
    "_best_ema": PRIVATE["_best_ema"],
    "probabilistic_oversampling": "one tile in three, where a batch is of one tile",
    "current_epoch": "a checkpoint in the midst of an epoch counts it as not finished",
    "my_init_kwargs": "the next checkpoints would hold the plans of the one that was loaded",
}
"""Of nnU-Net's trainer, that we set: under another name nobody would read them."""


def trees():
    files = Path(nnunet_vit_trainer.__file__).parent.rglob("*.py")
    return [node for f in files for node in ast.walk(ast.parse(f.read_text(encoding="utf-8")))]


def names_of_others():
    """List private names that sources use and do not define, or that are nnU-Net's trainer's."""
    used, own = set(), set()
    for node in trees():
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()):
                used.add(name)
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" | "setattr"),
                args=[_, ast.Constant(value=str(name)), *_],
            ):
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
        (nnUNetTrainer, "_do_i_compile"),
        (nnUNetTrainer, "_set_batch_size_and_oversample"),
        (NonDetMultiThreadedAugmenter, "_finish"),
        (NonDetMultiThreadedAugmenter, "_start"),
        (nn.modules.batchnorm, "_BatchNorm"),
        (_dynamo, "OptimizedModule"),
        (_subclasses, "FakeTensorMode"),
        (mem_tracker, "MemTracker"),
        (_dynamo.exc, "TorchDynamoException"),
        *((owner, name) for name, (owner, _) in UNDOCUMENTED.items()),
    ],
)
def test_it_is_still_there(owner, name):
    module = owner.__name__.removeprefix("torch.").removeprefix("distributed.").split(".")[0]
    why = PRIVATE.get(name) or UNDOCUMENTED.get(name, (owner, PRIVATE.get(module)))[1]
    assert hasattr(owner, name), f"{owner.__name__} has no {name} any more: {why}"


def test_each_override_is_of_a_method_that_nnunet_has():
    """One of a name that nnU-Net gave up would never be called."""
    ours = vars(nnUNetTrainer_vit) | vars(BuiltFromPlans)
    methods = {name for name, value in ours.items() if callable(value)}
    methods |= {name for name, value in ours.items() if isinstance(value, staticmethod)}
    gone = sorted(methods - OWN_METHODS - {*dir(nnUNetTrainer)})
    assert not gone, f"nnU-Net's trainer has no {', '.join(gone)} any more; ours is never called"


def test_each_attribute_that_is_set_is_one_that_nnunet_has():
    set_by_nnunet = {*nnUNetTrainer.__init__.__code__.co_names}
    gone = sorted(SET_ATTRIBUTES.keys() - set_by_nnunet)
    assert not gone, f"nnU-Net's trainer has no {gone[0]} any more: {SET_ATTRIBUTES[gone[0]]}"
    source = inspect.getsource(BuiltFromPlans) + inspect.getsource(nnUNetTrainer_vit)
    stored = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    stored |= {*ATTRIBUTES}
    assert stored & set_by_nnunet <= SET_ATTRIBUTES.keys()


def test_data_workers_are_still_started_with_these_arguments():
    """`seeded_data_workers` hands them on by name."""
    parameters = inspect.signature(NonDetMultiThreadedAugmenter).parameters
    missing = {"num_processes", "seeds"} - parameters.keys()
    assert not missing, f"NonDetMultiThreadedAugmenter takes no {missing} any more"


def test_torchs_wrapper_still_holds_the_network_under_that_name():
    wrapped = _dynamo.OptimizedModule(nn.Identity(), lambda run: run)
    assert hasattr(wrapped, "_orig_mod"), f"no _orig_mod any more: {PRIVATE['_orig_mod']}"


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
