"""The machine that runs the program: measurements hold only for it, and its instructions decide which methods pay."""

import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

__all__ = ["INSTRUCTION_SETS", "Machine", "current_machine", "supports_products"]

INSTRUCTION_SETS = {
    "avx2": "fp32 products, 8 at a time",
    "avx512f": "fp32 products, 16 at a time",
    "avx512_vnni": "int8 products",
    "avx_vnni": "int8 products",
    "amx_int8": "int8 products in tiles",
    "avx512_bf16": "bf16 products",
    "amx_bf16": "bf16 products in tiles",
    "asimddp": "int8 products",
    "bf16": "bf16 products",
}
"""Instruction sets that matter for compressed models, by their Linux names, and the products that they speed up."""


@dataclass(frozen=True)
class Machine:
    """The machine, as measurements record it."""

    cpu: str
    """Name of the processor."""
    cores: int
    """Logical processors that this process may use."""
    threads: int
    """Threads that torch uses."""
    memory_gib: float
    """Main memory in GiB."""
    instruction_sets: tuple[str, ...]
    """The processor's instruction sets among INSTRUCTION_SETS."""
    device: str
    """The device of models: "cpu", or the name of the accelerator."""
    omp_wait_policy: str
    """How threads wait for work, OMP_WAIT_POLICY; sleeping threads (passive) take longer to start the next product."""

    def to_dict(self) -> dict[str, Any]:
        """Return the machine as JSON values."""
        return asdict(self) | {"instruction_sets": list(self.instruction_sets)}


def current_machine(device: str = "cpu") -> Machine:
    """Return this machine, with the device named as torch names it."""
    described = _cpu_fields()
    flags = set(described.get("flags", described.get("Features", "")).split())
    return Machine(
        cpu=described.get("model name", platform.processor() or platform.machine()),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
        device=torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        omp_wait_policy=os.environ.get("OMP_WAIT_POLICY", "default").lower(),
    )


@cache
def supports_products(kind: Literal["int8", "bf16"]) -> bool:
    """Return whether the processor is known to have instructions for products in this precision."""
    return any(INSTRUCTION_SETS[name].startswith(kind) for name in current_machine().instruction_sets)


def _cpu_fields() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo; empty on systems without this file."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
