"""What looks at runs and saved agents: `python -m loqa.tools.NAME`."""

import loqa.figures  # noqa: F401 (before matplotlib: see there)
