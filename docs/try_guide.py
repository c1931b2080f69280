"""Run every command and Python block of the guide in an empty folder, as a reader would who copies them.

    python docs/try_guide.py

Blocks of one page share their variables. Left out: installing, `make`, and runs from files that a page does not make.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

GUIDE = Path(__file__).parent / "guide"
PAGES = ("first-run", "diagnostics", "analysis", "regions-and-lag", "your-system")
SKIP = ("python3", ".venv/", "make", "rlis run lj7", "rlis report runs/lj7", "config.yaml", "rlis resume run")
BLOCK = re.compile(r"^```(python)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """Return the lines of a block that are commands of this package."""
    lines = [line for line in block.splitlines() if line.startswith("rlis ")]
    return [line for line in lines if not any(word in line for word in SKIP)]


def main() -> None:
    """Try the pages in order; the first failure ends it."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for page in PAGES:
            names: dict[str, object] = {"__name__": "__main__"}
            for language, block in BLOCK.findall((GUIDE / f"{page}.md").read_text(encoding="utf-8")):
                for command in [] if language else commands(block):
                    print(f"{page}: {command}", flush=True)
                    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
                if language:
                    print(f"{page}: python, {len(block.splitlines())} lines", flush=True)
                    with contextlib.redirect_stdout(io.StringIO()):
                        exec(compile(block, f"{page}.md", "exec"), names)


if __name__ == "__main__":
    main()
