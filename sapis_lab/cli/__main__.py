"""`python -m sapis_lab.cli` is `sapis`."""

from sapis_lab.cli import main

if __name__ == "__main__":
    main()
