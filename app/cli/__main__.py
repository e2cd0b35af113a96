"""`python -m app.cli` is `parley`."""

from app.cli import main

main()
