"""The scripts as modules, wherever they are: `from loqa.scripts.ipd import make_iteration`.

A checkout has them at its root, with the configuration beside them, and there `from ipd import make_iteration` is the
same. Where the package is installed, all of these are in the folder loqa/scripts.
"""

from pathlib import Path

_INSTALLED = Path(__file__).resolve().with_suffix("")
ROOT = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1]
CONF_DIR = ROOT / "conf"
__path__ = [str(ROOT)]
