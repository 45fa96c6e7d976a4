"""Each fault of a plugin a hundred times: that every one costs its job alone, and that memory does not grow.

    tests/.venv/bin/python tests/bench/plugin_faults.py [--times 100]

Builds tests/fixtures/plugins/faults.c with `cc`. Each request with a fault must fail with the plugin's name, or, where the fault is
none to the host, draw the plain picture; after each round of faults a request without the plugin must have the plain bytes. Prints
how far the daemon's memory lies apart from the tenth round on.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import latentd

from switches import ROOT, resident, spread

FAILS = ["fail", "fail-silent", "unknown-status", "wrong-shape", "wrong-kind", "dead-handle", "slot", "null-map", "huge"]
HARMLESS = ["none", "zero", "write-argument", "leak", "notice"]
STAGES = ["noise.init/draft-1", "denoise.combine/draft-1", "image.post/draft-1"]


def install(folder: Path) -> None:
    plugins = folder / "latentd/plugins"
    plugins.mkdir(parents=True)
    source = ROOT / "tests/fixtures/plugins"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-I", ROOT / "plugin-api/include", "faults.c", "-o", plugins / "faults.so", "-lm"],
        cwd=source, check=True)


def measure(times: int, program: Path) -> None:
    with tempfile.TemporaryDirectory() as state:
        install(Path(state) / "data")
        socket = f"{state}/latentd.sock"
        command = [program, "serve", "--socket", socket, "--state-dir", f"{state}/state", "--models-dir",
                   ROOT / "tests/fixtures/models"]
        environment = {"XDG_DATA_HOME": f"{state}/data", "PATH": "/usr/bin:/bin", "HOME": state}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
        try:
            process.stdout.readline()
            with latentd.Client(socket) as client:

                def draw(**plugins: dict) -> bytes:
                    result = client.txt2img("a red circle", seed=1, steps=2, width=64, height=64, checkpoint="tiny-sd1",
                                            output={"format": "raw"}, plugins=plugins)
                    return result.images[0].data

                plain, sizes, failed, drawn = draw(), [], 0, 0
                for number in range(times):
                    for stage in STAGES:
                        for fault in FAILS:
                            try:
                                draw(faults={"fault": fault, "at": stage})
                            except latentd.LatentdError as error:
                                if f"plugin 'faults', {stage}: " not in str(error):
                                    raise
                                failed += 1
                            else:
                                raise SystemExit(f"{fault} at {stage}, round {number}: it drew")
                        for fault in HARMLESS:
                            if draw(faults={"fault": fault, "at": stage}) != plain:
                                raise SystemExit(f"{fault} at {stage}, round {number}: other bytes")
                            drawn += 1
                    if draw() != plain:
                        raise SystemExit(f"round {number}: the plain picture has other bytes")
                    sizes.append(resident(process.pid))
            middle, low, high = spread(sizes[min(10, times // 2):])
            print(f"{failed} faults failed their jobs by name, {drawn} harmless ones drew the plain picture, {times} plain requests "
                  f"between them the plain bytes; memory {middle / 2**20:.1f} MiB, {low:+.2f} to {high:+.2f} %")
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--latentd", type=Path, default=ROOT / "target/release/latentd")
    args = parser.parse_args()
    measure(args.times, args.latentd)


if __name__ == "__main__":
    main()
