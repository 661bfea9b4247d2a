"""`python -m vmlite`: check the environment and say what it has."""

from __future__ import annotations

import sys

from vmlite.environment import MEND, device_name, problems, versions


def main() -> int:
    """Print problems, or versions and device. Returns the exit status."""
    wrong = problems()
    for problem in wrong:
        print(f"problem: {problem}")
    if wrong:
        print(MEND)
        return 1
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    print("vmlite is ready. " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    print(f"device: {device_name(device)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
