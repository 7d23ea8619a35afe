"""`python -m whet`, which `accelerate launch -m whet` needs."""

from whet.cli.app import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
