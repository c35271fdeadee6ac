"""``python -m usms_pipeline`` is ``usms``."""

from usms_pipeline.cli import main

if __name__ == "__main__":
    main()
