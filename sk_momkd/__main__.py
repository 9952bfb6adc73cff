"""``python -m sk_momkd`` is the command ``sk-momkd``."""

from .cli import main

if __name__ == "__main__":
    main()
