"""Says which names of this package have a type that is not known, or that type checkers may see differently."""

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Print the names; return 1 where there are any, and where pyright says nothing."""
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [programs / "pyright", "--ignoreexternal", "--outputjson", "--verifytypes", "sectigo_async"],
        # Where it looks for this package: in the environment of the first python on the path.
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    symbols = json.loads(done.stdout).get("typeCompleteness", {}).get("symbols", [])
    if not symbols:
        sys.stderr.write(done.stdout or done.stderr)
        return 1
    found = [
        f"{name}: {one['message'].splitlines()[0]}"
        for name, one in ((symbol["name"], one) for symbol in symbols for one in symbol["diagnostics"])
        if one["severity"] == "error"
    ]
    sys.stderr.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
