"""Make a process look like Windows to this project: what Linux or POSIX alone has is hidden.

What Windows lacks macOS lacks too, or has; so one disguise serves for both. Modules of this
project that are imported from then on see it, everything that was imported before does not:
torch, nnU-Net and Python's own library go on working.
"""

import importlib
import os
import pkgutil
import signal
import socket
import sys
from contextlib import suppress
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
            found = importlib.import_module(package)
            names.append(package)
            for module in pkgutil.walk_packages(found.__path__, f"{package}."):
                importlib.import_module(module.name)
                names.append(module.name)
    return names


def _without(module: ModuleType, gone: list[str], **changed: object) -> ModuleType:
    """Copy a module without some names: `hasattr` and `from ... import` say that they lack."""
    copy = ModuleType(module.__name__)
    copy.__dict__.update({n: v for n, v in vars(module).items() if n not in gone} | changed)
    return copy


def _refuse(event: str, arguments: tuple) -> None:
    """Refuse what another system has not: /proc and /sys, and prctl of the C library."""
    if event in ("open", "os.listdir", "os.scandir"):
        path = arguments[0]
        if isinstance(path, str | bytes) and os.fsdecode(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(f"no {os.fsdecode(path)} on this system")
    if event == "ctypes.dlsym" and arguments[1] == "prctl":
        raise AttributeError("no prctl on this system")
