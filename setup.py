"""What pyproject.toml cannot say: a package that is built without the web pages would hold a server without them."""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.errors import SetupError

PAGE = Path(__file__).parent / "sync_server" / "web" / "device" / "index.html"
WITHOUT = "STELLA_WITHOUT_WEB"


class BuildWithPages(build_py):
    """Refuses to build what is not there; an editable install reads the pages where `make web` puts them."""

    def run(self) -> None:
        """Check for the built pages, then build."""
        if not self.editable_mode and not PAGE.is_file() and not os.environ.get(WITHOUT):
            raise SetupError(
                f"The web pages are not built: {PAGE} is missing. Run `make web` first, or set {WITHOUT}=1 for a "
                "package whose server has no page under /device/."
            )
        super().run()


setup(cmdclass={"build_py": BuildWithPages})
