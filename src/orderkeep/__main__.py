"""Lets `python -m orderkeep` do what the command `orderkeep` does."""

from orderkeep.cli import main

if __name__ == "__main__":
    main()
