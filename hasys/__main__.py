"""``python -m hasys``: the same as the ``hasys`` command, with this interpreter."""

from hasys.cli.main import main

if __name__ == "__main__":
    main()
