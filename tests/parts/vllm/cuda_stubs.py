"""Stand-ins for the CUDA libraries, so that torch's ordinary wheel loads on a machine without a GPU.

Run by the venv's own Python, after torch is installed there. The wheel is linked against 2.7 GB of libraries of
which, without a GPU, nothing is ever called; but the loader wants every name of theirs resolved. So each library
that is missing is compiled here from the names torch asks of it, under the versions it asks for. Every one of
these functions says its name and aborts. Three small libraries are really called and are really installed
(cudart, cupti, cufile): they are not made here. For tests only.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

REALLY_INSTALLED = ("libcudart.", "libcupti.", "libcufile.")
COMES_WITH_A_DRIVER = "libcuda."
# A few libraries export names without a version; the name's beginning tells whose it is.
UNVERSIONED = {
    "nccl": "libnccl.",
    "cusparseLt": "libcusparseLt.",
    "nvshmem": "libnvshmem_host.",
    "curand": "libcurand.",
}
CUDA_LIBRARY = re.compile(r"lib(cu|nv|nccl).*\.so\.\d+")

HEAD = """
#include <stdio.h>
#include <stdlib.h>
static void refuse(const char *name) {
  fprintf(stderr, "%s was called, but this machine has only a stand-in for CUDA\\n", name);
  abort();
}
"""


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def missing_libraries(torch_libraries: Sequence[Path]) -> set[str]:
    """The CUDA libraries that torch is linked against and that nothing installs."""
    shipped = {library.name for library in torch_libraries}
    needed: set[str] = set()
    for library in torch_libraries:
        needed.update(re.findall(r"\(NEEDED\).*\[(.+)\]", output_of("readelf", "--dynamic", str(library))))
    not_ours = (*REALLY_INSTALLED, COMES_WITH_A_DRIVER)
    return {name for name in needed - shipped if CUDA_LIBRARY.fullmatch(name) and not name.startswith(not_ours)}


def names_wanted(torch_libraries: Sequence[Path], missing: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """Of each missing library the names asked of it, each with the version it is asked under, or None."""
    undefined: dict[str, str | None] = {}
    defined: set[str] = set()
    for library in torch_libraries:
        for line in output_of("nm", "--dynamic", str(library)).splitlines():
            kind, symbol = line.split()[-2:]
            name, _, version = symbol.partition("@")
            if kind in "Uwv":
                undefined[name] = version.lstrip("@") or None
            else:
                defined.add(name)
    wanted: dict[str, dict[str, str | None]] = {soname: {} for soname in missing}
    for name, asked_under in undefined.items():
        if name in defined:
            continue
        owners: set[str] = set()
        if asked_under is not None and asked_under in wanted:  # most of these libraries name versions like themselves
            owners = {asked_under}
        elif starts := tuple(start for prefix, start in UNVERSIONED.items() if name.startswith(prefix)):
            owners = {soname for soname in wanted if soname.startswith(starts)}
        for owner in owners:
            wanted[owner][name] = asked_under
    return wanted


def compile_stand_in(path: Path, names: Mapping[str, str | None]) -> None:
    functions = "".join(f'void {name}(void) {{ refuse("{name}"); }}\n' for name in sorted(names))
    by_version = defaultdict[str, list[str]](list)
    for name, version in sorted(names.items()):
        if version is not None:
            by_version[version].append(name)
    with tempfile.TemporaryDirectory() as scratch:
        source, versions = Path(scratch, "stand_in.c"), Path(scratch, "versions")
        source.write_text(HEAD + functions)
        versions.write_text(
            "".join(f"{version} {{ global: {'; '.join(members)}; }};\n" for version, members in by_version.items())
        )
        command = ["cc", "-shared", "-fPIC", "-w", "-o", str(path), str(source), f"-Wl,-soname,{path.name}"]
        if by_version:
            command.append(f"-Wl,--version-script={versions}")
        subprocess.run(command, check=True)


def main() -> None:
    site_packages = Path(sysconfig.get_path("platlib"))
    torch_libraries = sorted((site_packages / "torch" / "lib").glob("lib*.so*"))
    if not torch_libraries:
        raise SystemExit(f"no torch in {site_packages}")
    # torch's libraries look for CUDA's beside the wheels that carry them.
    (folder,) = {path.parent for path in (site_packages / "nvidia").glob("*/lib/libcudart.so.*")}
    missing = missing_libraries(torch_libraries)
    for library, names in sorted(names_wanted(torch_libraries, missing).items()):
        compile_stand_in(folder / library, names)
        print(f"{library}: {len(names)} names")


main()
