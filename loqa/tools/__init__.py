"""What looks at runs and saved agents: `python -m loqa.tools.NAME`."""
