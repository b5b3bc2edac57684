"""Make a process look like Windows to this project: what Linux or POSIX alone has is hidden.

What Windows lacks macOS lacks too, or has; so one disguise serves for both. Modules of this
project that are imported from then on see it, everything that was imported before does not:
torch, nnU-Net and Python's own library go on working.

Run with the arguments of nnUNetv2_train_vit, it trains in disguise.
"""

import importlib
import multiprocessing
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

OURS = ("vit_backbone", "vit_heads_unetr", "vit_heads_segformer", "nnunet_vit_trainer")

# Python's documentation: "Availability: Unix".
GONE_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline")
_OF_OS = """
    chown chroot confstr copy_file_range ctermid eventfd fchmod fchown fdatasync fork forkpty
    fpathconf getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getresgid
    getresuid getsid getuid initgroups killpg lchown lockf major makedev memfd_create minor
    mkfifo mknod nice openpty pathconf pidfd_open pipe2 posix_fadvise posix_fallocate
    posix_openpt posix_spawn posix_spawnp pread preadv pwrite pwritev readv register_at_fork
    sched_get_priority_max sched_getaffinity sched_getparam sched_getscheduler sched_setaffinity
    sched_setscheduler sched_yield sendfile setegid seteuid setgid setgroups setns setpgid
    setpriority setregid setresgid setresuid setreuid setsid setuid splice statvfs fstatvfs sync
    sysconf tcgetpgrp tcsetpgrp ttyname uname unshare wait wait3 wait4 waitid writev WEXITSTATUS
    WIFEXITED WIFSIGNALED WIFSTOPPED WNOHANG WTERMSIG WUNTRACED O_ASYNC O_CLOEXEC O_DIRECT
    O_DIRECTORY O_DSYNC O_NDELAY O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_RSYNC O_SYNC
    O_TMPFILE GRND_NONBLOCK GRND_RANDOM getrandom
"""
_OF_SIGNAL = """
    SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGHUP SIGIO SIGIOT SIGKILL SIGPIPE SIGPOLL SIGPROF
    SIGPWR SIGQUIT SIGRTMAX SIGRTMIN SIGSTKFLT SIGSTOP SIGSYS SIGTRAP SIGTSTP SIGTTIN SIGTTOU
    SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIG_BLOCK SIG_SETMASK SIG_UNBLOCK
    ITIMER_PROF ITIMER_REAL ITIMER_VIRTUAL alarm getitimer pause pidfd_send_signal pthread_kill
    pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait sigwaitinfo
"""
_TEST = "test_other_systems"
_OF_SOCKET = """
    AF_UNIX AF_NETLINK AF_PACKET SO_PEERCRED SO_REUSEPORT send_fds recv_fds
"""


def disguise() -> None:
    """Hide them from this project's modules, which are forgotten, for the rest of this process."""
    for name in [n for n in sys.modules if n.split(".")[0] in OURS]:
        del sys.modules[name]
    for name in GONE_MODULES:
        sys.modules[name] = None
    sys.modules["os"] = _without(os, _OF_OS.split(), name="nt")
    sys.modules["signal"] = _without(signal, _OF_SIGNAL.split())
    sys.modules["socket"] = _without(socket, _OF_SOCKET.split())
    sys.modules["sys"] = _without(sys, ["getdlopenflags", "setdlopenflags"], platform="win32")
    sys.addaudithook(_refuse)


def import_everything() -> list[str]:
    """Import every module of the packages that are installed, and return their names."""
    names = []
    for package in OURS:
        with suppress(ModuleNotFoundError):  # a head that is not installed
            root = Path(importlib.import_module(package).__file__).parent
            for file in sorted(root.rglob("*.py")):
                parts = file.relative_to(root.parent).with_suffix("").parts
                names.append(".".join(parts).removesuffix(".__init__"))
    for name in names:
        importlib.import_module(name)
    return names


def _without(module: ModuleType, gone: list[str], **changed: object) -> ModuleType:
    """Copy a module without some names: `hasattr` and `from ... import` say that they lack."""
    copy = ModuleType(module.__name__)
    copy.__dict__.update({n: v for n, v in vars(module).items() if n not in gone} | changed)
    return copy


def _refuse(event: str, arguments: tuple) -> None:
    """Refuse this project what another system has not: /proc and /sys, and C's prctl.

    Others' libraries know the systems that they are for.
    """
    if event in ("open", "os.listdir", "os.scandir"):
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else ""
        if path.startswith(("/proc", "/sys")) and _is_asked_by_us():
            raise FileNotFoundError(f"no {path} on this system")
    if event == "ctypes.dlsym" and arguments[1] == "prctl" and _is_asked_by_us():
        raise AttributeError("no prctl on this system")


def _is_asked_by_us() -> bool:
    frame = sys._getframe(2)
    while frame.f_globals["__name__"].split(".")[0] in ("pathlib", "ctypes", "io", "os"):
        frame = frame.f_back
    return bool({*frame.f_globals["__name__"].split(".")} & {*OURS, "__main__", _TEST})


def main() -> None:
    """Train with data workers that are spawned; nnU-Net's pools are threads, as in other tests."""
    # Python's own, which is imported when it is needed: before the disguise.
    from multiprocessing import popen_spawn_posix, queues, synchronize  # noqa: F401

    import conftest

    multiprocessing.set_start_method("spawn")
    import_everything()
    disguise()
    from nnunet_vit_trainer.commands.train import train

    with conftest.environment_of({}):
        os.environ["nnUNet_n_proc_DA"] = "1"
        train()


if __name__ == "__main__":
    main()
