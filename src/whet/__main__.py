"""`python -m whet`, which `accelerate launch -m whet` needs."""

from whet.cli import main

main()
