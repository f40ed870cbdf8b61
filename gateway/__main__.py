"""`python -m gateway`: the same as `pointsman`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
