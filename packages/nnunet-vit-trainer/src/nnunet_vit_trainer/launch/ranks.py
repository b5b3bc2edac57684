"""The processes of a training: starting them, what the first of them prepares, how they end.

Whoever starts the processes, torchrun or `launch`, tells each by torch's environment variables
who it is (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT); from there on both are the
same. What goes through torch's key-value store: what rank 0 prepared, and who speaks of an error.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import Any

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.multiprocessing import (
    ProcessExitedException,
    start_processes,
)

from nnunet_vit_trainer.training.ending.processes import end_with_parent
from nnunet_vit_trainer.training.ending.stop import (
    EXIT_CODES,
    Stopped,
    asked_by,
    signals_stop,
    signals_wait,
)
from nnunet_vit_trainer.training.group import process_group
from vit_backbone import UserError

# Rank 0 may download weights meanwhile.
_PREPARATION = timedelta(hours=6)
# So many seconds a launcher on this machine has to end this process before it speaks for itself.
_LAUNCHERS_TURN = 5
_LOOPBACK = ("lo", "lo0")  # Linux, macOS


def launch(processes: int, device: str, train: Callable[..., None], *arguments: Any) -> None:
    """Run ``train(*arguments)`` in so many new processes of this machine, as one group.

    Args:
        processes: at least 2.
        device: ``cuda`` (process i takes device i) or ``cpu``.
        train: a function of a module; the processes import it.
        arguments: what JSON holds.

    Raises:
        UserError: one of the processes raised it or was ended; all have ended then.
        Stopped: a signal asked this process or one of them for the end.
    """
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    store = _store_of_this_machine()
    environment = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch's name for: the launcher holds the store
    }
    # gloo would listen on the interface that this machine's name leads to.
    loopback = [name for _, name in socket.if_nameindex() if name in _LOOPBACK]
    environment |= {"GLOO_SOCKET_IFNAME": loopback[0]} if loopback else {}
    started: list[BaseProcess] = []
    with signals_stop(lambda _: _pass_on(started)):
        signals_wait()  # the processes know when they can end
        ranks = start_processes(
            _launched, (environment, device, train, arguments), processes, join=False
        )
        started += ranks.processes
        if asked_by():
            _pass_on(started)
        try:
            while not ranks.join():
                pass
            _raise_if_stopped(store)
        except ProcessExitedException as error:
            if asked_by() or error.exit_code in EXIT_CODES.values():
                _raise_if_stopped(store)  # else torch has sent SIGTERM to the others
            if store.check(["error"]):
                raise UserError(store.get("error").decode()) from None
            raise UserError(
                f"process {error.error_index} of {processes} ended by "
                f"{error.signal_name or f'exit code {error.exit_code}'} and took the others along; "
                "continue with --c"
            ) from None
        finally:
            _end(ranks.processes)


def _store_of_this_machine() -> dist.TCPStore:
    """Hold a store that other machines cannot reach: torch's own socket listens to all of them."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    return dist.TCPStore(
        "127.0.0.1",
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
        use_libuv=False,  # before torch 2.8 it takes no socket
    )


def _pass_on(processes: list[BaseProcess]) -> None:
    """Ask the processes to end with a step: by SIGUSR1, since they may have got Ctrl-C themselves.

    On Windows, which has no such signal, Ctrl-C reaches all of them.
    """
    if hasattr(signal, "SIGUSR1"):
        for process in processes:
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGUSR1)


def _raise_if_stopped(store: dist.Store) -> None:
    nothing = (0, False, False)
    of_ranks, *state = json.loads(store.get("stopped")) if store.check(["stopped"]) else nothing
    if number := asked_by() or of_ranks:
        raise Stopped(number, *state)


def _end(processes: list[BaseProcess]) -> None:
    """End what still runs, as after Ctrl-C; one that waits in a collective hears no SIGTERM."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_LAUNCHERS_TURN)
        process.kill()


def _launched(
    rank: int,
    environment: dict[str, str],
    device: str,
    train: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    # A spawned process spawns its own; each of nnU-Net's data workers would import torch anew.
    multiprocessing.set_start_method(None, force=True)
    end_with_parent()
    try:
        run_rank(device, lambda: arguments, train)
    except UserError:
        raise SystemExit(2) from None  # the launcher says it


def run_rank(
    device: str, prepare: Callable[[], Sequence[Any]], train: Callable[..., None]
) -> Sequence[Any]:
    """Do this process's part of a training, and return what was prepared.

    Args:
        device: ``cuda`` or ``cpu``.
        prepare: called in the first rank alone, before the group exists; the other ranks wait.
            It returns the arguments of ``train``, which JSON must hold.
        train: called in every rank, in the group.

    Raises:
        UserError: in the one rank of all that is to say it; the others exit with 2.
        Stopped: in all of them.
    """
    with signals_stop(), contextlib.ExitStack() as stack:
        if os.environ["RANK"] != "0":
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(_nowhere())))
            os.environ["nnUNet_wandb_enabled"] = "0"  # one run for all of them
        store, *_ = next(rendezvous("env://"))
        with _errors_once(store):
            arguments = _from_first_rank(store, prepare)
            with process_group(device, store):
                train(*arguments)
    return arguments


def _from_first_rank(store: dist.Store, prepare: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    if os.environ["RANK"] != "0":
        store.wait(["prepared"], _PREPARATION)
        prepared = store.get("prepared").decode()
        if not prepared:
            raise SystemExit(2)
        return json.loads(prepared)
    prepared = ""
    try:
        arguments = prepare()
        prepared = json.dumps(arguments)
    finally:
        store.set("prepared", prepared)
    return arguments


@contextlib.contextmanager
def _errors_once(store: dist.Store) -> Iterator[None]:
    """Let one rank of all raise a UserError, also if it lost another, and tell the launcher."""
    try:
        try:
            yield
        except RuntimeError as error:
            if not _lost_another(error):
                raise
            time.sleep(_LAUNCHERS_TURN)
            reason = str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0]
            raise UserError(
                f"rank {os.environ['RANK']} on {socket.gethostname()} lost another process of the "
                f"training and ends ({reason}); continue with --c"
            ) from None
    except UserError as error:
        if _is_first(store, str(error)):
            raise
        raise SystemExit(2) from None
    except Stopped as stopped:
        with contextlib.suppress(RuntimeError):  # whoever held the store is gone
            state = [stopped.number, stopped.saved, stopped.has_checkpoint]
            store.set("stopped", json.dumps(state))
        raise
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _is_first(store: dist.Store, error: str) -> bool:
    try:
        # Before it is counted: whoever is not the first ends at once, and the launcher with it.
        store.compare_set("error", "", error)
        return store.add("errors", 1) == 1
    except RuntimeError:  # the machine that held the store is gone
        return True


def _nowhere() -> Any:
    return open(os.devnull, "w")  # noqa: PTH123 - its caller closes it


def _lost_another(error: RuntimeError) -> bool:
    """Tell whether another process is gone, or silent for too long; gloo's errors have no type."""
    return isinstance(error, dist.DistNetworkError | dist.DistStoreError) or any(
        words in str(error) for words in ("gloo/transport", "ncclRemoteError")
    )
