"""Confinement of a process on Linux: one inherited socket, a stated memory, and nothing else of the machine.

Two steps, because namespaces and Landlock bind the *calling thread* and those it starts later, while imports need files:

1. :func:`enter`, first thing and single-threaded: no core dumps, not dumpable (nobody but root may trace the process or read its
   memory), no new privileges, a network namespace of its own, no writing to any file (Landlock).
2. :func:`confine`, after all imports and one warm-up (which starts torch's threads): few files, memory, no file at all (Landlock),
   and an allow-list of system calls for all threads (seccomp): ``open``, ``socket``, ``fork``, ``exec``, ``ptrace`` fail with EPERM.

The memory budget is a cgroup that the host makes (:mod:`labelwright.trust.confine.cgroups`), or RLIMIT_AS where it may make none.
What root on the same machine can do is not limited by any of this: without TEE hardware, ``isolation: none``.
"""

from labelwright.trust.confine.process import Limits, confine, enter

__all__ = ["Limits", "confine", "enter"]
