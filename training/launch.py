"""Several processes on CPUs: `accelerate launch --cpu --num_processes 2` starts one, whatever number it is told.

Accelerate leaves them to mpirun (its issue 2741) and does not pass the number on; on GPUs it starts them through
torchrun. Here the one process that it did start reads the number where it was typed, and becomes that torchrun.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from training.errors import RecipeError

log = logging.getLogger("training")
RANKS = ("LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def start_all_processes(module: str, arguments: Sequence[str]) -> None:
    """Go on as `python -m module arguments` in all the processes that `accelerate launch --cpu` was told to start.

    Returns if there is nothing to do: not launched, one process wanted, or all of them started already. Otherwise
    torchrun takes this process's place, and ends with the status of what it started.
    """
    count = missing_processes(os.environ, parent_call())
    if count < 2:
        return
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local_addr", "127.0.0.1"]  # on a free port
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *torchrun, f"--nproc_per_node={count}", "-m", module, *arguments])


def missing_processes(environment: Mapping[str, str], call: Sequence[str]) -> int:
    """How many processes the launcher with this command line should have started; 0 if there is none to start.

    Raises:
        RecipeError: several machines are asked for, which `accelerate launch --cpu` does not reach.
    """
    launched = environment.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in environment
    if not launched or any(name in environment for name in RANKS):
        return 0
    arguments = launch_arguments(call)
    if arguments is None:
        log.warning("accelerate launch started one process on the CPU; for several, call it directly, or torchrun")
        return 0
    # Only now: it takes time, and nobody else needs it.
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    wanted = launch_command_parser().parse_args(list(arguments))
    typed = {"num_processes": wanted.num_processes, "num_machines": wanted.num_machines}
    if None in typed.values() and (wanted.config_file or Path(default_config_file).is_file()):
        saved = load_config_from_file(wanted.config_file)
        typed = {name: getattr(saved, name, None) if value is None else value for name, value in typed.items()}
    if (typed["num_machines"] or 1) > 1:
        raise RecipeError("accelerate launch --cpu does not start several machines: call torchrun on each of them")
    return typed["num_processes"] or 0


def launch_arguments(call: Sequence[str]) -> Sequence[str] | None:
    """What follows `accelerate launch` in a command line, in any of its spellings; None if it is another command."""
    for place, word in enumerate(call[:3]):
        if Path(word).name in ("accelerate-launch", "accelerate.commands.launch"):
            return call[place + 1 :]
        if Path(word).name in ("accelerate", "accelerate.commands.accelerate_cli"):
            return call[place + 2 :] if call[place + 1 : place + 2] == ["launch"] else None
    return None


def parent_call() -> list[str]:
    """Command line of the process that started this one; empty if it cannot be read."""
    try:
        return psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return []
