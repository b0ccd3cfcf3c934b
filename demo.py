"""A page to try the models: `python demo.py`, then open the address it prints; `--help` lists the options."""

from hubmodels.app.server import main

if __name__ == "__main__":
    main()
