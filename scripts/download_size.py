"""Say how much pip is about to download, before it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen


def size_of(url: str) -> int:
    """Return a file's size in bytes from its folder or its server; 0 where nobody says."""
    parts = urlparse(url)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        return path.stat().st_size if path.is_file() else 0
    try:
        with urlopen(Request(url, method="HEAD"), timeout=10) as answer:
            return int(answer.headers.get("Content-Length", 0))
    except OSError:
        return 0


def main() -> int:
    """Ask pip what it would install and add up the sizes."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--report", "-"]
    answer = subprocess.run([*command, *sys.argv[1:]], capture_output=True, text=True, check=False)
    if answer.returncode:
        print(answer.stderr, file=sys.stderr)
        return 1
    items = json.loads(answer.stdout)["install"]
    if not items:
        return 0
    sizes = {item["metadata"]["name"]: size_of(item["download_info"]["url"]) for item in items}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    print(
        f"About to install {len(sizes)} packages, {sum(sizes.values()) / 1e6:.0f} MB to download "
        f"(largest: {', '.join(f'{n} {sizes[n] / 1e6:.0f} MB' for n in largest)})."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
