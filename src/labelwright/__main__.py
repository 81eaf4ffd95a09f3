"""``python -m labelwright`` is ``labelwright``."""

from labelwright.cli import main

if __name__ == "__main__":
    main()
