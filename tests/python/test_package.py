"""pip makes a source archive and a wheel of it that need nothing of this machine, and the wheel is enough to train."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from conftest import PACKAGE, SOURCE

PROGRAMS = {"gradientd", "gradientctl"}
LIBRARY = "libgradientd-client.so"
C_LIBRARIES = {"linux-vdso.so.1", "libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}

TRAINING = """
import gradientd, numpy as np
weights = np.ones(50, np.float32)
with gradientd.Run({"weights": weights}, "adam", beta2=0.999, eps=1e-8, logdir="runs", max_stall=60) as run:
    for step in range(1, 21):
        run.submit(step, {"weights": weights / step}, 1e-3, scalars={"loss": 1 / step})
print(run.event_path)
"""


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def pip(python, *arguments, **options):
    return run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments, **options)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", directory, SOURCE)
    (found,) = directory.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(archive):
    """Of the source archive, with what pip installs to build it."""
    directory = archive.parent / "wheel"
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", directory, archive, cwd=archive.parent)
    (found,) = directory.iterdir()
    return found


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    """path in the environment -> file, but for the metadata."""
    directory = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(directory)
    found = {}
    for file in filter(Path.is_file, directory.rglob("*")):
        top, *rest = file.relative_to(directory).parts
        if top.endswith(".data"):
            found["/".join(rest)] = file
        elif not top.endswith(".dist-info"):
            found[f"purelib/{top}/{'/'.join(rest)}"] = file
    return found


def test_the_archive_has_the_sources(archive):
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    assert {"LICENSE", "meson.build", "include/gradientd/client.h", "client/python/gradientd/py.typed"} <= names


def test_the_wheel_is_for_every_python_3(wheel):
    version = wheel.name.split("-")[1]
    assert wheel.name.startswith(f"gradientd-{version}-py3-none-linux_"), wheel.name
    assert f"version: '{version}'" in (SOURCE / "meson.build").read_text()


def test_the_wheel_has_the_package_and_the_programs(unpacked):
    committed = run("git", "ls-files", "gradientd", cwd=PACKAGE).split()
    expected = {f"purelib/{name}" for name in [*committed, f"gradientd/{LIBRARY}"]}
    assert set(unpacked) == expected | {f"scripts/{program}" for program in PROGRAMS}


@pytest.mark.parametrize(
    "path", [f"purelib/gradientd/{LIBRARY}", *(f"scripts/{program}" for program in sorted(PROGRAMS))]
)
def test_the_wheel_needs_the_c_library_alone(path, unpacked):
    unpacked[path].chmod(0o755)
    needed = {Path(line.split()[0]).name for line in run("ldd", unpacked[path]).splitlines()}
    assert needed <= C_LIBRARIES


def test_the_library_exports_the_api_alone(unpacked):
    symbols = run("nm", "-D", "--defined-only", unpacked[f"purelib/gradientd/{LIBRARY}"])
    names = {line.split()[2] for line in symbols.splitlines()}
    assert "gradientd_open" in names and all(name.startswith("gradientd_") for name in names), names


def test_an_empty_environment_trains_with_the_wheel(wheel, tmp_path):
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment)
    programs = environment / "bin"
    numpy = next(line for line in (SOURCE / "tests/requirements.txt").read_text().split() if line.startswith("numpy=="))
    pip(programs / "python", "install", numpy, wheel)
    alone = {"PATH": str(programs), "HOME": str(tmp_path)}
    (path,) = run(programs / "python", "-c", TRAINING, env=alone, cwd=tmp_path).split()
    table = run("gradientctl", "dump", path, env=alone, cwd=tmp_path, executable=programs / "gradientctl")
    assert table.count(",gradient/norm,") == 20 and table.count(",loss,") == 20
    assert os.listdir(tmp_path / "runs") == [Path(path).name]


def test_the_types_agree():
    """Within the package: what others declare is not looked at, which takes a minute."""
    options = ["--ignore-missing-imports", "--follow-imports=skip", "--cache-dir", os.devnull]
    run(sys.executable, "-m", "mypy", *options, "-p", "gradientd", cwd=PACKAGE)
